"""The Python API of fleets for blocking code and notebooks: see `tilesync.fleets.aio`."""

from __future__ import annotations

from tilesync.api.blocking import make_blocking
from tilesync.fleets import aio

fleet = make_blocking(aio.fleet)
fleet_status = make_blocking(aio.fleet_status)
