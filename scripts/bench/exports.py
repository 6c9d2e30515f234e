"""The exports of the benchmark: generated once, with their changed copies; and the newest export that the API names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import data
from service import imodel_id, write_export_response

TILE_COUNT, MEDIAN_TILE_BYTES = 20_000, 20_000
LARGE_FILE_COUNT, LARGE_FILE_BYTES = 24, 64 << 20
MANY_FILE_COUNT, FEWER_FILE_COUNT = 1_000_000, 100_000
CHANGED_EXPORT_COUNT = 3
PUT_COUNT, PUT_BYTES = 10_000, 32 << 10
CONTAINERS = ("small", "tiny", "large", "put", "fewer", "many")
"""Containers that are the newest export of an iModel of the same name when a workload begins."""

CHANGED = {"small": 1000, "many": 500_000}
"""Containers with changed copies, and the tile before the first that is changed."""


MARKER = "made-2"
"""File that says that the exports are complete; its name changes when they do."""


def generate_exports(folder: Path) -> None:
    """Generate the exports and their listings, once; delete older ones, with the mirrors of them."""
    if not (folder / MARKER).exists():
        print("generating exports: some 4 GB, a minute or two", flush=True)
        for old in (folder, folder.parent / "held", folder.parent / "put"):
            shutil.rmtree(old, ignore_errors=True)
        _generate_containers(folder)
        (folder / MARKER).touch()
    for container, number in CHANGED.items():
        if not (folder / "lists" / changed_name(container, CHANGED_EXPORT_COUNT)).exists():
            _generate_changed_copies(folder, container, number)


def changed_name(container: str, number: int) -> str:
    """Return the name of a changed copy of a container. Each has one more changed file than the copy before."""
    return f"{container}-changed-{number}" if number else container


def set_newest_export(state: Path, listings: Path, url: str, imodel: str, *, container: str, modified: str) -> None:
    """Set a container, with its size, as the newest export of an iModel."""
    size = _listed_size(listings / container)
    write_export_response(state, url, imodel_id(imodel), container=container, modified=modified, size=size)


def _listed_size(listing: Path) -> int:
    """Return the size of a container. Adding up a million files takes a while, so it is kept beside the pages."""
    kept = listing / "size.txt"
    if not kept.exists():
        pages = (page for page in listing.glob("*.xml") if page.stem.isdecimal())
        sizes = (re.findall(r"<Content-Length>(\d+)<", page.read_text()) for page in pages)
        kept.write_text(str(sum(int(each) for found in sizes for each in found)))
    return int(kept.read_text())


def _generate_containers(folder: Path) -> None:
    boxes = folder / "containers"
    data.write_small_files(boxes / "small", tiles=TILE_COUNT, median=MEDIAN_TILE_BYTES)
    data.write_small_files(boxes / "tiny", tiles=20, median=2000)
    data.write_large_files(boxes / "large", count=LARGE_FILE_COUNT, size=LARGE_FILE_BYTES)
    data.write_equal_files(boxes / "put", count=PUT_COUNT, size=PUT_BYTES)
    for box in boxes.iterdir():
        data.write_listing(folder / "lists" / box.name, box.name, data.list_folder(box))
    for name, count in (("fewer", FEWER_FILE_COUNT), ("many", MANY_FILE_COUNT)):
        data.write_listing(folder / "lists" / name, name, data.write_many_files(boxes / name, count=count))


def _generate_changed_copies(folder: Path, container: str, number: int) -> None:
    """Write copies of a container, each with one changed file more than the one before."""
    boxes, lists = folder / "containers", folder / "lists"
    for count in range(1, CHANGED_EXPORT_COUNT + 1):
        name, before = changed_name(container, count), changed_name(container, count - 1)
        shutil.rmtree(boxes / name, ignore_errors=True)
        shutil.rmtree(lists / name, ignore_errors=True)
        if count > 1:
            shutil.copytree(boxes / before, boxes / name)
        changed = data.write_changed_file(boxes / name, data.tile_name(number + count), later_s=1000 * count)
        data.copy_listing_with_change(lists / name, lists / before, changed)
