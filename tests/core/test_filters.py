"""Include and exclude globs on the names of files."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.core.filters import find_added_globs, find_unmatched, glob_matcher, parse_globs
from tilesync.errors import UsageError
from tilesync.model import EVERYTHING, Globs


@pytest.mark.parametrize(
    ("glob", "matched", "unmatched"),
    [
        ("*.png", ["a.png", "x/y/a.png"], ["a.png/b", "a.PNG", "png"]),
        ("tiles/*.glb", ["tiles/a.glb"], ["tiles/x/a.glb", "a.glb", "x/tiles/a.glb"]),
        ("tiles/**", ["tiles/a", "tiles/x/y"], ["tiles", "other/tiles/a"]),
        ("**/a.glb", ["a.glb", "x/a.glb", "x/y/a.glb"], ["ba.glb"]),
        ("/a.glb", ["a.glb"], ["x/a.glb"]),
        ("tile?.glb", ["tile1.glb", "x/tileb.glb"], ["tile.glb", "tile/.glb"]),
        ("[a-c]?.bin", ["b1.bin"], ["d1.bin", "1.bin"]),
        ("[!a]*", ["b", "x/b"], ["a", "x/ab"]),
        ("a+b (1).glb", ["a+b (1).glb"], ["aab (1).glb"]),
        ("a[", ["a["], ["a"]),
        ("d[!x]f.glb", ["dyf.glb", "q/dyf.glb"], ["d/f.glb", "dxf.glb"]),
        ("d/a[+-9]b", ["d/a5b"], ["d/a/b"]),
        ("textures/", ["textures/a.png", "textures/x/a.png"], ["textures", "x/textures/a.png"]),
        ("//a.glb", ["/a.glb"], ["a.glb"]),
        ("/b.glb", ["b.glb", "/b.glb"], ["x/b.glb"]),
        ("[x].glb", ["x.glb", "[x].glb"], ["y.glb"]),
        ("[\\d]", ["\\", "d"], ["1"]),
    ],
)
def test_globs(glob: str, matched: list[str], unmatched: list[str]) -> None:
    """A star stops at slashes, a double star does not; a glob without a slash matches the last segment."""
    wanted = glob_matcher(Globs(include=(glob,)))
    assert [name for name in matched + unmatched if wanted(name)] == matched
    unwanted = glob_matcher(Globs(exclude=(glob,)))
    assert [name for name in matched + unmatched if unwanted(name)] == unmatched


def test_exclude_wins() -> None:
    """A name that both match is excluded."""
    both = glob_matcher(Globs(include=("*.glb",), exclude=("a*",)))
    assert [name for name in ("a.glb", "b.glb", "b.png") if both(name)] == ["b.glb"]


def test_the_root_is_always_kept() -> None:
    """No filter can exclude the root tileset, only other files of that name."""
    nothing = glob_matcher(Globs(include=("no such",), exclude=("*", "**")))
    assert nothing("tileset.json")
    assert not nothing("x/tileset.json")


@given(st.text("abc*?[]!-.", min_size=1, max_size=8), st.text("abc-.!", max_size=6))
def test_globs_without_slashes_match_like_the_shell(glob: str, name: str) -> None:
    """Globs agree with fnmatch, which knows no slashes; forms that it reads differently (`[]…]`, `[!]…]`, `**`) are
    skipped.
    """
    if "**" in glob or "[]" in glob or "[!]" in glob or "[!" in glob or "--" in glob:
        return
    try:
        wanted = glob_matcher(parse_globs((glob,), ()))
    except UsageError:
        return
    assert wanted(name) == fnmatch.fnmatchcase(name, glob)


@pytest.mark.parametrize("glob", ["", "/", "[z-a]"])
def test_invalid_globs_are_refused(glob: str) -> None:
    """An empty glob, or a set that runs backwards, is a usage error."""
    with pytest.raises(UsageError):
        parse_globs((), (glob,))


def test_globs_compare_without_order() -> None:
    """Equal globs in another order are equal."""
    assert parse_globs(("b", "a", "a"), ("c",)) == parse_globs(["a", "b"], ["c"]) == Globs(("a", "b"), ("c",))
    assert parse_globs((), ()) == EVERYTHING
    assert not EVERYTHING


def test_globs_that_match_nothing_are_named() -> None:
    """Each glob is returned with its option; names are read only until every glob has a match."""
    globs = Globs(include=("*.glb", "*.glbb"), exclude=("a/", "b/"))
    assert find_unmatched(globs, ["a/x.glb", "tileset.json"]) == [("--include", "*.glbb"), ("--exclude", "b/")]
    names = iter(["a/x.glb", "b/y.glbb", "never read"])
    assert find_unmatched(globs, names) == []
    assert next(names) == "never read"
    assert find_unmatched(EVERYTHING, ["a"]) == []


def test_globs_of_the_source_are_not_new() -> None:
    """Only globs that did not choose the files before count as added."""
    existing, requested = Globs(include=("*.glb",), exclude=("*.png",)), Globs(exclude=("*.jpg", "*.png"))
    assert find_added_globs(existing, requested) == Globs(exclude=("*.jpg",))
