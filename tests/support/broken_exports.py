"""Mirror a container with broken files; small implicit tilesets."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tests.support.builders import glb, tileset
from tests.support.simulator import JobOutcome, Simulator
from tilesync.events import DiagnosticReported, FileFailed
from tilesync.model import Inventory

TILE = glb(b"tile")
PAGE = b"<html>error</html>"


def mirror(
    files: dict[str, bytes], dest: Path, inventory: Inventory, *, md5: bool = True, **options: Any
) -> JobOutcome:
    """Mirror a container with these files."""
    with Simulator() as sim:
        sim.offer_export(files, md5=md5)
        return sim.mirror(dest, inventory=inventory, **options)


def implicit(subtrees: str = "s/{level}/{x}/{y}", contents: str = "c/{level}/{x}/{y}.glb", **tiling: Any) -> bytes:
    """Build a root whose only tile is implicit."""
    document = json.loads(tileset())
    levels = {"subdivisionScheme": "QUADTREE", "subtreeLevels": 1, "availableLevels": 1, **tiling}
    document["root"] |= {"content": {"uri": contents}, "implicitTiling": {**levels, "subtrees": {"uri": subtrees}}}
    return json.dumps(document).encode()


def subtree(*, children: int = 0, **more: Any) -> bytes:
    """Build a subtree with everything available."""
    available = {"tileAvailability": {"constant": 1}, "contentAvailability": [{"constant": 1}]}
    text = json.dumps({**available, "childSubtreeAvailability": {"constant": children}, **more}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<4sIQQ", b"subt", 1, len(text), 0) + text


def failure_messages(run: JobOutcome) -> dict[str, str]:
    return {failed.name: failed.message for failed in run.events_of(FileFailed)}


def remarked_problems(run: JobOutcome) -> set[tuple[str, str]]:
    return {(diagnostic.name, diagnostic.problem) for diagnostic in run.events_of(DiagnosticReported)}
