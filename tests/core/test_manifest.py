"""The lines of a manifest, written and read."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync import __version__
from tilesync.core.manifest import format_timestamp, make_header, make_line, read_header, read_line
from tilesync.model import EVERYTHING, Blob, Completeness, Content, Globs, Inventory, StoredFile, UnpackedFile, Version

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
DIGESTS = st.binary(min_size=32, max_size=32)
BLOBS = st.builds(
    Blob,
    TEXT,
    st.integers(0, 2**50),
    TEXT,
    st.none() | st.binary(min_size=16, max_size=16),
    st.none() | TEXT,
    st.none() | TEXT,
    st.none() | st.integers(0, 4_000_000_000),
    st.none(),
)

VERSION = Version(
    7, "e1-2", "e1", "i", None, "2026-03-01T08:30:00Z", {"id": "e1", "stats": {"rawSize": 1}}, listing_number=3, listed=True,
    published_at="2026-03-02T00:00:00Z", files=4, bytes=5, manifest_sha256="00", inventory=Inventory.WALK,
    container_url="https://acct.blob.core.windows.net/c1", globs=Globs(("*.glb",), ("a/**", "b")),
    completeness=Completeness(40, 3, 2, 1),
)  # fmt: skip


def through_json(said: object) -> Any:
    return json.loads(json.dumps(said, ensure_ascii=False).encode())


@given(BLOBS, DIGESTS)
def test_a_line_comes_back(blob: Blob, sha256: bytes) -> None:
    """A file read from its line is the file that was written, but for its mtime."""
    assert read_line(through_json(make_line(StoredFile(blob, sha256, 99)))) == StoredFile(blob, sha256, 0)


@given(BLOBS, DIGESTS, st.integers(0, 2**50), DIGESTS)
def test_a_line_of_an_unpacked_file_comes_back(blob: Blob, sha256: bytes, size: int, stored: bytes) -> None:
    """Size and SHA-256 of the line are those of the file as it lies; what the container has is told apart."""
    held = StoredFile(blob, sha256, 99, 7, UnpackedFile(size, stored))
    said = through_json(make_line(held))
    assert (said["size"], said["sha256"], said["content_encoding"]) == (size, sha256.hex(), None)
    assert said["stored"] == {
        "size": blob.size,
        "sha256": stored.hex(),
        "content_encoding": blob.content_encoding,
    }
    assert read_line(said) == held._replace(mtime_ns=0, inode=0)


@pytest.mark.parametrize(
    "stored", [1, [], {}, {"size": 1}, {"size": -1, "sha256": "00" * 32, "content_encoding": None},
               {"size": 1, "sha256": None, "content_encoding": None}, {"size": 1, "sha256": "xyz"}],
)  # fmt: skip
def test_a_damaged_word_of_what_is_stored(stored: object) -> None:
    """What is no word of stored bytes raises what the reader promises; so does a file that nothing proves."""
    said = make_line(StoredFile(Blob("a", 1, md5=b"m" * 16), b"\0" * 32, 0))
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_line(said | {"stored": stored})
    good = {"size": 1, "sha256": "00" * 32, "content_encoding": None}
    with pytest.raises(ValueError, match="nothing proves a"):
        read_line(said | {"stored": good, "sha256": None, "proof": "service-md5"})


def test_a_header_tells_what_is_unpacked() -> None:
    """It says so where files are unpacked, and nothing where they are not: older manifests say nothing."""
    assert "content" not in make_header(VERSION)
    said = make_header(replace(VERSION, content=Content.DECODED))
    assert said["content"] == "decoded"
    assert read_header(said, name=VERSION.name).content is Content.DECODED
    for stored in (
        make_header(VERSION),
        make_header(VERSION) | {"content": "stored"},
        make_header(VERSION) | {"content": None},
    ):
        assert read_header(stored, name=VERSION.name).content is Content.STORED
    with pytest.raises(ValueError, match="brotli"):
        read_header(said | {"content": "brotli"}, name=VERSION.name)


def test_the_fields_of_a_line() -> None:
    """A line has exactly the fields of the contract, digests in hexadecimal, the date in UTC."""
    held = StoredFile(Blob("a/ä", 3, "0x8D", b"\1" * 16, "t", "gzip", 1772353800), b"\2" * 32, 5)
    assert make_line(held) == {
        "name": "a/ä",
        "size": 3,
        "sha256": "02" * 32,
        "md5": "01" * 16,
        "etag": "0x8D",
        "content_type": "t",
        "content_encoding": "gzip",
        "last_modified": "2026-03-01T08:30:00Z",
    }
    bare = make_line(StoredFile(Blob("a", 3), b"\2" * 32, 5))
    assert [key for key, value in bare.items() if value is None] == [
        "md5",
        "content_type",
        "content_encoding",
        "last_modified",
    ]


def test_a_header_comes_back() -> None:
    """A version read from its first line is the version that was written, as far as it outlives the catalog."""
    back = read_header(through_json(make_header(VERSION)), name=VERSION.name)
    kept = ("name", "export", "imodel", "changeset", "modified", "record", "listed", "published_at", "files", "bytes",
            "inventory", "container_url", "globs", "completeness")  # fmt: skip
    assert [getattr(back, name) for name in kept] == [getattr(VERSION, name) for name in kept]
    assert back.serial == 0


def test_the_fields_of_a_header() -> None:
    """The first line has exactly the fields of the contract, and says which tilesync wrote it."""
    said = make_header(VERSION)
    assert list(said) == [
        "version",
        "export",
        "imodel",
        "changeset",
        "modified",
        "files",
        "bytes",
        "finished",
        "inventory",
        "container",
        "include",
        "exclude",
        "referenced",
        "missing",
        "orphans",
        "unfollowed",
        "missing_names",
        "unheld",
        "tilesync",
    ]
    assert (said["export"], said["finished"], said["tilesync"]) == (VERSION.record, VERSION.published_at, __version__)
    assert (said["inventory"], said["container"], said["missing_names"]) == ("walk", VERSION.container_url, [])
    assert (said["include"], said["exclude"]) == (["*.glb"], ["a/**", "b"])
    assert [said[name] for name in ("referenced", "missing", "orphans", "unfollowed")] == [40, 3, 2, 1]


def test_missing_names() -> None:
    """What a version asks for and the container did not have is named in its first line, in the order given."""
    said = through_json(make_header(VERSION, ("b/ä.glb", "a.glb"), ("a.json: con means no file",)))
    assert said["missing_names"] == ["b/ä.glb", "a.glb"]
    assert said["unheld"] == ["a.json: con means no file"]
    bare = through_json(make_header(VERSION))
    assert read_header(said, name=VERSION.name) == read_header(bare, name=VERSION.name)


def test_a_header_of_an_earlier_tilesync() -> None:
    """A first line without what came later is read: such a version was listed, and nothing is known of its closure."""
    said = through_json(make_header(VERSION))
    for later in ("inventory", "container", "include", "exclude", "missing_names", "unheld", *Completeness.__slots__):
        del said[later]
    back = read_header(said, name=VERSION.name)
    assert (back.inventory, back.container_url, back.globs) == (Inventory.LIST, "", EVERYTHING)
    assert back.completeness == Completeness()
    assert back.name == VERSION.name


@pytest.mark.parametrize(
    "changes", [{"sha256": "xyz"}, {"sha256": None}, {"size": "x"}, {"last_modified": "soon"}, {"md5": 5}]
)
def test_a_damaged_line(changes: dict[str, Any]) -> None:
    """A line that is none raises what its reader promises."""
    said = make_line(StoredFile(Blob("a", 1), b"\0" * 32, 0)) | changes
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_line(said)


@pytest.mark.parametrize("field", ["name", "size", "sha256", "md5", "etag", "last_modified"])
def test_a_line_without_a_field(field: str) -> None:
    """A field that is missing is no empty one."""
    said = make_line(StoredFile(Blob("a", 1), b"\0" * 32, 0))
    del said[field]
    with pytest.raises(KeyError):
        read_line(said)


@pytest.mark.parametrize(
    "said",
    [{}, {"export": None}, {"export": {}}, {"export": {"id": 1}, "version": "v"}, make_line(StoredFile(Blob("a", 1), b"", 0)),
     make_header(VERSION) | {"files": "x"}, make_header(VERSION) | {"missing": None}, make_header(VERSION) | {"orphans": "many"},
     make_header(VERSION) | {"include": 1}, make_header(VERSION) | {"exclude": ["[z-a]"]}],
)  # fmt: skip
def test_a_damaged_header(said: dict[str, Any]) -> None:
    """A first line that is none raises what its reader promises."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_header(said, name=VERSION.name)


@pytest.mark.parametrize("name", ["../../victim", "a/b", "", ".", "con", "other"])
def test_a_header_of_another_name(name: str) -> None:
    """A manifest is about the version that it is named after, and that name is one that tilesync gives."""
    with pytest.raises(ValueError, match="is about"):
        read_header(through_json(make_header(VERSION)) | {"version": name}, name=VERSION.name)
    if name != "other":
        with pytest.raises(ValueError, match="is about"):
            read_header(through_json(make_header(VERSION)) | {"version": name}, name=name)


def test_stamps() -> None:
    """A moment is written in UTC, to the second, wherever it was taken."""
    moment = datetime(2026, 3, 1, 9, 30, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    assert format_timestamp(moment) == "2026-03-01T08:30:00Z"
    assert datetime.fromisoformat(format_timestamp(moment)) == datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def test_what_is_broken_or_leads_elsewhere_is_named_where_there_is_any() -> None:
    """Old readers find the manifest of a sound version as it was, and read one of a broken version too."""
    plain = make_header(VERSION)
    assert not plain.keys() & {"damaged_names", "elsewhere"}
    said = make_header(VERSION, damaged=["a.glb"], elsewhere=["a.json: x leads back"])
    assert (said["damaged_names"], said["elsewhere"]) == (["a.glb"], ["a.json: x leads back"])
    assert read_header(said, name=VERSION.name) == read_header(plain, name=VERSION.name)
