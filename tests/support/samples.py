"""Real tilesets as test data: TILESYNC_SAMPLES names the folder that holds them, one folder a tileset."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SAMPLES_FOLDER = Path(os.environ["TILESYNC_SAMPLES"]) if "TILESYNC_SAMPLES" in os.environ else None

_REASON = "TILESYNC_SAMPLES is not set: it names a folder of real tilesets"
requires_samples = pytest.mark.skipif(SAMPLES_FOLDER is None, reason=_REASON)


def sample_folder(name: str = "") -> Path:
    """The folder of one sample, or of all; the test is skipped where there are none."""
    if SAMPLES_FOLDER is None:
        pytest.skip(_REASON)
    return SAMPLES_FOLDER / name
