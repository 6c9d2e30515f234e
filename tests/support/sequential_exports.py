"""Exports of consecutive days that differ in one file."""

from __future__ import annotations

from pathlib import Path

from tests.support.builders import export, glb
from tests.support.simulator import EXPORT, Simulator

FIRST, SECOND, THIRD, FOURTH, FIFTH = IDS = (
    EXPORT,
    *(f"{letter * 8}-0000-4000-8000-00000000000{number}" for number, letter in enumerate("bcde", 2)),
)
CHANGED_FILE = "tiles/003.glb"


def files_of(which: str) -> dict[str, bytes]:
    """Return the files of one of the exports."""
    return export(6) | {CHANGED_FILE: glb(which.encode())}


def offer_exports(sim: Simulator, *ids: str) -> dict[str, dict[str, bytes]]:
    """Offer these exports, oldest first; return their files."""
    for which in ids:
        sim.offer_export(files_of(which), export_id=which, lastModified=f"2026-03-0{1 + IDS.index(which)}T08:30:00Z")
    return {which: files_of(which) for which in ids}


def mirror_each(dest: Path, *ids: str) -> Path:
    """Mirror each of these exports in its own run; return the destination."""
    with Simulator() as sim:
        for which in ids:
            offer_exports(sim, which)
            assert sim.mirror(dest).error is None
    return dest
