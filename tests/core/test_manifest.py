"""Lines of a manifest, written and read."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync import __version__
from tilesync.core.manifest import (
    encode_files,
    encode_line,
    find_line,
    format_timestamp,
    is_known_defect,
    make_header,
    make_line,
    read_header,
    read_line,
    split_manifest,
    translate_damage,
)
from tilesync.errors import DestinationError
from tilesync.model import (
    EVERYTHING,
    Blob,
    Completeness,
    Content,
    ExportFacts,
    Globs,
    Inventory,
    ListingState,
    StoredFile,
    UnpackedFile,
    Version,
    VersionSummary,
)

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
    7,
    "e1-2",
    "e1",
    facts=ExportFacts(
        imodel="i", changeset=None, modified="2026-03-01T08:30:00Z", record={"id": "e1", "stats": {"rawSize": 1}}
    ),
    listing=ListingState(3, True),
    inventory=Inventory.WALK,
    container_url="https://acct.blob.core.windows.net/c1",
    globs=Globs(("*.glb",), ("a/**", "b")),
    summary=VersionSummary(
        published_at="2026-03-02T00:00:00Z",
        files=4,
        bytes=5,
        manifest_sha256="00",
        completeness=Completeness(40, 3, 2, 1),
    ),
)


def through_json(document: object) -> Any:
    return json.loads(json.dumps(document, ensure_ascii=False).encode())


@given(BLOBS, DIGESTS)
def test_a_line_round_trips(blob: Blob, sha256: bytes) -> None:
    """A file read from its line equals the file that was written, except for its mtime."""
    assert read_line(through_json(make_line(StoredFile(blob, sha256, 99)))) == StoredFile(blob, sha256, 0)


@given(
    st.lists(st.tuples(BLOBS, DIGESTS | st.just(b""), st.none() | st.builds(UnpackedFile, st.integers(0, 9), DIGESTS)))
)
def test_files_are_encoded_as_their_lines(files: list[tuple[Blob, bytes, UnpackedFile | None]]) -> None:
    """The quick encoding gives the same bytes as JSON of each line, whatever names and fields contain."""
    stored = [StoredFile(blob, sha256, 99, 7, unpacked) for blob, sha256, unpacked in files]
    assert encode_files(stored) == b"".join(encode_line(make_line(each)) for each in stored)


@given(BLOBS, DIGESTS, st.integers(0, 2**50), DIGESTS)
def test_a_line_of_an_unpacked_file_round_trips(blob: Blob, sha256: bytes, size: int, stored: bytes) -> None:
    """Size and SHA-256 of the line describe the unpacked file; those in the container are separate."""
    file = StoredFile(blob, sha256, 99, 7, UnpackedFile(size, stored))
    document = through_json(make_line(file))
    assert (document["size"], document["sha256"], document["content_encoding"]) == (size, sha256.hex(), None)
    assert document["stored"] == {
        "size": blob.size,
        "sha256": stored.hex(),
        "content_encoding": blob.content_encoding,
    }
    assert read_line(document) == file._replace(mtime_ns=0, inode=0)


@pytest.mark.parametrize(
    "stored",
    [
        1,
        [],
        {},
        {"size": 1},
        {"size": -1, "sha256": "00" * 32, "content_encoding": None},
        {"size": 1, "sha256": None, "content_encoding": None},
        {"size": 1, "sha256": "xyz"},
    ],
)
def test_a_damaged_stored_field(stored: object) -> None:
    """An invalid `stored` field raises as documented, and so does a file without a digest."""
    document = make_line(StoredFile(Blob("a", 1, md5=b"m" * 16), b"\0" * 32, 0))
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_line(document | {"stored": stored})
    good = {"size": 1, "sha256": "00" * 32, "content_encoding": None}
    with pytest.raises(ValueError, match="no digest proves a"):
        read_line(document | {"stored": good, "sha256": None, "proof": "service-md5"})


def test_a_header_states_unpacked_content() -> None:
    """The header has `content` only if files are unpacked; older manifests never have it."""
    assert "content" not in make_header(VERSION)
    document = make_header(replace(VERSION, content=Content.DECODED))
    assert document["content"] == "decoded"
    assert read_header(document, name=VERSION.name).content is Content.DECODED
    for stored in (
        make_header(VERSION),
        make_header(VERSION) | {"content": "stored"},
        make_header(VERSION) | {"content": None},
    ):
        assert read_header(stored, name=VERSION.name).content is Content.STORED
    with pytest.raises(ValueError, match="brotli"):
        read_header(document | {"content": "brotli"}, name=VERSION.name)


def test_the_fields_of_a_line() -> None:
    """A line has exactly the promised fields, digests in hexadecimal, the date in UTC."""
    file = StoredFile(Blob("a/ä", 3, "0x8D", b"\1" * 16, "t", "gzip", 1772353800), b"\2" * 32, 5)
    assert make_line(file) == {
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


def test_a_header_round_trips() -> None:
    """A version read from its header equals the one written, except for fields that only the catalog has."""
    version = read_header(through_json(make_header(VERSION)), name=VERSION.name)
    preserved = (
        "name",
        "export",
        "facts",
        "listing.is_complete",
        "inventory",
        "container_url",
        "globs",
        "summary.published_at",
        "summary.files",
        "summary.bytes",
        "summary.completeness",
    )
    assert attrgetter(*preserved)(version) == attrgetter(*preserved)(VERSION)
    assert version.serial == 0


def test_the_fields_of_a_header() -> None:
    """The header has exactly the promised fields, and names the release of tilesync."""
    document = make_header(VERSION)
    assert list(document) == [
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
    assert (document["export"], document["finished"], document["tilesync"]) == (
        VERSION.facts.record,
        VERSION.summary.published_at,
        __version__,
    )
    assert (document["inventory"], document["container"], document["missing_names"]) == (
        "walk",
        VERSION.container_url,
        [],
    )
    assert (document["include"], document["exclude"]) == (["*.glb"], ["a/**", "b"])
    assert [document[name] for name in ("referenced", "missing", "orphans", "unfollowed")] == [40, 3, 2, 1]


def test_missing_names() -> None:
    """Referenced files that the container does not have are listed in the header, in the given order."""
    document = through_json(make_header(VERSION, ("b/ä.glb", "a.glb"), ("a.json: con means no file",)))
    assert document["missing_names"] == ["b/ä.glb", "a.glb"]
    assert document["unheld"] == ["a.json: con means no file"]
    bare = through_json(make_header(VERSION))
    assert read_header(document, name=VERSION.name) == read_header(bare, name=VERSION.name)


def test_a_header_of_an_earlier_release() -> None:
    """A header without later fields is read: the version was listed, and its closure is unknown."""
    document = through_json(make_header(VERSION))
    for later in ("inventory", "container", "include", "exclude", "missing_names", "unheld", *Completeness.__slots__):
        del document[later]
    version = read_header(document, name=VERSION.name)
    assert (version.inventory, version.container_url, version.globs) == (Inventory.LIST, "", EVERYTHING)
    assert version.summary.completeness == Completeness()
    assert version.name == VERSION.name


@pytest.mark.parametrize(
    "changes", [{"sha256": "xyz"}, {"sha256": None}, {"size": "x"}, {"last_modified": "soon"}, {"md5": 5}]
)
def test_a_damaged_line(changes: dict[str, Any]) -> None:
    """A damaged line raises as documented."""
    document = make_line(StoredFile(Blob("a", 1), b"\0" * 32, 0)) | changes
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_line(document)


@pytest.mark.parametrize("field", ["name", "size", "sha256", "md5", "etag", "last_modified"])
def test_a_line_without_a_field(field: str) -> None:
    """A missing field is not read as an empty one."""
    document = make_line(StoredFile(Blob("a", 1), b"\0" * 32, 0))
    del document[field]
    with pytest.raises(KeyError):
        read_line(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"export": None},
        {"export": {}},
        {"export": {"id": 1}, "version": "v"},
        make_line(StoredFile(Blob("a", 1), b"", 0)),
        make_header(VERSION) | {"files": "x"},
        make_header(VERSION) | {"missing": None},
        make_header(VERSION) | {"orphans": "many"},
        make_header(VERSION) | {"include": 1},
        make_header(VERSION) | {"exclude": ["[z-a]"]},
    ],
)
def test_a_damaged_header(document: dict[str, Any]) -> None:
    """A damaged header raises as documented."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_header(document, name=VERSION.name)


@pytest.mark.parametrize("name", ["../../victim", "a/b", "", ".", "con", "other"])
def test_a_header_of_another_name(name: str) -> None:
    """A manifest describes the version in its own name, and the name must be valid."""
    with pytest.raises(ValueError, match="it describes version"):
        read_header(through_json(make_header(VERSION)) | {"version": name}, name=VERSION.name)
    if name != "other":
        with pytest.raises(ValueError, match="it describes version"):
            read_header(through_json(make_header(VERSION)) | {"version": name}, name=name)


def test_timestamps() -> None:
    """A time is written in UTC, in whole seconds, from any time zone."""
    moment = datetime(2026, 3, 1, 9, 30, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    assert format_timestamp(moment) == "2026-03-01T08:30:00Z"
    assert datetime.fromisoformat(format_timestamp(moment)) == datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def test_defects_are_listed_only_if_there_are_any() -> None:
    """Older readers see the manifest of a sound version unchanged, and can also read that of a broken one."""
    plain = make_header(VERSION)
    assert not plain.keys() & {"damaged_names", "elsewhere"}
    document = make_header(VERSION, damaged=["a.glb"], elsewhere=["a.json: x leads back"])
    assert (document["damaged_names"], document["elsewhere"]) == (["a.glb"], ["a.json: x leads back"])
    assert read_header(document, name=VERSION.name) == read_header(plain, name=VERSION.name)


def test_known_defects_are_recognised_by_their_file() -> None:
    """A defect is known by its file, however a release describes it; a defect of another file is new."""
    known = {"a.json: leads viewers elsewhere", "missing.glb"}
    assert is_known_defect("a.json", "a.json: refers to another host", known)
    assert not is_known_defect("b.json", "b.json: leads viewers elsewhere", known)
    assert not is_known_defect("a", "a: refers to another host", known)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_a_document_in_chunks_gives_whole_lines(step: int) -> None:
    """Each piece has whole lines, and the first line comes alone, whatever the chunks are; a last line may be open."""
    data = b"head\nab\ncd\n\nef"
    pieces = list(split_manifest(data[start : start + step] for start in range(0, len(data), step)))
    assert (pieces[0], b"\n".join(pieces)) == (b"head", data)
    assert list(split_manifest(iter([data + b"\n"]))) == [b"head", b"ab\ncd\n\nef"]
    assert list(split_manifest(iter([]))) == []


ODD_NAMES = ["a.glb", "tiles/a.glb", "a.glb.gz", 'q"\\', "ä\u2028", "no", "\N{GRINNING FACE}", '{"name":"no"']


@pytest.mark.parametrize("step", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_line_is_found_by_its_name(step: int, ascii_only: bool) -> None:
    """Exactly the line of the name is found, wherever chunks end, also if names contain others or are escaped."""
    etags = {name: f'"name":"{other}","size":1' for name, other in zip(ODD_NAMES, ODD_NAMES[::-1], strict=True)}
    lines = [{"name": "a.txt"}, *({"name": name, "size": 7, "etag": etags[name]} for name in ODD_NAMES)]
    data = b"".join(json.dumps(line, ensure_ascii=ascii_only, separators=(",", ":")).encode() + b"\n" for line in lines)
    chunks = [data[start : start + step] for start in range(0, len(data), step)]
    for name, expected in zip(ODD_NAMES, lines[1:], strict=True):
        assert find_line(chunks, name) == expected
    for name in ("a.txt", "A.glb", "", "glb", "\udc80", "tiles/a.glb\n"):
        assert find_line(chunks, name) is None


def test_a_line_of_another_program_is_found() -> None:
    """Blanks and another order of the members make no difference; a damaged line of another form is an error."""
    data = b'head\n{"name":"a","size":1}\n{"size": 2, "name": "b"}\n{"name":"c", "size":3}'
    assert [find_line([data], name) for name in "abcd"] == [
        {"name": "a", "size": 1},
        {"name": "b", "size": 2},
        {"name": "c", "size": 3},
        None,
    ]
    with pytest.raises(ValueError, match="Expecting"):
        find_line([b"head\n{"], "a")


def test_one_message_for_damage() -> None:
    """An error in the content of a manifest becomes one that names the manifest; other errors pass."""
    message = r"the manifest manifests/e1.jsonl is damaged: no size"
    with pytest.raises(DestinationError, match=message) as caught, translate_damage("manifests/e1.jsonl"):
        raise ValueError("no size")
    assert "tilesync verify" in caught.value.hint
    with pytest.raises(OSError, match="disk"), translate_damage("x"):
        raise OSError("disk")
