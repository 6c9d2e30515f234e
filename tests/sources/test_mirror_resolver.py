"""What is held already as SOURCE: which version is meant, and how it stands among the others."""

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


def origin(
    place: FakeDestination, selector: Selector | None = None, *, run: JobOutcome | None = None
) -> MirrorResolver:
    return MirrorResolver(place, place, selector or Selector(), "/srv/tiles", run or JobOutcome())


def resolved(place: FakeDestination, **wishes: str) -> Resolution:
    return asyncio.run(origin(place, Selector(**wishes)).resolve())


def name_of(resolution: Resolution) -> str:
    assert resolution.export.stored_version is not None
    return resolution.export.stored_version.name


def filled() -> FakeDestination:
    """Three versions of two exports; the pointer names the newest."""
    place = FakeDestination()
    place.add_version("e1", FILES, modified="2026-03-01T00:00:00Z", changeset="c1")
    place.add_version("e1-2", FILES, export="e1", modified="2026-03-02T00:00:00Z", changeset="c1")
    place.add_version("f1", FILES, modified="2026-03-03T00:00:00Z", changeset="c2")
    place.set_latest("f1")
    return place


def test_the_version_that_the_pointer_names() -> None:
    """Its export is told as its manifest has it, with its filters, and what it lacks."""
    place = FakeDestination()
    version = place.add_version("e1", FILES, missing=["a.png"], globs=Globs(exclude=("*.b3dm",)), changeset="c7")
    place.add_version("f1", FILES)
    place.set_latest("e1")
    found = resolved(place)
    export = found.export
    assert (export.id, export.imodel, export.changeset, export.modified) == ("e1", "i", "c7", "")
    assert (export.record, export.name, export.is_complete) == (version.record, "City", True)
    assert export.stored_version is not None
    assert (export.stored_version.globs, export.stored_version.container_url) == (version.globs, version.container_url)
    assert (found.newest, found.behind, found.defects) == ("e1", False, frozenset({"a.png"}))


def test_a_pointer_that_is_pinned_is_behind() -> None:
    """Where the pointer is pinned to an older version, that one is mirrored, and is not taken for the newest."""
    place = filled()
    place.set_latest("e1", pinned=True)
    found = resolved(place)
    assert (name_of(found), found.newest, found.behind) == ("e1", "f1", True)


def test_without_a_pointer_it_is_the_newest() -> None:
    """The newest held version is meant where nothing was published; what was, and is held no more, is damage."""
    place = filled()
    place.latest_document = None
    assert name_of(resolved(place)) == "f1"
    place.set_latest("gone")
    with pytest.raises(Incomplete, match="names version gone"):
        resolved(place)
    assert name_of(resolved(place, export_id="f1")) == "f1"


@pytest.mark.parametrize("pointed", ["e1", "f1"])
def test_of_those_of_one_second_the_pointer_names_the_newest(pointed: str) -> None:
    """Where nothing else tells which came last, all of them are told in an order that ends where the pointer is."""
    place = FakeDestination()
    for name in ("e1", "f1"):
        place.add_version(name, FILES, published_at="2026-04-01T00:00:00Z")
    place.set_latest(pointed)
    exports = asyncio.run(origin(place).list_finished())
    assert exports[-1].stored_version is not None
    assert exports[-1].stored_version.name == pointed


@pytest.mark.parametrize(
    ("wishes", "name", "newest"),
    [
        ({"export_id": "e1"}, "e1-2", "f1"),
        ({"export_id": "e1-2"}, "e1-2", "f1"),
        ({"export_id": "e1-"}, "e1-2", "f1"),
        ({"export_id": "f"}, "f1", "f1"),
        ({"changeset": "c1"}, "e1-2", "e1"),
        ({"changeset": "c1", "export_id": "e1"}, "e1-2", "e1"),
    ],
)
def test_another_version_may_be_meant(wishes: dict[str, str], name: str, newest: str) -> None:
    """By export id the newest of that export, by the beginning of a name the only one, by changeset the newest."""
    found = resolved(filled(), **wishes)
    assert (name_of(found), found.newest) == (name, newest)


@pytest.mark.parametrize("wishes", [{"export_id": "g"}, {"export_id": "e"}, {"changeset": "c9"}])
def test_what_is_not_held(wishes: dict[str, str]) -> None:
    """Nothing that matches, or more than one name that begins so, is NoExport; what is held can be asked for."""
    with pytest.raises(NoExport) as error:
        resolved(filled(), **wishes)
    assert "tilesync versions /srv/tiles" in error.value.hint


def test_a_place_that_holds_nothing() -> None:
    """It is no export, and the hint says what to give."""
    for job in (origin(FakeDestination()).resolve(), origin(FakeDestination()).list_finished()):
        with pytest.raises(NoExport, match="no version is held in /srv/tiles") as error:
            asyncio.run(job)
        assert "manifests/" in error.value.hint


def test_all_of_them_oldest_first() -> None:
    """Each is an origin by itself, also one of two of the same export; only the last is the newest."""
    place, told = filled(), origin(filled())

    async def work() -> list[Resolution]:
        return [await told.resolver_for(export).resolve() for export in await told.list_finished()]

    found = asyncio.run(work())
    assert [name_of(each) for each in found] == place.manifest_names()
    assert [each.behind for each in found] == [True, True, False]


def test_what_is_gone_is_replaced_by_what_is_pointed_at_now() -> None:
    """Asked again after a version retired, the next one is told; nothing at all, or not that one, is ExportReplaced."""
    place = filled()
    one = place.manifests.pop("f1")
    place.set_latest("e1-2")
    assert name_of(asyncio.run(origin(place).resolve(is_replacement=True))) == "e1-2"
    place.manifests.clear()
    with pytest.raises(ExportReplaced):
        asyncio.run(origin(place).resolve(is_replacement=True))
    place.manifests["f1"] = one

    async def retired() -> None:
        told = origin(place)
        (export,) = await told.list_finished()
        place.manifests.clear()
        await told.resolver_for(export).resolve()

    with pytest.raises(ExportReplaced, match="f1"):
        asyncio.run(retired())


@pytest.mark.parametrize("head", [[], [[]], [None], [{}], [{"version": "e1-2"}]])
def test_a_manifest_that_cannot_be_read(head: list[object]) -> None:
    """The version that is meant fails with its name; among all it is left out, with a warning."""
    place, run = filled(), JobOutcome()
    place.manifests["e1-2"] = head
    exports = asyncio.run(origin(place, run=run).list_finished())
    assert [export.id for export in exports] == ["e1", "f1"]
    (warned,) = run.events_of(Warned)
    assert "e1-2" in warned.message
    place.set_latest("e1-2")
    with pytest.raises(Incomplete, match="e1-2"):
        resolved(place)
