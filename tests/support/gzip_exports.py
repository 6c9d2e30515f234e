"""Exports with gzip files, and mirrors that unpack them."""

from __future__ import annotations

import gzip
import random
import subprocess
from pathlib import Path
from typing import Any

from tests.support.builders import export, glb, tileset
from tests.support.commandline import run_tilesync
from tests.support.simulator import (
    EXPORT,
    JobOutcome,
    Simulator,
)
from tilesync.model import Content

BIG, LARGE = "tiles/big.glb", "tiles/large.glb"
DECODED = ("--content", "decoded")


def make_gzip_export(tiles: int = 12, *, seed: int = 0) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Build an export with mostly gzip files (small, root, large); return the files and their unpacked bytes."""
    dice = random.Random(seed)
    plain = export(tiles, seed=seed)
    plain[BIG], plain[LARGE] = glb(dice.randbytes(400_000) * 3), glb(dice.randbytes(4_500_000))
    plain["tileset.json"] = tileset("tiles/tileset.json", BIG, LARGE, "data/%C3%A4%20b%2520%2B%23.bin")
    left = {"tiles/000.glb", "tiles/001.glb", "data/empty"}
    return {name: data if name in left else gzip_bytes(data) for name, data in plain.items()}, plain


def gz_names(files: dict[str, bytes]) -> set[str]:
    return {name for name, data in files.items() if data.startswith(b"\x1f\x8b\x08")}


def run_sha256sum(dest: Path, version: str = EXPORT) -> int:
    """Run the real `sha256sum -c` in the folder of a version; return its exit code."""
    listing = run_tilesync("versions", dest, "--sha256sums", version)
    assert listing.exit_code == 0
    checked = subprocess.run(
        ["sha256sum", "--quiet", "-c", "-"], input=listing.stdout.encode(), cwd=dest / "versions" / version, check=False
    )
    return checked.returncode


def mirror_decoded(sim: Simulator, dest: Path, **changes: Any) -> JobOutcome:
    return sim.mirror(dest, content=Content.DECODED, **changes)


def gzip_bytes(data: bytes) -> bytes:
    """Compress bytes with gzip, reproducibly."""
    return gzip.compress(data, 6, mtime=0)
