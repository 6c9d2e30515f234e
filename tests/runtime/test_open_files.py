"""Test the limit of open files."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from tilesync.runtime.open_files import raise_open_file_limit
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
raise_open_file_limit()
soft, after = resource.getrlimit(resource.RLIMIT_NOFILE)
assert after == hard
print(soft > 64 or hard == 64)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_soft_limit_is_raised() -> None:
    """The soft limit becomes the hard one, which stays."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
