"""Re-basing: every relative URI of a tileset gets a prefix, and nothing else changes."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.support.json_documents import EVERYTHING, LEVELS, PREFIX, REBASED, as_bytes, pieces, read, rebased
from tilesync.errors import BlobDamaged
from tilesync.model import Role
from tilesync.tiles.rebase import rebase
from tilesync.tiles.uris import ResolvedUri, is_relative_path, resolve

HOME = "https://acct.blob.core.windows.net/c1"


def values(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in values(value)]
    return [leaf for value in node for leaf in values(value)] if isinstance(node, list) else [node]


def test_every_relative_uri_is_rebased() -> None:
    """Every relative URI gets the prefix, and nothing else changes."""
    before, after = values(EVERYTHING), values(json.loads(rebased(as_bytes(EVERYTHING))))
    changed = {old: new for old, new in zip(before, after, strict=True) if old != new}
    assert changed == {uri: PREFIX + uri for uri in REBASED}


@pytest.mark.parametrize(
    "data",
    [
        as_bytes(EVERYTHING),
        b"\xef\xbb\xbf" + as_bytes(EVERYTHING),
        gzip.compress(as_bytes(EVERYTHING), mtime=0),
        gzip.compress(b"\xef\xbb\xbf" + as_bytes(EVERYTHING), mtime=0),
        gzip.compress(as_bytes(EVERYTHING)[:99], mtime=0) + gzip.compress(as_bytes(EVERYTHING)[99:], mtime=0),
    ],
    ids=["plain", "mark", "gzip", "gzip-mark", "gzip-parts"],
)
def test_encodings(data: bytes) -> None:
    """A tileset stored plain, gzipped or with a byte order mark is re-based to the same plain JSON."""
    plain = rebased(as_bytes(EVERYTHING))
    for step in (1, 2, 3, 4, 1000, 1 << 16):
        assert rebased(data, step=step) == plain
    assert b"".join(rebase([b"", data[:1], b"", data[1:], b""], PREFIX)) == plain


def test_every_other_byte_stays() -> None:
    """Blanks, escapes, double keys, spelling of numbers, invalid UTF-8 and padding stay."""
    data = (
        b' \n{ "root" :\t{"geometricError":1.0e+5,"x":[1.10,-0.0 ],"\\u0063ontent":{"uri" : "%b\\u0061\\/\\u00e9.glb" ,'
        b'"uri":"%b\xff.glb"},"refine":"\\u0041DD","content":{"url":"%b\xc3\xa9"}},"b":"\xfe", "c":1E5 }\r\n\0\0'
    )
    plain, prefixed = data.replace(b"%b", b""), data.replace(b"%b", PREFIX.encode())
    for step in (1, 7, 1 << 16):
        assert rebased(plain, step=step) == prefixed


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("a", "v/a"),
        (" a", "v/a"),
        (" \\u0001\\ta.glb\\u00a0 \\u0000", "v/a.glb\\u00a0"),
        ("\\n\\ud83c\\udfd9 ", "v/\\ud83c\\udfd9"),
        ("a\\nb ", "v/a\\nb "),
        ("\\u002e/a", "v/\\u002e/a"),
        ("x/../a", "v/x/../a"),
        ("x\\\\a", "v/x\\\\a"),
        ("./a:b", "v/./a:b"),
        ("CON", "v/CON"),
        ("\\ud800", "v/\\ud800"),
        ("x/../../a", "x/../../a"),
        ("..\\\\a", "..\\\\a"),
        ("%2e%2e/a", "%2e%2e/a"),
        ("x%2F..%2F..%2Fa", "x%2F..%2F..%2Fa"),
        (" https://h/a", " https://h/a"),
        ("\\u0064ata:,x", "\\u0064ata:,x"),
        (" ", " "),
        (" #a", " #a"),
    ],
)
def test_odd_uris(uri: str, expected: str) -> None:
    """The prefix goes before the first letter, leading blanks go, and URIs that leave the container stay."""
    document = f'{{"root":{{"content":{{"uri":"{uri}"}}}}}}'
    assert rebased(document.encode(), "v/").decode() == document.replace(uri, expected, 1)


@pytest.mark.parametrize("size", [65_000, 65_536, 65_537, 100_000, 2_000_000])
@pytest.mark.parametrize("lead", ["data:,", "x"])
def test_long_uris(size: int, lead: str) -> None:
    """A string longer than any name stays the same, however it is cut."""
    uri = lead + "a" * (size - len(lead))
    document = f'{{"root":{{"content":{{"uri":"{uri}"}},"children":[{{"content":{{"uri":"b"}}}}]}}}}'.encode()
    expected = document.replace(b'"b"', b'"v/b"')
    expected = expected.replace(b'"x', b'"v/x') if lead == "x" and size <= 65_536 else expected
    assert all(rebased(document, "v/", step) == expected for step in (50_000, 1 << 16, 1 << 22))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"5", b"{}", b'{"root": null}', b'{"root": []}', b"\xff\xfe{\0}\0", b"\x1f\x8b",
     b"glTF", gzip.compress(b'{"root": {}}', mtime=0)[:-1], gzip.compress(b'{"root": {}}', mtime=0) + b"x",
     b'{"root": {}} x',
     b'{"asset": {}, "x": {"root": {}}}', b'{"root": {"geometricError": NaN}}', b'{"root": {}, "a": 01}'],
    ids=range(17),
)  # fmt: skip
def test_no_tileset(data: bytes) -> None:
    """A document that is not a tileset is damage, at the end at the latest."""
    for step in (1, 1 << 16):
        with pytest.raises(BlobDamaged):
            rebased(data, step=step)


def test_the_error_names_the_file() -> None:
    """The error about the root names the root."""
    with pytest.raises(BlobDamaged, match=r"^tileset\.json: its JSON is cut off"):
        rebased(b'{"root": {}')
    with pytest.raises(BlobDamaged, match=r"^tileset\.json: .*not a tileset"):
        rebased(b"{}")


def test_rebasing_streams() -> None:
    """A tileset larger than the memory is re-based piece by piece."""
    tile = b'{"content":{"uri":"a.glb"}},'
    parts = [b'{"root":{"children":[', *[tile * 1000] * 50, b"{}]}}"]
    sizes = [len(piece) for piece in rebase(parts, "v/")]
    assert len(sizes) == len(parts)
    assert sum(sizes) == sum(map(len, parts)) + 2 * 50_000
    assert max(sizes) < 2000 + len(tile * 1000) + 2 * 1000


URIS = (
    st.text(st.sampled_from("ab./\\ %2eü:?#~\n\0"), max_size=12)
    | st.text(max_size=8)
    | st.sampled_from(["a.glb", "data:,x", "https://h/a", "", "/a", "?q", "{x}.glb", "../c1/a", "x/../y", " a ", "CON"])
)


EXTENSIONS = st.dictionaries(
    st.sampled_from(["uri", "url", "iconUrl", "x", "extras", "list", "MAXAR_extent", "3DTILES_metadata"]),
    st.recursive(
        URIS | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["uri", "schemaUri"]), inner),
        max_leaves=4,
    ),
    max_size=4,
)


CONTENTS = st.fixed_dictionaries({}, optional={"uri": URIS, "url": URIS, "extensions": EXTENSIONS})


SEVERAL = st.fixed_dictionaries({"3DTILES_multiple_contents": st.fixed_dictionaries({"contents": st.lists(CONTENTS)})})


TILES = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "content": CONTENTS,
            "contents": st.lists(CONTENTS, max_size=2),
            "extensions": EXTENSIONS | SEVERAL,
            "implicitTiling": st.fixed_dictionaries(
                {"subtrees": st.fixed_dictionaries({"uri": URIS})},
                optional={key: st.just(LEVELS[key]) for key in LEVELS},
            ),
        },
    ),
    lambda tiles: st.fixed_dictionaries({"children": st.lists(tiles, max_size=3)}, optional={"extras": EXTENSIONS}),
    max_leaves=6,
)


TILESETS = st.fixed_dictionaries(
    {"root": TILES}, optional={"extensions": EXTENSIONS, "schemaUri": URIS, "extras": EXTENSIONS}
)


def every_uri(document: bytes) -> list[tuple[Role, str]]:
    """Collect the reported URIs and the templates of implicit tiles."""
    result, uris = read(document)
    templates = [
        (Role.CONTENT, uri) for one in result.implicit_tilings for uri in (one.subtree_template, *one.content_templates)
    ]
    return uris + templates


@given(TILESETS, st.booleans(), st.integers(1, 60))
@example({"root": {"content": {"uri": "\x01 a"}}}, True, 5)
@example({"root": {"content": {"uri": "../c1/a"}}}, True, 5)
def test_a_rebased_uri_means_the_same_file(tileset: dict[str, Any], ascii_only: bool, step: int) -> None:
    """Seen from the top of a destination, a re-based URI names the same file of the version."""
    before = json.dumps(tileset, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    after = rebased(before)
    assert rebased(before, step=step) == after
    for (role, old), (same_role, new) in zip(every_uri(before), every_uri(after), strict=True):
        meant = resolve(old, "tileset.json", HOME)
        assert role == same_role
        if is_relative_path(old) and isinstance(meant, ResolvedUri) and not meant.is_absolute:
            expected = ResolvedUri(PREFIX + meant.name, meant.has_query, archive_path=meant.archive_path)
            assert resolve(new, "tileset.json", HOME) == expected
        elif not is_relative_path(old):
            assert new == old


@given(TILESETS, st.sampled_from([None, 1]))
def test_rebasing_changes_only_uris(tileset: dict[str, Any], indent: int | None) -> None:
    """Removing the prefix gives the original bytes, if no URI begins with blanks."""
    before = json.dumps(tileset, indent=indent).encode()
    after = rebased(before, "~prefix/")
    assume(not read(before)[0].unreadable_reasons)
    sites = [uri for _, uri in every_uri(before) if is_relative_path(uri)]
    assert after.count(b"~prefix/") <= len(sites)
    assert any(uri[0] <= " " for uri in sites) or after.replace(b"~prefix/", b"") == before


@pytest.mark.parametrize(
    ("uri", "path"),
    [(f"{HOME}/a.glb", "a.glb"), (f"{HOME}/c/a%20b.glb?sv=1&sig=s3cret#f", "c/a%20b.glb"),
     ("/c1/a.glb", "a.glb"), ("../c1/x/a.glb", "x/a.glb"), (f" {HOME}/a.3tz/b.json", "a.3tz/b.json"),
     (f"{HOME}/{{level}}/{{x}}.glb", "{level}/{x}.glb")],
)  # fmt: skip
def test_a_url_of_the_container_becomes_relative(uri: str, path: str) -> None:
    """A URL of the known container becomes relative, without its query, which may be a signature."""
    document = {"root": {"content": {"uri": uri}, "children": [{"content": {"uri": "https://h/a.glb"}}]}}
    for data in (as_bytes(document), json.dumps(document, indent=2).encode()):
        parsed = json.loads(b"".join(rebase(pieces(data, 1), PREFIX, HOME)))
        assert parsed["root"]["content"]["uri"] == PREFIX + path
        assert parsed["root"]["children"] == document["root"]["children"]
