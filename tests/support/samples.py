"""Real tilesets as test data: TILESYNC_SAMPLES names the folder that holds them, one folder a tileset."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ["TILESYNC_SAMPLES"]) if "TILESYNC_SAMPLES" in os.environ else None

_REASON = "TILESYNC_SAMPLES is not set: it names a folder of real tilesets"
needed = pytest.mark.skipif(FOLDER is None, reason=_REASON)


def folder(name: str = "") -> Path:
    """The folder of one sample, or of all; the test is skipped where there are none."""
    if FOLDER is None:
        pytest.skip(_REASON)
    return FOLDER / name
