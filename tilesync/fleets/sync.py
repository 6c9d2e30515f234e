"""The Python API of fleets for blocking code and notebooks: `tilesync.fleets.aio.fleet`, run to its end."""

from __future__ import annotations

from tilesync.api.blocking import make_blocking
from tilesync.fleets import aio

fleet = make_blocking(aio.fleet)
