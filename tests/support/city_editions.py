"""Demo cities: two editions with tiles added, removed, changed and moved; a small one; one in projected coordinates."""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from pathlib import Path

from tests.support.simulator import Simulator
from tilesync.demo.city import build_city

BuildCity = Callable[..., dict[str, bytes]]
"""Builds the files of a city; `edition` is that of build_city."""

REMOVED_DISTRICT = "district-03"
ADDED_DISTRICT = "district-08"
MOVED_DISTRICT = "district-01"
MOVED_TO = "moved-district"
SMALL_CITY = {"district-02", "district-04", "district-05"}
EDITED_DISTRICTS = {ADDED_DISTRICT, REMOVED_DISTRICT, MOVED_DISTRICT, "district-05"}
PROJECT_ORIGIN = (510091, 6649129, 0)
"""Easting and northing of an iModel that is exported in the coordinates of its project."""


def older_edition(build: BuildCity = build_city) -> dict[str, bytes]:
    """Return the files of the older edition."""
    return without_district(build(), ADDED_DISTRICT)


def newer_edition(build: BuildCity = build_city) -> dict[str, bytes]:
    """Return the files of the newer edition: a district less and one more, one in another folder, and changed tiles."""
    files = without_district(build(edition=2), REMOVED_DISTRICT)
    root = files["tileset.json"].replace(f"{MOVED_DISTRICT}/".encode(), f"{MOVED_TO}/".encode())
    moved = {name.replace(f"{MOVED_DISTRICT}/", f"{MOVED_TO}/"): data for name, data in files.items()}
    return {**moved, "tileset.json": root}


def small_city(*, edition: int = 1) -> dict[str, bytes]:
    """Return the files of a city of three districts, of which a second edition changes one."""
    return keep_districts(build_city(edition=edition), SMALL_CITY)


def edited_city(*, edition: int = 1) -> dict[str, bytes]:
    """Return the files of a city of the districts that differ between the editions."""
    return keep_districts(
        build_city(edition=edition), {ADDED_DISTRICT, REMOVED_DISTRICT, MOVED_DISTRICT, "district-05"}
    )


def keep_districts(files: dict[str, bytes], kept: Set[str]) -> dict[str, bytes]:
    """Return a city with some of its districts only."""
    for district in {name.partition("/")[0] for name in files if name.startswith("district-")} - kept:
        files = without_district(files, district)
    return files


def city_in_project() -> dict[str, bytes]:
    """Return the small city in the coordinates of a project: the transform of its root is a plain translation."""
    files = small_city()
    tileset = json.loads(files["tileset.json"])
    tileset["root"]["transform"] = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, *PROJECT_ORIGIN, 1]
    return {**files, "tileset.json": json.dumps(tileset).encode()}


def without_district(files: dict[str, bytes], district: str) -> dict[str, bytes]:
    """Return a city without one of its districts."""
    tileset = json.loads(files["tileset.json"])
    children = tileset["root"]["children"]
    tileset["root"]["children"] = [each for each in children if not each["content"]["uri"].startswith(f"{district}/")]
    assert len(tileset["root"]["children"]) == len(children) - 1
    left = {name: data for name, data in files.items() if not name.startswith(f"{district}/")}
    return {**left, "tileset.json": json.dumps(tileset).encode()}


def mirror_editions(dest: Path, build: BuildCity = build_city) -> None:
    """Mirror both editions into a folder, as versions `older` and `newer`, which is the current one."""
    with Simulator() as service:
        service.offer_export(older_edition(build), export_id="older")
        assert service.mirror(dest).error is None
        service.offer_export(newer_edition(build), export_id="newer", lastModified="2026-03-09T08:30:00Z")
        assert service.mirror(dest).error is None
