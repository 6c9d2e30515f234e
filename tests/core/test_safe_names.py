"""Safety of blob names in folders and object stores."""

import os.path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tilesync.core.safe_names import (
    MAX_SEGMENT_BYTES,
    are_all_safe,
    collect_folders,
    find_problem,
    find_universal_problem,
    find_windows_unsafe,
    group_by_folder,
    list_parent_folders,
    make_version_name,
    raise_file_folder_clash,
    raise_if_unsafe,
)
from tilesync.errors import UnsafeName

PIECES = st.sampled_from(
    ["a", "Ü", "..", ".", "", "/", "//", "\\", "C:", "con", "NUL", "aux.txt", "com1", "com¹", "a.", " ", "a b", "\0",
     "\n", "\x7f", "x" * 255, "x" * 256, "é" * 128, "%2e%2e", "~", "tileset.json", "…", "．．", "\u2215", "\ud800"]
)  # fmt: skip
NAMES = st.lists(PIECES, max_size=6).map("".join) | st.lists(PIECES, max_size=6).map("/".join) | st.text(max_size=30)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("/etc/passwd", "absolute"),
        ("//server/share", "absolute"),
        ("../up", "'..'"),
        ("a/../../up", "'..'"),
        ("a/..", "'..'"),
        ("..", "'..'"),
        ("./a", "'.' folder"),
        ("a/./b", "'.' folder"),
        (".", "'.' folder"),
        ("a//b", "empty folder"),
        ("a/", "empty folder"),
        ("a\\b", "backslash"),
        ("..\\up", "backslash"),
        ("a\0b", "NUL"),
        ("a\nb", "control"),
        ("a\x1bb", "control"),
        ("a\x7fb", "control"),
        ("a\tb/c", "control"),
        ("x" * 256, "longer than 255"),
        ("a/" + "é" * 128, "longer than 255"),
        ("a/" * 512 + "b", "longer than the 1,024 characters"),
    ],
)
def test_refused_names(name: str, reason: str) -> None:
    """Each class of unsafe names is refused, with a reason that a person understands."""
    assert reason in (find_problem(name) or "accepted")


@pytest.mark.parametrize(
    "name",
    ["tileset.json", "a/b/c.glb", ".hidden", "a..b", "..a", "a b", " a", "100%", "a%2Fb", "%2e%2e/x", "Ümläut/🏙.glb",
     "~x", "console.json", "com10", "nulls", "auxiliary/x", "lpt", "ab:c", "-rf", "x" * 255, "é" * 127,
     "a/" * 100 + "b"],
)  # fmt: skip
def test_accepted_names(name: str) -> None:
    """Ordinary names pass, and so do odd ones close to the refused ones."""
    assert find_problem(name) is None


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["ab:c", "a?b", "a*b", "a<b", 'a"b', "a|b", "a ", "a /b", "C:", "c:evil", "C:/Windows"], "character"),
        (["CON", "con.txt", "a/nul/b", "Aux.tar.gz", "prn", "COM1", "com9.x", "lpt1", "COM¹"], "device"),
        (["a.", "a./b", "..."], "ends with a dot"),
    ],
)
def test_windows_refuses_more(names: list[str], reason: str) -> None:
    """A name that only Windows cannot store is refused only there, and is found among other names."""
    assert [find_problem(name) for name in names] == [None] * len(names)
    assert all(reason in (find_problem(name, windows=True) or "accepted") for name in names)
    assert find_windows_unsafe(["x.glb", *names, "console.json"]) == names


@pytest.mark.parametrize("name", ["/lead.glb", "x//y.glb", "d/", "n" * 300])
def test_stores_accept_more(name: str) -> None:
    """A name that a URL can carry but a folder cannot store is allowed in object stores."""
    assert find_problem(name) is not None
    assert find_universal_problem(name) is None


@pytest.mark.parametrize("name", ["", "a/../b", "./a", "a\\b", "a\0b", "a\nb", "n" * 1025])
def test_names_that_no_url_can_carry(name: str) -> None:
    """A name that a URL does not carry unchanged cannot be stored anywhere."""
    assert find_universal_problem(name) is not None


def test_many_refusals_give_a_short_message() -> None:
    """The message lists only the first names, cuts long ones, and says how to exclude them."""
    with pytest.raises(UnsafeName) as error:
        raise_if_unsafe([("/a b", "is an absolute path")] + [("x" * 50_000_000, "is long")] * 29, "cannot be held")
    assert len(str(error.value)) < 10_000
    assert "'/a b' is an absolute path" in str(error.value)
    assert str(error.value).endswith("; and 10 more")
    assert "--exclude '/a b'" in error.value.hint


def test_windows_accepts_plain_names() -> None:
    """Plain names pass on Windows too."""
    assert find_problem("a/b c.glb", windows=True) is None


def test_long_paths() -> None:
    """The whole name is compared with the limit, in bytes of UTF-8, and may reach it."""
    assert find_problem("é/" * 10 + "b", path_bytes=31) is None
    assert find_problem("é/" * 10 + "b", path_bytes=30) == "is longer than the 30 bytes that fit here"


@given(NAMES)
@example("a/../b")
@example("a\\..\\..\\b")
def test_an_accepted_name_stays_below_its_folder(name: str) -> None:
    """Joined to a folder, an accepted name is a normalised path below it, with segments that fit."""
    assume(find_problem(name) is None)
    path = os.path.join("/root/versions/v", name)
    assert os.path.normpath(path) == path
    assert path.startswith("/root/versions/v/")
    assert all(0 < len(part.encode(errors="surrogatepass")) <= MAX_SEGMENT_BYTES for part in name.split("/"))
    assert not {"\\", "\0"} & set(name)


@given(NAMES)
def test_windows_is_never_laxer(name: str) -> None:
    """Windows rules and path limits refuse everything that is refused without them."""
    assume(find_problem(name) is not None)
    assert find_problem(name, windows=True) is not None
    assert find_problem(name, path_bytes=10) is not None


def test_folders() -> None:
    """A name implies its folders, outermost first; a name at the top implies none."""
    assert list_parent_folders("a/b/c") == ["a", "a/b"]
    assert list_parent_folders("c") == []


@given(st.text(max_size=200) | NAMES)
@example("a" * 119 + ".b")
@example("con")
def test_version_names_are_safe(text: str) -> None:
    """The version name of any export is safe in a folder and in a URL without quoting."""
    name = make_version_name(text)
    assert find_problem(name, windows=True) is None
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_version_names_keep_ids() -> None:
    """The id of an export becomes its version's name unchanged."""
    assert make_version_name("5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40") == "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"


@given(st.lists(NAMES, max_size=5), st.sampled_from([0, 40, 300]))
def test_the_quick_check_agrees_with_the_single_check(names: list[str], path_bytes: int) -> None:
    """If the quick check passes, no single name has a problem."""
    if are_all_safe(names, path_bytes=path_bytes):
        assert [find_problem(name, path_bytes=path_bytes) for name in names] == [None] * len(names)


def test_most_names_pass_the_quick_check() -> None:
    """Typical names of exports pass the quick check, and so does an empty list."""
    assert are_all_safe([])
    assert are_all_safe(["tileset.json", "tiles/00000/0000000.glb", "10-0.glb", "a b+c%20.bin", ".hidden/x..y"])
    assert not are_all_safe(["tileset.json", "aux/x.glb"])
    assert not are_all_safe(["a", ""])
    assert not are_all_safe(["a\nb", "c"])
    assert are_all_safe(["Components/COMmon.glb", "tiles/common.b3dm", "x" * MAX_SEGMENT_BYTES])
    for name in (
        "/a",
        "a/",
        "a//b",
        "a/./b",
        "../a",
        "a.",
        "C:a",
        "a\\b",
        "x/CON",
        "Lpt1",
        "a\x7f",
        "x" * 256,
        "\u212a" * 99,
    ):
        for names in ([name], ["a", name], [name, "a"]):
            assert not are_all_safe(names)


@given(st.lists(NAMES, max_size=5))
def test_the_folders_of_names_are_those_of_each(names: list[str]) -> None:
    """Together or one by one, names imply the same folders."""
    assert collect_folders(names) - {""} == {folder for name in names for folder in list_parent_folders(name)} - {""}


@pytest.mark.parametrize(
    ("file", "first"), [("t", "--exclude t, or --exclude 't/**'"), ("tileset.json", "--exclude 't")]
)
def test_the_hint_of_a_file_folder_clash_names_files_to_exclude(file: str, first: str) -> None:
    """The hint offers either of the two, but never the root, which viewers need."""
    with pytest.raises(UnsafeName) as refused:
        raise_file_folder_clash(file, f"{file}/1")
    assert refused.value.hint.startswith(f"leave one of them out: {first}")
    assert "--exclude tileset.json," not in refused.value.hint


@pytest.mark.parametrize(("names", "ends"), [(["../up"], "--exclude ../up"), (["../up", "/a"], "; elsewhere")])
def test_another_destination_is_suggested_only_if_it_helps(names: list[str], ends: str) -> None:
    """No destination can store a name that no URL can carry, so the hint suggests none."""
    with pytest.raises(UnsafeName) as refused:
        raise_if_unsafe([(name, "is odd") for name in names], "cannot be held", elsewhere="; elsewhere")
    assert refused.value.hint.endswith(ends)


def test_names_are_grouped_by_their_folder() -> None:
    """The top has the empty path; a folder that comes again is a group again."""
    names = ["a", "f/b", "f/c", "f/g/d", "f/e"]
    groups = [(folder, list(inside)) for folder, inside in group_by_folder(names, str)]
    assert groups == [
        ("", [("a", "a")]),
        ("f", [("b", "f/b"), ("c", "f/c")]),
        ("f/g", [("d", "f/g/d")]),
        ("f", [("e", "f/e")]),
    ]
