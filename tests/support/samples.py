"""Real tilesets as test data, one folder per tileset, in the folder that TILESYNC_SAMPLES names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SAMPLES_FOLDER = Path(os.environ["TILESYNC_SAMPLES"]) if "TILESYNC_SAMPLES" in os.environ else None

_REASON = "TILESYNC_SAMPLES is not set: it names a folder of real tilesets"
requires_samples = pytest.mark.skipif(SAMPLES_FOLDER is None, reason=_REASON)


def sample_folder(name: str = "") -> Path:
    """Return the folder of one sample, or of all; skip the test if there are none."""
    if SAMPLES_FOLDER is None:
        pytest.skip(_REASON)
    return SAMPLES_FOLDER / name
