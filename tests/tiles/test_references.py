"""Reference collector: the files that one document references."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.model import ROOT, Diagnostic, Reference, Role
from tilesync.model.tiles import ROOT_LEADS_AWAY, UNFOLLOWED
from tilesync.tiles.references import ReferenceCollector

HOME = "https://acct.blob.core.windows.net/c1"
BASE = "tiles/tileset.json"
SECRET = "sv=2024&sig=SECRET"


def collect(
    uri: str, role: Role = Role.CONTENT, *, base: str = BASE, home: str = HOME
) -> tuple[list[str], list[Diagnostic]]:
    """Collect the names and diagnostics of one URI."""
    references = ReferenceCollector(base, home)
    references(role, uri)
    result, diagnostics = references.drain()
    return [reference.target for reference in result], list(diagnostics)


@pytest.mark.parametrize(
    ("uri", "name"),
    [("a.glb", "tiles/a.glb"), ("../a%20b.glb", "a b.glb"), ("./x/../a.glb#f", "tiles/a.glb"),
     ("a.3tz/t.json", "tiles/a.3tz")],
)  # fmt: skip
@pytest.mark.parametrize("role", sorted(set(Role) - {Role.UNKNOWN}))
def test_references(uri: str, name: str, role: Role) -> None:
    """A URI gives a name in the container, with its role and without a diagnostic."""
    references = ReferenceCollector(BASE, HOME)
    references(role, uri)
    assert len(references) == 1
    assert references.drain() == ((Reference(name, role),), ())


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("https://example.com/a.glb", "leads to another host (example.com)"),
        ("//example.com/a.glb", "leads to another host"),
        ("https://acct.blob.core.windows.net/c2/a.glb", "leads out of the container, on the same host"),
        ("/a.glb", "leads out of the container"),
        ("../../a.glb", "climbs out of the container"),
        ("x%2F..%2F..%2F..%2Fa", "climbs out of the container"),
        ("ftp://h/a.glb", "has the scheme ftp"),
        ("https://acct.blob.core.windows.net/c1/%ff.glb", "is not UTF-8"),
        ("x/", "names a folder"),
    ],
)
@pytest.mark.parametrize("role", [Role.CONTENT, Role.UNKNOWN])
def test_uris_that_leave_the_container(uri: str, words: str, role: Role) -> None:
    """A URI that leaves the container gives a diagnostic with its target."""
    names, (diagnostic,) = collect(uri, role)
    assert names == []
    assert diagnostic.problem == "unfollowed"
    assert words in diagnostic.detail


@pytest.mark.parametrize("uri", ["CON.glb", "%ff.glb"])
def test_unsafe_names_in_an_unknown_extension(uri: str) -> None:
    """An unsafe name in an unknown extension is not missing, because it may be no reference at all."""
    _, (diagnostic,) = collect(uri, Role.UNKNOWN)
    assert diagnostic.problem == "unfollowed"


@pytest.mark.parametrize("uri", ["%ff.glb", "a%C3/%A9.glb", "\ud800.glb"])
def test_invalid_utf_8(uri: str) -> None:
    """No blob has a name of invalid UTF-8: the reference is missing."""
    names, (diagnostic,) = collect(uri)
    assert (names, diagnostic.problem) == ([], "unsafe name")
    assert "not UTF-8" in diagnostic.detail
    diagnostic.detail.encode()


@pytest.mark.parametrize("uri", ["a.glb", "a.glb?v=1", f"{HOME}/a.glb", "../a.png"])
def test_unknown_extensions_are_unfollowed(uri: str) -> None:
    """A URI of an unknown extension gives a diagnostic and is not followed."""
    names, (diagnostic,) = collect(uri, Role.UNKNOWN)
    assert names == []
    assert diagnostic == Diagnostic(
        "unfollowed", f"{uri.partition('?')[0]} is in an extension that tilesync does not know"
    )


@pytest.mark.parametrize("uri", ["a%01b", "a%00b", "a%5Cb"])
def test_unsafe_names(uri: str) -> None:
    """A name that no folder can hold gives a diagnostic and no reference."""
    names, (diagnostic,) = collect(uri)
    assert names == []
    assert diagnostic.problem == "unsafe name"
    assert "no folder can hold" in diagnostic.detail


@pytest.mark.parametrize("uri", ["", " ", "\n"])
def test_empty_uris(uri: str) -> None:
    """An empty URI gives a diagnostic, because viewers ignore it; one of an unknown extension may mean anything."""
    assert collect(uri, Role.IMAGE) == (
        [], [Diagnostic("empty URI", "a URI (image) is empty, which viewers ignore")]
    )  # fmt: skip
    assert collect(uri, Role.UNKNOWN) == ([], [])


@pytest.mark.parametrize("uri", ["data:,x", "data:model/gltf-binary;base64,AAAA", " DATA:,x", "data:" + "A" * 100_000])
def test_data(uri: str) -> None:
    """A `data:` URI gives no reference."""
    for role in Role:
        assert collect(uri, role) == ([], [])


def test_queries_and_absolute_urls() -> None:
    """A query and an absolute URL are followed with a diagnostic: a folder serves files without queries, and URLs lead
    elsewhere.
    """
    assert collect("a.glb?v=1") == (
        ["tiles/a.glb"], [Diagnostic("query", "a.glb has a query, which a file in a folder cannot have")]
    )  # fmt: skip
    names, diagnostics = collect(f"{HOME}/a.glb?{SECRET}")
    assert names == ["a.glb"]
    assert [diagnostic.problem for diagnostic in diagnostics] == ["query", "absolute URL"]
    assert collect(f"{HOME}/a.glb", home="")[1][0].problem == "unfollowed"


def test_each_reference_is_reported_once() -> None:
    """A file that is named often is one reference for each role."""
    references = ReferenceCollector(BASE, HOME)
    for uri in ("a.glb", "./a.glb", "a%2Eglb", "../tiles/a.glb"):
        references(Role.CONTENT, uri)
        references(Role.MODEL, uri)
    assert references.drain()[0] == (Reference("tiles/a.glb", Role.CONTENT), Reference("tiles/a.glb", Role.MODEL))


def test_repeated_problems_give_one_diagnostic_with_a_count() -> None:
    """Queries and empty URIs give one diagnostic a document; URIs that leave or point back give one with a count."""
    references = ReferenceCollector(BASE, HOME)
    for number in range(100):
        references(Role.CONTENT, f"{HOME}/{number}.glb?n={number}")
        references(Role.CONTENT, "")
        references(Role.CONTENT, f"https://h/{number}")
        if number == 50:
            assert [diagnostic.problem for diagnostic in references.drain(is_final=False)[1]] == ["query", "empty URI"]
        references(Role.CONTENT, f"https://h/{number}")
    names, diagnostics = references.drain()
    assert len(names) == 49
    assert diagnostics == (
        Diagnostic("unfollowed", "200 URIs lead elsewhere: the first, https://h/0 leads to another host (h)"),
        Diagnostic("absolute URL", f"100 URIs lead elsewhere: the first, {HOME}/0.glb points back to the original"
               " container"),
    )  # fmt: skip
    assert references.drain() == ((), ())


@pytest.mark.parametrize(
    ("base", "role", "problem"),
    [(ROOT, Role.CONTENT, ROOT_LEADS_AWAY), (ROOT, Role.SUBTREE, ROOT_LEADS_AWAY), (ROOT, Role.SCHEMA, UNFOLLOWED),
     (ROOT, Role.UNKNOWN, UNFOLLOWED), ("a.json", Role.CONTENT, UNFOLLOWED)],
)  # fmt: skip
def test_a_root_with_contents_elsewhere_has_its_own_problem(base: str, role: Role, problem: str) -> None:
    """A root with contents elsewhere has its own problem, because no copy of it is complete."""
    references = ReferenceCollector(base, HOME)
    references(Role.IMAGE, "https://h/a")
    references(role, "https://h/b?sig=s3cret")
    (diagnostic,) = references.drain()[1]
    assert (diagnostic.problem, diagnostic.detail.split()[0]) == (problem, "2")


def test_drain() -> None:
    """Drained references do not come again, unless they are added again."""
    references = ReferenceCollector(BASE, HOME)
    references(Role.CONTENT, "a.glb")
    references(Role.CONTENT, "https://h/a")
    assert len(references) == 1
    assert [len(part) for part in references.drain()] == [1, 1]
    assert references.drain() == ((), ())
    assert len(references) == 0
    references(Role.CONTENT, "a.glb")
    assert [len(part) for part in references.drain()] == [1, 0]


@pytest.mark.parametrize(
    "uri",
    [f"a.glb?{SECRET}", f"https://h/a.glb?{SECRET}", f"{HOME}/a.glb?{SECRET}#f", f"../../a?{SECRET}", f"CON?{SECRET}",
     f" ?{SECRET}", f"http://[?{SECRET}", f"https://h\\a?{SECRET}", f"x/?{SECRET}?{SECRET}", f"\n\t?{SECRET}",
     f"https://u@h/?{SECRET}", f"//h?{SECRET}", f"x:?{SECRET}"],
)  # fmt: skip
@pytest.mark.parametrize("role", [Role.CONTENT, Role.UNKNOWN])
def test_no_query_is_repeated(uri: str, role: Role) -> None:
    """A query may be a signature: no diagnostic and no name contains any of it."""
    for home in (HOME, ""):
        names, diagnostics = collect(uri, role, home=home)
        assert "SECRET" not in f"{names}{diagnostics}"


PARTS = [
    "a",
    "/",
    "..",
    "%2e",
    "%",
    "\\",
    ":",
    "//",
    "https:",
    "h",
    "#",
    "\x00",
    "\x1b[2J",
    "\n",
    "\ud800",
    "é",
    "\u202e",
]


@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join) | st.text(max_size=300), st.sampled_from(list(Role)))
def test_any_uri(uri: str, role: Role) -> None:
    """Any text is accepted; names and diagnostics are valid UTF-8 and fit in one line of a terminal."""
    references = ReferenceCollector(BASE, HOME)
    references(role, f"{uri}?{SECRET}")
    result, diagnostics = references.drain()
    assert "SECRET" not in f"{result}{diagnostics}"
    for diagnostic in diagnostics:
        assert diagnostic.detail.isprintable()
        assert len(diagnostic.detail) < 600
    json.dumps([*(one.target for one in result), *(one.detail for one in diagnostics)], ensure_ascii=False).encode()


def test_long_uris_are_cut() -> None:
    """A diagnostic shows only the beginning of a long URI."""
    _, (diagnostic,) = collect("https://h/" + "a" * 70_000)
    assert diagnostic.detail.startswith("https://h/aaa")
    assert len(diagnostic.detail) < 300
    assert "…" in diagnostic.detail
