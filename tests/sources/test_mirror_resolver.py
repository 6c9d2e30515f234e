"""Resolver of versions in another mirror: selection, and comparison with the newest."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.fake_destination import FakeDestination
from tests.support.simulator import JobOutcome
from tilesync.errors import ExportReplaced, Incomplete, NoExport
from tilesync.events import Warned
from tilesync.model import Globs, Resolution, Selector
from tilesync.sources.mirror_resolver import MirrorResolver

FILES = {"tileset.json": b"{}"}


def make_resolver(
    place: FakeDestination, selector: Selector | None = None, *, run: JobOutcome | None = None
) -> MirrorResolver:
    return MirrorResolver(place, place, selector or Selector(), "/srv/tiles", run or JobOutcome())


def resolve(place: FakeDestination, **selector: str) -> Resolution:
    return asyncio.run(make_resolver(place, Selector(**selector)).resolve())


def name_of(resolution: Resolution) -> str:
    assert resolution.export.stored_version is not None
    return resolution.export.stored_version.name


def make_mirror() -> FakeDestination:
    """Create three versions of two exports; the pointer names the newest."""
    place = FakeDestination()
    place.add_version("e1", FILES, modified="2026-03-01T00:00:00Z", changeset="c1")
    place.add_version("e1-2", FILES, export="e1", modified="2026-03-02T00:00:00Z", changeset="c1")
    place.add_version("f1", FILES, modified="2026-03-03T00:00:00Z", changeset="c2")
    place.set_latest("f1")
    return place


def test_version_of_the_pointer() -> None:
    """Its export is that of the manifest, with its filters and its missing files."""
    place = FakeDestination()
    version = place.add_version("e1", FILES, missing=["a.png"], globs=Globs(exclude=("*.b3dm",)), changeset="c7")
    place.add_version("f1", FILES)
    place.set_latest("e1")
    result = resolve(place)
    export = result.export
    assert (export.id, export.imodel, export.changeset, export.modified) == ("e1", "i", "c7", "")
    assert (export.record, export.name, export.is_complete) == (version.facts.record, "City", True)
    assert export.stored_version is not None
    assert (export.stored_version.globs, export.stored_version.container_url) == (version.globs, version.container_url)
    assert (result.newest, result.behind, result.defects) == ("e1", False, frozenset({"a.png"}))


def test_pinned_pointer() -> None:
    """A pointer pinned to an older version selects that one, and the newest is reported as such."""
    place = make_mirror()
    place.set_latest("e1", pinned=True)
    result = resolve(place)
    assert (name_of(result), result.newest, result.behind) == ("e1", "f1", True)
    assert resolve(place, export_id="current") == result


def test_without_a_pointer() -> None:
    """Without a pointer the newest version is selected; a pointer to a missing version is damage."""
    place = make_mirror()
    place.latest_document = None
    assert name_of(resolve(place)) == "f1"
    with pytest.raises(NoExport, match="there is no version current"):
        resolve(place, export_id="current")
    place.set_latest("gone")
    with pytest.raises(Incomplete, match="names version gone"):
        resolve(place)
    assert name_of(resolve(place, export_id="f1")) == "f1"
    with pytest.raises(Incomplete, match="names version gone"):
        resolve(place, export_id="current")


@pytest.mark.parametrize("current", ["e1", "f1"])
def test_versions_of_one_second(current: str) -> None:
    """Among versions of the same second the one of the pointer is the newest, so the last."""
    place = FakeDestination()
    for name in ("e1", "f1"):
        place.add_version(name, FILES, published_at="2026-04-01T00:00:00Z")
    place.set_latest(current)
    exports = asyncio.run(make_resolver(place).list_finished())
    assert exports[-1].stored_version is not None
    assert exports[-1].stored_version.name == current


@pytest.mark.parametrize(
    ("selector", "name", "newest"),
    [
        ({"export_id": "e1"}, "e1-2", "f1"),
        ({"export_id": "e1-2"}, "e1-2", "f1"),
        ({"export_id": "e1-"}, "e1-2", "f1"),
        ({"export_id": "f"}, "f1", "f1"),
        ({"export_id": "current"}, "f1", "f1"),
        ({"export_id": ""}, "f1", "f1"),
        ({"export_id": "", "changeset": "c1"}, "e1-2", "e1"),
        ({"changeset": "c1"}, "e1-2", "e1"),
        ({"changeset": "c1", "export_id": "e1"}, "e1-2", "e1"),
    ],
)
def test_selected_version(selector: dict[str, str], name: str, newest: str) -> None:
    """An export id selects its newest version, a name prefix the only match, a changeset its newest version.

    `current` selects the version that the pointer names.
    """
    result = resolve(make_mirror(), **selector)
    assert (name_of(result), result.newest) == (name, newest)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ({"export_id": "g"}, "there is no version g in"),
        ({"export_id": "e"}, "there is more than one version that begins with e in"),
        ({"changeset": "c9"}, "there is no version of changeset c9 in"),
    ],
)
def test_no_matching_version(selector: dict[str, str], message: str) -> None:
    """No match, or several names with the prefix, is NoExport; the hint shows how to list versions."""
    with pytest.raises(NoExport, match=message) as error:
        resolve(make_mirror(), **selector)
    assert "tilesync versions /srv/tiles" in error.value.hint


def test_empty_mirror() -> None:
    """An empty mirror is NoExport, with a hint what to give."""
    for job in (make_resolver(FakeDestination()).resolve(), make_resolver(FakeDestination()).list_finished()):
        with pytest.raises(NoExport, match="there is no version in /srv/tiles") as error:
            asyncio.run(job)
        assert "manifests/" in error.value.hint


def test_all_versions_oldest_first() -> None:
    """Each version gets its own resolver, also two of the same export; only the last is the newest."""
    place, resolver = make_mirror(), make_resolver(make_mirror())

    async def work() -> list[Resolution]:
        return [await resolver.resolver_for(export).resolve() for export in await resolver.list_finished()]

    result = asyncio.run(work())
    assert [name_of(each) for each in result] == place.manifest_names()
    assert [each.behind for each in result] == [True, True, False]


def test_removed_version_is_replaced() -> None:
    """After a version is removed the one of the pointer replaces it; without any it is ExportReplaced."""
    place = make_mirror()
    one = place.manifests.pop("f1")
    place.set_latest("e1-2")
    assert name_of(asyncio.run(make_resolver(place).resolve(is_replacement=True))) == "e1-2"
    place.manifests.clear()
    with pytest.raises(ExportReplaced):
        asyncio.run(make_resolver(place).resolve(is_replacement=True))
    place.manifests["f1"] = one

    async def retired() -> None:
        resolver = make_resolver(place)
        (export,) = await resolver.list_finished()
        place.manifests.clear()
        await resolver.resolver_for(export).resolve()

    with pytest.raises(ExportReplaced, match="f1"):
        asyncio.run(retired())


@pytest.mark.parametrize("head", [[], [[]], [None], [{}], [{"version": "e1-2"}]])
def test_unreadable_manifest(head: list[object]) -> None:
    """The selected version fails with its name; in a list of all it is left out, with a warning."""
    place, run = make_mirror(), JobOutcome()
    place.manifests["e1-2"] = head
    exports = asyncio.run(make_resolver(place, run=run).list_finished())
    assert [export.id for export in exports] == ["e1", "f1"]
    (warned,) = run.events_of(Warned)
    assert "e1-2" in warned.message
    place.set_latest("e1-2")
    with pytest.raises(Incomplete, match="e1-2"):
        resolve(place)
