"""URI resolution: the blob that a URI names."""

from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.support.cpu_limit import limit_cpu_time
from tilesync.core.safe_names import find_problem, find_universal_problem
from tilesync.tiles.uris import (
    RejectedUri,
    ResolvedUri,
    _resolve_any,
    _strip_blanks,
    is_relative_path,
    redact_uri,
    resolve,
)

HOME = "https://acct.blob.core.windows.net/c1"
AZURITE = "http://127.0.0.1:10000/devstoreaccount1/c1"
BASE = "tiles/a b/tileset.json"
CLIMBS = RejectedUri("climbs out of the container")
FOLDER = RejectedUri("names a folder")


def outside(uri: str, base: str = BASE, home: str = HOME) -> RejectedUri:
    """Resolve a URI that must be rejected."""
    result = resolve(uri, base, home)
    assert isinstance(result, RejectedUri)
    return result


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("0.glb", "tiles/a b/0.glb"),
        ("./0.glb", "tiles/a b/0.glb"),
        ("../0.glb", "tiles/0.glb"),
        ("../../0.glb", "0.glb"),
        ("../../tiles/../0.glb", "0.glb"),
        ("x/./y/../0.glb", "tiles/a b/x/0.glb"),
        ("%2e%2E/0.glb", "tiles/0.glb"),
        (".%2e/%2e./0.glb", "0.glb"),
        ("%2e/0.glb", "tiles/a b/0.glb"),
        ("...x/..y/.z", "tiles/a b/...x/..y/.z"),
        ("a%20b c.glb", "tiles/a b/a b c.glb"),
        ("a+b%2Bc%252Bd.glb", "tiles/a b/a+b+c%2Bd.glb"),
        ("a%2Fb.glb", "tiles/a b/a/b.glb"),
        ("100%.glb", "tiles/a b/100%.glb"),
        ("%zz%4.glb", "tiles/a b/%zz%4.glb"),
        ("ü%C3%BC🏙.glb", "tiles/a b/üü🏙.glb"),
        ("a%23b%3Fc.glb", "tiles/a b/a#b?c.glb"),
        ("x\\y/..\\0.glb", "tiles/a b/x/0.glb"),
        ("  \x00\x1f0.glb\x00\x00  ", "tiles/a b/0.glb"),
        ("a\tb\r\nc.glb", "tiles/a b/abc.glb"),
        ("{x}|<y>.glb", "tiles/a b/{x}|<y>.glb"),
        ("1:2.glb", "tiles/a b/1:2.glb"),
        ("./a:b.glb", "tiles/a b/a:b.glb"),
        ("content/lod/aux1.glb", "tiles/a b/content/lod/aux1.glb"),
        ("#part", BASE),
        ("0.glb#part?no=query", "tiles/a b/0.glb"),
    ],
)
def test_relative_references(uri: str, name: str) -> None:
    """A relative reference names a blob beside its document, with the path decoded once and without fragment."""
    assert resolve(uri, BASE, HOME) == ResolvedUri(name)
    assert resolve(uri, BASE, AZURITE) == ResolvedUri(name)
    assert resolve(uri, BASE, "") == ResolvedUri(name)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("0.b3dm?id=3&x=../%2e", "tiles/a b/0.b3dm"),
        ("0.b3dm?a\\b#c", "tiles/a b/0.b3dm"),
        ("0.b3dm?", "tiles/a b/0.b3dm"),
        ("?v=1", BASE),
    ],
)
def test_queries(uri: str, name: str) -> None:
    """A query is not part of the name, and is noted."""
    assert resolve(uri, BASE, HOME) == ResolvedUri(name, has_query=True)


@pytest.mark.parametrize(
    "uri", ["", "  ", "\n\0", "data:,x", "DATA:model/gltf-binary;base64,AAAA", " da\nta:x", "data:"]
)
def test_uris_without_a_file(uri: str) -> None:
    """An empty URI and a `data:` URI name no file."""
    assert resolve(uri, BASE, HOME) is None


@pytest.mark.parametrize(
    ("uri", "home"),
    [
        ("https://acct.blob.core.windows.net/c1/a%20b.glb", HOME),
        ("HTTPS://ACCT.Blob.core.windows.net:443/c1/a b.glb", HOME),
        ("https://acct.blob.core.windows.net:/x/../c1/./a b.glb", HOME),
        ("https:\\\\acct.blob.core.windows.net\\c1\\a b.glb", HOME),
        ("ht\ntps://acct.blob.core.windows.net/c1/a b.glb", HOME),
        ("https://acct.blob.core.windows.net/%631/a b.glb", HOME),
        ("//acct.blob.core.windows.net/c1/a b.glb", HOME),
        ("\\\\acct.blob.core.windows.net/c1/a b.glb", HOME),
        ("/c1/a b.glb", HOME),
        ("/../c1/a b.glb", HOME),
        ("http://127.0.0.1:10000/devstoreaccount1/c1/a b.glb", AZURITE),
        ("\\devstoreaccount1/c1/a b.glb", AZURITE),
        ("http://h/c/a b.glb", "http://H:80/c"),
        ("http://[::1]:0081/c/a b.glb", "http://[::1]:81/c"),
        ("/c d/a b.glb", "https://h/c%20d"),
        ("/c%20d/a b.glb", "https://h/c d"),
        ("/a b.glb", "https://h"),
        ("../../../c1/a b.glb", HOME),
        ("../../../../../c1/a b.glb", HOME),
    ],
)
def test_absolute_uris_of_the_container(uri: str, home: str) -> None:
    """A URI with the location of the container is absolute and names a blob: viewers of a copy look elsewhere."""
    assert resolve(uri, BASE, home) == ResolvedUri("a b.glb", is_absolute=True)


def test_everything_at_once() -> None:
    """Query, absolute URL and archive are noted together."""
    assert resolve(f"{HOME}/d/a.3tz/t/0.glb?sig=S#f", BASE, HOME) == ResolvedUri("d/a.3tz", True, True, "t/0.glb")


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("https://example.com/c1/0.glb", "leads to another host (example.com)"),
        ("//Example.com:8443/c1/0.glb", "leads to another host (example.com:8443)"),
        ("https://acct.blob.core.windows.net:8443/c1/0.glb", "(acct.blob.core.windows.net:8443)"),
        ("https://acct.blob.core.windows.net.evil.net/c1/0.glb", "another host"),
        ("https://host:99999/", "leads to another host (host:99999)"),
        ("http://acct.blob.core.windows.net/c1/0.glb", "leads to the container's host by http, not https"),
        ("https://acct.blob.core.windows.net/c10/0.glb", "out of the container, on the same host"),
        ("https://acct.blob.core.windows.net", "out of the container"),
        ("https://acct.blob.core.windows.net/c1/../0.glb", "out of the container"),
        ("/C1/0.glb", "out of the container"),
        ("/0.glb", "out of the container"),
        ("/", "out of the container"),
        ("https://user@acct.blob.core.windows.net/c1/0.glb", "carries a user name"),
        ("https://user:pass@example.com/c1/0.glb", "carries a user name"),
        ("//acct.blob.core.windows.net@evil.net/c1/0.glb", "carries a user name"),
        ("https://acct.blob.core.windows.net\\@evil.net/c1/0.glb", "out of the container"),
        ("http://[", "names no valid host"),
        ("http://h:port/", "names no valid host"),
        ("https://a b/c", "names no valid host"),
        ("https://" + "x" * 300 + "/c", "names no valid host"),
        ("https:c1/0.glb", "names no valid host"),
        ("https:/c1/0.glb", "names no valid host"),
        ("///c1/0.glb", "names no valid host"),
        ("ftp://acct.blob.core.windows.net/c1/0.glb", "has the scheme ftp"),
        ("file:///etc/passwd", "has the scheme file"),
        ("blob:https://h/1-2", "has the scheme blob"),
        ("C:\\tiles\\0.glb", "has the scheme c"),
        ("x" * 100 + ":y", "has an unknown scheme"),
        (f"{HOME}/%ff.glb", "is not UTF-8"),
    ],
)
def test_uris_that_leave_the_container(uri: str, why: str) -> None:
    """A URI that leaves the container is rejected with a reason."""
    result = outside(uri)
    assert why in result.reason
    assert not result.has_unsafe_name


@pytest.mark.parametrize(
    "uri",
    ["../../../0.glb", "../../../../c2/0.glb", "%2e%2e/../..\\0.glb", "../../..", "x%2F..%2F..%2Fy", "..%2F0.glb",
     "a/%2E%2E%2f..%2Fb", "x%2F..", "../../../c1%2F..%2Fc2/0.glb", "../../../c10/x"],
)  # fmt: skip
def test_climbing_out(uri: str) -> None:
    """Dot segments that climb out of the container, also hidden by encoding, are rejected."""
    assert outside(uri) == CLIMBS


@pytest.mark.parametrize(
    "uri", [".", "..", "../..", "./", "x/", "x/..", "x%2F", f"{HOME}", f"{HOME}/", "/c1", "a.3tz/d/", "../../../c1"]
)
def test_folders(uri: str) -> None:
    """The container itself and a path with a trailing slash are folders, and name no blob."""
    assert outside(uri) == FOLDER


@pytest.mark.parametrize(
    ("uri", "why"),
    [("a%00b", "NUL"), ("a%5C..%5Cb", "backslash"), ("a%0Ab", "control"), ("a\x01b", "control"),
     ("a%2F.%2Fb", "'.' folder"), ("x" * 1025, "longer than the 1,024 characters")],
)  # fmt: skip
def test_unsafe_names(uri: str, why: str) -> None:
    """A blob with a name that no folder can hold is rejected as unsafe, with a reason."""
    result = outside(uri)
    assert result.has_unsafe_name
    assert result.reason.startswith("names a blob that no folder can hold (its name ")
    assert why in result.reason


@pytest.mark.parametrize(
    ("uri", "name"),
    [("CON.glb", "t/CON.glb"), ("nul", "t/nul"), ("com1.x/y", "t/com1.x/y"), ("a//b", "t/a//b"), ("x./0", "t/x./0"),
     ("...", "t/..."), ("../c%3A/x", "c:/x"), ("/c1//x", "/x"), ("x" * 256, "t/" + "x" * 256)],
)  # fmt: skip
def test_names_that_some_destinations_can_hold(uri: str, name: str) -> None:
    """An odd name that only some destinations can hold is resolved."""
    result = resolve(uri, "t/tileset.json", HOME)
    assert isinstance(result, ResolvedUri)
    assert result.name == name


@pytest.mark.parametrize("uri", ["%ff.glb", "a%C3/%A9.glb", "%ED%A0%80.glb", "\ud800.glb"])
def test_invalid_utf_8(uri: str) -> None:
    """Invalid UTF-8 is rejected as an unsafe name: the URI points into the container."""
    assert outside(uri) == RejectedUri("is not UTF-8", has_unsafe_name=True)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [("a.glb?sig=SECRET", "a.glb"), ("\ud800\n\x1b[2J.bin", "\ufffd\ufffd\ufffd[2J.bin"), ("//me:pass@h/a", "//h/a"),
     ("x" * 200, "x" * 200), ("x" * 201, "x" * 200 + "…")],
)  # fmt: skip
def test_redact_uri(uri: str, shown: str) -> None:
    """A URI is shown in one line of printable characters, and without secrets."""
    assert redact_uri(uri) == shown


@pytest.mark.parametrize(
    ("uri", "name", "inner"),
    [
        ("a.3tz", "a.3tz", ""),
        ("a.3tz/", "a.3tz", ""),
        ("a.3tz\\t/0.glb", "a.3tz", "t/0.glb"),
        ("a.3tz//t", "a.3tz", "t"),
        ("d/a%20b.3tz/t%20u/0.glb", "d/a b.3tz", "t u/0.glb"),
        ("a.3tz/CON", "a.3tz", "CON"),
        ("d.3tz/a.3tz/x", "d.3tz/a.3tz", "x"),
        ("a.3tz/../b.3tz/x", "b.3tz", "x"),
        ("A.3TZ/x", "A.3TZ/x", ""),
        ("a.3tz.json", "a.3tz.json", ""),
        ("a.3tzx/y", "a.3tzx/y", ""),
        (".3tz/x", ".3tz/x", ""),
    ],
)
def test_archives(uri: str, name: str, inner: str) -> None:
    """A path through a 3TZ archive names the archive and a file in it; only `.3tz` at the end of a segment is one."""
    assert resolve(uri, "tileset.json", HOME) == ResolvedUri(name, archive_path=inner)


@pytest.mark.parametrize(
    ("uri", "result"),
    [
        ("0.glb", ResolvedUri("d/a.3tz", archive_path="t/0.glb")),
        ("../tileset.json", ResolvedUri("d/a.3tz", archive_path="tileset.json")),
        ("../../b.3tz", ResolvedUri("d/b.3tz")),
        ("../../../0.glb", ResolvedUri("0.glb")),
        ("../../../../0.glb", CLIMBS),
    ],
)
def test_documents_of_archives(uri: str, result: ResolvedUri | RejectedUri) -> None:
    """References of a document in an archive lie in the archive, beside it, or outside."""
    assert resolve(uri, "d/a.3tz/t/tileset.json", HOME) == result


@pytest.mark.parametrize("home", ["", "nonsense", "ftp://h/c", "https://[", "https:///c", "\ud800"])
@pytest.mark.parametrize("uri", [f"{HOME}/x", "//h/x", "/x", "/", "../../../c1/x", "../../../c/x"])
def test_unknown_container(uri: str, home: str) -> None:
    """With an unknown container URL only relative URIs that do not climb are inside."""
    assert "address of the container is unknown" in outside(uri, home=home).reason or outside(uri, home=home) == CLIMBS
    assert resolve("../0.glb", BASE, home) == ResolvedUri("tiles/0.glb")


@pytest.mark.parametrize(
    "uri", ["https://h/x?sig=SECRET", "/x?sig=SECRET", "ftp://h?sig=SECRET", "https://u:SECRET@h/", "https://?SECRET",
            "../../../?SECRET", "%ff?SECRET", "a%00?SECRET", "?SECRET\0/../..", "https://h#SECRET", "//h:1x?SECRET"]
)  # fmt: skip
@pytest.mark.parametrize("home", [HOME, ""])
def test_no_secret_is_repeated(uri: str, home: str) -> None:
    """The reason repeats neither the query nor the user name of a URI."""
    assert "SECRET" not in repr(resolve(uri, "a/b", home))


@pytest.mark.parametrize(
    ("uri", "is_relative"),
    [("a", True), ("a/b", True), ("../a", True), ("./a:b", True), ("{x}", True), ("a b", True), ("ä:b", True),
     ("1:2", True), (" a ", True), ("\x00a", True), ("a?x", True), ("", False), (" \n", False), ("/a", False),
     (" /a", False), ("\\a", False), ("\\\\h\\a", False), ("//h/a", False), ("?a", False), ("#a", False),
     ("data:,x", False), ("DATA:,x", False), ("https://h/a", False), ("ht\ntps://h/a", False), ("\thttps://h", False),
     ("blob:x", False), ("c:a", False)],
)  # fmt: skip
def test_relative(uri: str, is_relative: bool) -> None:
    """A relative-path reference has no scheme, host or leading slash, and has a path; blanks around it are ignored."""
    assert is_relative_path(uri) is is_relative


PIECES = st.sampled_from(
    ["a", "..", ".", "", "/", "//", "\\", "%2e", "%2E%2e", "%2F", "%5C", "%00", "%C3", "%A9", "%", "?", "#", ":", "@",
     "[", "]", "C:", "con", "NUL.x", "com1", "a.", "a b", " ", "\0", "\t", "\n", "\x7f", "x" * 255, "é", "~", "+",
     "%2B", ".3tz", "a.3tz/", "…", "\u2215", "\ud800", "c1", "/c1/", HOME, "https:", "//h", "http://h:99999/", "data:",
     "tiles/3/12.glb"]
)  # fmt: skip
URIS = st.lists(PIECES, max_size=8).map("".join) | st.lists(PIECES, max_size=6).map("/".join) | st.text(max_size=30)
BASES = st.sampled_from([BASE, "tileset.json", "a/b/c/d.json", "ü/%2e/x?y#z.json", "a.3tz/t/x.json"]) | URIS
HOMES = st.sampled_from([HOME, AZURITE, "https://h", "https://h/a/b%20c", ""])

SEGMENTS = st.sampled_from(["a", "b.glb", "..", ".", "a%20b", "c%2Bd", "...", "x+y", "é", "~", "c1"])
REFERENCES = st.builds(
    lambda segments, end, tail: "/".join(segments) + end + tail,
    st.lists(SEGMENTS, max_size=6),
    st.sampled_from(["", "/"]),
    st.sampled_from(["", "?q=1", "#f", "?q#f", "?a/../b"]),
)


@given(REFERENCES, st.sampled_from([BASE, "tileset.json", "a/b/c/d.json", "ä/%20/x?y#z.json"]), HOMES)
def test_urljoin_agrees(reference: str, base: str, home: str) -> None:
    """The result of urljoin for a relative reference is the blob, when it lies below the container."""
    assume(reference and not reference.startswith("#"))
    place = home or "https://unknown/c"
    joined = unquote(urlsplit(urljoin(f"{place}/{quote(base)}", reference)).path)
    root = unquote(urlsplit(place).path)
    result = resolve(reference, base, home)
    if isinstance(result, ResolvedUri):
        assert f"{root}/{result.name}" == joined
        assert result.has_query == ("?" in reference)
    elif not result or not result.has_unsafe_name:
        assert not joined.startswith(f"{root}/") or joined.endswith("/") or (not home and result == CLIMBS)


NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\/"), min_size=1, max_size=8)
    | st.sampled_from(
        ["a b", "a+b", "100%", "%2e%2e", "a#b?c", "a:b", "..x", " ", "~", "data:x", "https:", "é", "a;b"]
    ),
    min_size=1,
    max_size=5,
).map("/".join)


@given(NAMES, NAMES, HOMES)
def test_a_quoted_name_is_resolved_to_itself(name: str, base: str, home: str) -> None:
    """A safe name, quoted into a relative reference from any document, is resolved to itself."""
    assume(find_problem(name) is None and find_problem(base) is None and ".3tz/" not in f"{name}/")
    reference = "../" * base.count("/") + quote(name)
    assert is_relative_path(reference)
    assert resolve(reference, base, home) == ResolvedUri(name)
    if home:
        assert resolve(f"{home}/{quote(name)}", base, home) == ResolvedUri(name, is_absolute=True)


@given(URIS, BASES, HOMES | URIS)
@example("http://[", "", "http://[")
@example("\ud800", "\ud800/\ud800", "\ud800")
def test_any_input(uri: str, base: str, home: str) -> None:
    """Any input gives a result: names that can be requested, or a printable reason."""
    result = resolve(uri, base, home)
    is_relative_path(uri)
    if isinstance(result, ResolvedUri):
        assert find_universal_problem(result.name) is None
        result.name.encode()
        assert ".." not in f"{result.name}/{result.archive_path}".split("/")
    elif result:
        assert result.reason
        assert result.reason.isprintable()


PLAIN = st.lists(
    st.text("acnoux1.-_~=@+/:%", max_size=6)
    | st.sampled_from(
        ["con", "aux.", "NUL", "lpt1", "com", "COM9.x", "prn", "pon.x", "l" * 130, "..", ".3tz", "t.3tz"]
    ),
    max_size=4,
).map("/".join)


@given(PLAIN | URIS, PLAIN | BASES, HOMES)
@example("lpt1", "a/b", HOME)
@example("x", "nul.d/b", HOME)
@example("conin$", "", HOME)
@example("a" * 255, "", HOME)
@example("a" * 255, "a/", HOME)
@example("a" * 256, "", HOME)
@example("", "a/b", HOME)
@example("/x", "b", HOME)
@example("0.glb\n", "b", HOME)
def test_the_fast_path_agrees(uri: str, base: str, home: str) -> None:
    """The fast path gives the result of the whole procedure."""
    assert resolve(uri, base, home) == _resolve_any(_strip_blanks(uri), base, home)


@pytest.mark.parametrize("device", ["con", "prn", "aux", "nul", "com0", "com9", "lpt1", "conin$", "conout$", "com¹"])
@pytest.mark.parametrize("uri", ["{}", "{}.glb", "{}/0.glb", "d/{}", "d/{}.b.glb", "d/{}./0.glb"])
def test_device_names(uri: str, device: str) -> None:
    """The name of a Windows device is resolved like any other."""
    assert resolve(uri.format(device), "b", HOME) == ResolvedUri(uri.format(device))


HUGE = 500_000


@pytest.mark.parametrize(
    "uri",
    ["../" * 200_000 + "x", "a/" * 200_000 + "../" * 200_000 + "x", "%2e%2E/" * 200_000, "/" * HUGE, "." * HUGE,
     "%" * HUGE, "a" * HUGE, "a" * HUGE + ":", "http://" + "h" * HUGE, "http://h:" + "1" * HUGE, "\\" * HUGE,
     " " * HUGE + "x" + " " * HUGE, "é" * HUGE, "a\n" * HUGE, "con/" * (HUGE // 4), ".3tz/" * (HUGE // 5), "?" * HUGE,
     "//" + "@" * HUGE, "//[" + ":" * HUGE, "%2F.." * (HUGE // 5), "a." * HUGE, "a.3tz" * (HUGE // 5)],
    ids=range(22),
)  # fmt: skip
def test_time_is_linear(uri: str) -> None:
    """The longest and worst URI takes linear time."""
    with limit_cpu_time(4):
        resolve(uri, BASE, HOME)
        is_relative_path(uri)


@pytest.mark.scale
def test_ten_megabytes() -> None:
    """A URI of ten megabytes is resolved, and a reason never repeats much of it."""
    assert "longer than" in outside("é" * 5_000_000).reason
    assert len(outside("//" + "h" * 10_000_000).reason) < 100
    assert len(outside("s" * 10_000_000 + ":").reason) < 100
