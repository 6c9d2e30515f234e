"""The tests, mirrored: those of `tilesync/a/b.py` are in `tests/a/test_b.py`."""
