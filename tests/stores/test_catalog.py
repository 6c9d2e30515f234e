"""The embedded state of a destination."""

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesync.errors import DestinationError, Incomplete
from tilesync.model import Blob, Held, Totals, Version
from tilesync.stores.catalog import SCHEMA_VERSION, Catalog

SHA = b"s" * 32
NEW = Version(0, "e1", "e1", "i", "c", "2026", {"id": "e1", "deep": {"n": [1]}})
FULL = Blob("a/ä", 3, "0x8D", b"m" * 16, "t", "gzip", 1772353800)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite3"


def names(catalog: Catalog, version: Version) -> list[str]:
    """What is wanted, in listed order."""
    rows = [*catalog.wanted(version, 0, limit=100, empty=False), *catalog.wanted(version, 0, limit=100, empty=True)]
    return [blob.name for _, blob in sorted(rows)]


def add(catalog: Catalog, version: Version, *blobs: Blob | str, folders: tuple[str, ...] = ()) -> None:
    catalog.add_page(version, [(b if isinstance(b, Blob) else Blob(b, 1), None) for b in blobs], folders)


def again(catalog: Catalog, version: Version) -> Version:
    """The same version, its container listed anew."""
    version = replace(version, listing=version.listing + 1, listed=False, marker=None)
    catalog.update(version)
    return version


def hold_all(catalog: Catalog, version: Version) -> None:
    rows = catalog.wanted(version, 0, limit=100, empty=False)
    catalog.hold([(number, Held(blob, SHA, 5)) for number, blob in rows])


# --- versions and facts ---


def test_versions_come_back(path: Path) -> None:
    """Versions are told in the order in which they were begun, as they were recorded, also after reopening."""
    catalog = Catalog(path)
    one = catalog.begin(NEW)
    two = catalog.begin(replace(NEW, name="e2", export="e2", imodel=None, changeset=None))
    three = catalog.begin(replace(NEW, name="e1-2", published="t", files=3, bytes=4, manifest_sha256="00", listed=True))
    assert len({one.serial, two.serial, three.serial}) == 3
    catalog.close()
    catalog = Catalog(path)
    assert catalog.versions() == [one, two, three]
    assert catalog.versions(export="e1") == [one, three]
    assert catalog.versions(name="e1-2") == [three]
    assert catalog.versions(export="e3") == []
    catalog.close()


def test_updates_come_back(path: Path) -> None:
    """Everything that may change about a version is recorded."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    changed = replace(
        version, modified="2027", record={"id": "e1", "x": None}, listing=2, listed=True, marker="m", damaged=True,
        published="t", files=1, bytes=2, manifest_sha256="ff",
    )  # fmt: skip
    catalog.update(changed)
    assert catalog.versions() == [changed]
    catalog.close()


def test_forget(path: Path) -> None:
    """A forgotten version leaves nothing behind, and its name is free again."""
    catalog = Catalog(path)
    other = catalog.begin(replace(NEW, name="other"))
    add(catalog, other, "x")
    version = catalog.begin(NEW)
    add(catalog, version, "a/b", folders=("a",))
    catalog.forget(version)
    assert catalog.versions() == [other]
    fresh = catalog.begin(NEW)
    add(catalog, fresh, "a")
    assert catalog.finish_listing(fresh) == []
    assert (names(catalog, fresh), names(catalog, other)) == (["a"], ["x"])
    catalog.close()


def test_facts(path: Path) -> None:
    """A fact is kept under its key, the last one counts, and a catalog knows whether it is fresh."""
    catalog = Catalog(path)
    assert catalog.fresh
    assert catalog.recall("boot") is None
    catalog.remember("boot", "1")
    catalog.remember("boot", "2")
    catalog.close()
    catalog = Catalog(path)
    assert not catalog.fresh
    assert catalog.recall("boot") == "2"
    catalog.close()


# --- inventory ---


def test_a_page_comes_back(path: Path) -> None:
    """Blobs come back with everything that the listing says of them, in listed order, with the marker of the page."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    catalog.add_page(replace(version, marker="next"), [(FULL, None), (Blob("0", 1), None)], ["a"])
    catalog.close()
    catalog = Catalog(path)
    assert [blob for _, blob in catalog.wanted(version, 0, limit=9, empty=False)] == [FULL, Blob("0", 1)]
    assert catalog.versions()[0].marker == "next"
    catalog.close()


def test_wanted_is_read_in_portions(path: Path) -> None:
    """What is wanted is handed out from an id on, so many at a time; blobs without bytes come apart."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, "c", "b", Blob("empty", 0), "a")
    seen, after = [], 0
    while rows := catalog.wanted(version, after, limit=2, empty=False):
        assert len(rows) <= 2
        seen += [blob.name for _, blob in rows]
        after = rows[-1][0]
    assert seen == ["c", "b", "a"]
    assert [blob.name for _, blob in catalog.wanted(version, 0, limit=9, empty=True)] == ["empty"]
    catalog.close()


def test_what_is_held(path: Path) -> None:
    """What is held is no longer wanted, is found by name and in order, and survives reopening."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, "c", FULL, "b")
    (number, blob), *_ = catalog.wanted(version, 1, limit=1, empty=False)
    catalog.hold([(number, Held(blob, SHA, 7))])
    catalog.close()
    catalog = Catalog(path)
    assert names(catalog, version) == ["c", "b"]
    assert catalog.held_among(version, ["b", FULL.name, "nothing"]) == {FULL.name: Held(FULL, SHA, 7)}
    assert catalog.held(version, limit=9) == [(FULL.name, Held(FULL, SHA, 7))]
    assert catalog.totals(version) == Totals(3, 5, 1, 3)
    catalog.close()


def test_held_is_read_in_portions(path: Path) -> None:
    """What is held is read in the order of its keys, after the last one read."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, "b", "a/b", "a", "ä")
    hold_all(catalog, version)
    seen, after = [], ""
    while rows := catalog.held(version, after, limit=3):
        seen += [key for key, _ in rows]
        after = rows[-1][0]
    assert seen == ["a", "a/b", "b", "ä"]
    catalog.close()


def test_held_among_many(path: Path) -> None:
    """Any number of names can be asked for at once."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    blobs = [Blob(f"{number}", 1) for number in range(2000)]
    catalog.add_page(version, [(blob, Held(blob, SHA, 1)) for blob in blobs], [])
    assert set(catalog.held_among(version, [blob.name for blob in blobs])) == {blob.name for blob in blobs}
    assert catalog.held_among(version, []) == {}
    catalog.close()


def test_release(path: Path) -> None:
    """What is released is wanted again; names that are not there do no harm."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, "a", "b")
    hold_all(catalog, version)
    catalog.release(version, ["a", "nothing"])
    assert names(catalog, version) == ["a"]
    assert catalog.totals(version) == Totals(2, 2, 1, 1)
    catalog.close()


def test_versions_do_not_mix(path: Path) -> None:
    """The same name in two versions is two files."""
    catalog = Catalog(path)
    one, two = catalog.begin(NEW), catalog.begin(replace(NEW, name="e2"))
    add(catalog, one, "a")
    add(catalog, two, "a")
    hold_all(catalog, one)
    assert (names(catalog, one), names(catalog, two)) == ([], ["a"])
    assert catalog.finish_listing(two) == []
    assert catalog.totals(one) == Totals(1, 1, 1, 1)
    catalog.close()


# --- clashes ---


@pytest.mark.parametrize("first", [[], ["z", "a"]], ids=["one page", "two pages"])
def test_a_name_listed_twice_is_refused(path: Path, first: list[str]) -> None:
    """A name that comes twice in a listing, in one page or two, is an error, and nothing of that page is taken in."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, *first)
    with pytest.raises(Incomplete, match="twice"):
        add(catalog, replace(version, marker="m"), "new", "a", "more", *([] if first else ["a"]), folders=("f",))
    assert names(catalog, version) == first
    assert catalog.versions()[0].marker is None
    add(catalog, version, Blob("f", 5))
    assert catalog.finish_listing(version) == []
    catalog.close()


@pytest.mark.parametrize(("one", "other"), [("Tile.glb", "tile.GLB"), ("straße", "STRASSE"), ("e\u0301", "é")])
def test_names_that_a_disk_takes_for_one(path: Path, one: str, other: str) -> None:
    """On a disk that folds case two names that differ in it alone are refused, both named; elsewhere they are two."""
    catalog = Catalog(path)
    plain = catalog.begin(NEW)
    add(catalog, plain, one, other)
    assert names(catalog, plain) == [one, other]
    catalog.set_folds(folds=True)
    version = catalog.begin(replace(NEW, name="folded"))
    with pytest.raises(Incomplete) as error:
        add(catalog, version, one, other)
    assert one in str(error.value)
    assert other in str(error.value)
    assert names(catalog, version) == []
    add(catalog, version, one)
    with pytest.raises(Incomplete):
        add(catalog, version, other)
    catalog.close()


def test_folding_keeps_names(path: Path) -> None:
    """Where case is folded a name is still told as the container spells it, and found by any spelling; it is kept."""
    catalog = Catalog(path)
    catalog.set_folds(folds=True)
    version = catalog.begin(NEW)
    add(catalog, version, "Tile.GLB")
    hold_all(catalog, version)
    assert [held.blob.name for held in catalog.held_among(version, ["Tile.GLB"]).values()] == ["Tile.GLB"]
    catalog.release(version, ["Tile.GLB"])
    assert names(catalog, version) == ["Tile.GLB"]
    catalog.close()
    assert Catalog(path).folds


def test_folded_folders_clash(path: Path) -> None:
    """Where case is folded a file clashes with a folder that differs from it in case alone."""
    catalog = Catalog(path)
    catalog.set_folds(folds=True)
    version = catalog.begin(NEW)
    add(catalog, version, "Data", "data/a", folders=("data",))
    with pytest.raises(DestinationError, match="both a file and a folder: Data"):
        catalog.finish_listing(version)
    catalog.close()


def test_a_file_that_is_a_folder_is_refused(path: Path) -> None:
    """A name with bytes that is the folder of another stops the listing from being finished."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, "a", "a/b", folders=("a",))
    with pytest.raises(DestinationError, match="both a file and a folder: a"):
        catalog.finish_listing(version)
    assert not catalog.versions()[0].listed
    catalog.close()


def test_folder_placeholders_leave(path: Path) -> None:
    """An empty blob that is the folder of others leaves the inventory; other empty blobs stay."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, Blob("a", 0), "a/b", Blob("empty", 0), folders=("a",))
    assert catalog.finish_listing(version) == []
    assert names(catalog, version) == ["a/b", "empty"]
    assert catalog.versions()[0].listed
    catalog.close()


# --- listing again ---


def test_relisting_keeps_and_drops(path: Path) -> None:
    """A new listing keeps what is told to be held, wants the rest, and finds what is gone."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, "kept", "changed", "gone", "unseen")
    hold_all(catalog, version)
    assert catalog.finish_listing(version) == []
    held = catalog.held_among(version, ["kept"])["kept"]
    version = again(catalog, version)
    page = [(Blob("kept", 1, "e2"), Held(Blob("kept", 1), SHA, 5)), (Blob("changed", 2), None), (Blob("new", 1), None)]
    catalog.add_page(version, page, [])
    assert names(catalog, version) == ["changed", "new"]
    assert sorted(catalog.finish_listing(version)) == ["gone", "unseen"]
    assert names(catalog, version) == ["changed", "new"]
    assert catalog.held_among(version, ["kept", "gone"]) == {"kept": replace(held, blob=Blob("kept", 1, "e2"))}
    assert catalog.totals(version) == Totals(3, 4, 1, 1)
    catalog.close()


def test_relisted_names_come_behind(path: Path) -> None:
    """A reader that goes by id meets every name of the new listing, also those that the old one had."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, "a", "b", "c")
    version = again(catalog, version)
    seen: list[str] = []
    after = 0
    for name in ("c", "b", "a", "d"):
        add(catalog, version, name)
        rows = catalog.wanted(version, after, limit=9, empty=False)
        seen += [blob.name for _, blob in rows]
        after = rows[-1][0]
    assert seen == ["c", "b", "a", "d"]
    catalog.close()


@pytest.mark.parametrize("size", [0, 1])
def test_what_was_a_folder_may_become_a_file(path: Path, size: int) -> None:
    """Only the current listing decides what is a file and what is a folder."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, "a/b", folders=("a",))
    catalog.finish_listing(version)
    version = again(catalog, version)
    add(catalog, version, Blob("a", size))
    assert catalog.finish_listing(version) == ["a/b"]
    assert names(catalog, version) == ["a"]
    version = again(catalog, version)
    add(catalog, version, "a/b", folders=("a",))
    assert catalog.finish_listing(version) == ["a"]
    assert names(catalog, version) == ["a/b"]
    catalog.close()


def test_relisting_finds_doubles_too(path: Path) -> None:
    """A name that comes twice in a second listing is refused there too, and what was held is held."""
    catalog = Catalog(path)
    version = catalog.begin(NEW)
    add(catalog, version, "a")
    hold_all(catalog, version)
    version = again(catalog, version)
    with pytest.raises(Incomplete):
        add(catalog, version, "a", "a")
    assert list(catalog.held_among(version, ["a"])) == ["a"]
    catalog.close()


NAMES = st.lists(st.sampled_from(["a", "A", "a/b", "b", "c/d/e", "ä", "z"]), unique=True)


@given(st.lists(NAMES, max_size=4))
@settings(max_examples=40)
def test_the_last_listing_is_the_inventory(listings: list[list[str]]) -> None:
    """After any row of listings the inventory is the last one, each gone name was told once, and order is as listed."""
    catalog = Catalog(Path(":memory:"))
    version, before = catalog.begin(NEW), set[str]()
    for listed in listings:
        version = again(catalog, version)
        for name in listed:
            add(catalog, version, name)
        assert set(catalog.finish_listing(version)) == before - set(listed)
        assert names(catalog, version) == listed
        before = set(listed)
    catalog.close()


# --- the file ---


def test_reading_only_writes_nothing(path: Path) -> None:
    """A catalog that is only read changes no byte and makes no file, also where a killed run left its journal."""
    code = f"""
import os
from pathlib import Path
from tilesync.stores.catalog import Catalog
catalog = Catalog(Path({str(path)!r}))
catalog.remember("told", "yes")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert path.with_name(path.name + "-wal").stat().st_size > 0

    def state() -> dict[str, tuple[bytes, int]]:
        return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}

    before = state()
    catalog = Catalog(path, read_only=True)
    assert catalog.recall("told") == "yes"
    assert not catalog.fresh
    catalog.close()
    assert state() == before


def test_reading_only_what_is_not_there(path: Path) -> None:
    """A catalog that is missing, or that a kill left without a byte, reads as an empty one, and stays so."""
    for _ in range(2):
        catalog = Catalog(path, read_only=True)
        assert catalog.versions() == []
        catalog.close()
        assert not path.exists() or path.stat().st_size == 0
        path.touch()


def test_a_damaged_catalog(path: Path) -> None:
    """A file that is no database is an error that says what to do, for readers too."""
    path.write_bytes(b"this is no database, but long enough to be looked at " * 50)
    for read_only in (False, True):
        with pytest.raises(DestinationError, match="damaged") as error:
            Catalog(path, read_only=read_only)
        assert "delete catalog.sqlite3" in error.value.hint


def test_a_newer_catalog(path: Path) -> None:
    """A catalog of a later schema is refused with the advice to upgrade."""
    catalog = Catalog(path)
    catalog.remember("schema", str(SCHEMA_VERSION + 1))
    catalog.close()
    with pytest.raises(DestinationError, match="newer tilesync"):
        Catalog(path)


def test_a_planted_symlink(path: Path, tmp_path: Path) -> None:
    """A symlink in the place of the catalog is refused, and nothing is made where it leads."""
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DestinationError, match="symlink"):
        Catalog(path)
    assert os.listdir(tmp_path) == [path.name]


WRITE = """
import sys
from dataclasses import replace
from pathlib import Path
from tilesync.model import Blob, Held, Version
from tilesync.stores.catalog import Catalog
catalog = Catalog(Path(sys.argv[1]))
version = catalog.begin(Version(0, "e1", "e1", None, None, "", {}))
for page in range(10**6):
    blobs = [Blob(f"{page}/{number}", 1) for number in range(50)]
    catalog.add_page(replace(version, marker=str(page)), [(blob, None) for blob in blobs], [str(page)])
    rows = catalog.wanted(version, 0, limit=50, empty=False)
    catalog.hold([(number, Held(blob, b"s" * 32, 1)) for number, blob in rows])
    print(page, flush=True)
"""


@pytest.mark.parametrize("pages", [1, 7, 40])
def test_a_kill_leaves_whole_batches(path: Path, pages: int) -> None:
    """Killed while it writes, a process leaves a sound catalog with whole batches, all of those that it told of."""
    with subprocess.Popen([sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(pages):
            told = int(writer.stdout.readline())
        writer.kill()
    catalog = Catalog(path)
    (version,) = catalog.versions()
    totals = catalog.totals(version)
    assert (totals.files % 50, totals.held_files % 50) == (0, 0)
    assert totals.files - totals.held_files in {0, 50}
    assert totals.held_files >= 50 * (told + 1)
    assert version.marker == str(totals.files // 50 - 1)
    add(catalog, version, "one more")
    catalog.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
