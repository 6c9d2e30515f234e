"""Read TOML files of the user, with the line of each key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.errors import UsageError
from tilesync.runtime.safe_open import MAX_SMALL_FILE_BYTES
from tilesync.runtime.toml_file import TomlDocument, TomlPath, parse_toml, read_toml

FLEET = '''\
# [not.a.table]
jobs = 4
"quoted key" = "# no comment"   # line 3
site.name = 'x = 1'
site . "owner" = { mail = "a@b.c", list = [1, 2] }

[defaults]
note = """
keep-versions = 1
[[mirror]]
\\""x" ends here"""""
text = \'\'\'
[fleet]
it's\'\'\'
include = [
  "a]b", # ] is no end
  'c,d',
  [1, [2]],
]
when = 1979-05-27 07:32:00
keep-versions = 10

[[mirror]]
name = "a"

  [[ mirror ]]  # the second
  name = "b"
  [mirror.options]
  retry-for = "1m"
[[mirror.dest]]
path = "x"
[[mirror.dest]]
path = "y"
[[mirror]]
name = "c"
keep-versions = 3
[mirror.options.deep]
x = 1
[ a . "b.c" ]
d = true
'''
"""A file with every kind of key and value; each text that could mislead a scanner is in it."""


def parse(text: str) -> TomlDocument:
    """Parse a text as the file `fleet.toml`."""
    return parse_toml(text.encode(), Path("fleet.toml"))


def walk(value: Any, path: TomlPath = ()) -> Iterator[TomlPath]:
    """Yield the paths of all tables, keys and elements in parsed tables."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from walk(inner, (*path, key))


@pytest.mark.parametrize(
    ("table", "key", "line"),
    [
        ((), "jobs", 2),
        ((), "quoted key", 3),
        (("site",), None, 4),
        (("site",), "name", 4),
        (("site", "owner"), "mail", 5),
        (("site", "owner", "list", 1), None, 5),
        (("defaults",), None, 7),
        (("defaults",), "text", 12),
        (("defaults",), "include", 15),
        (("defaults", "include", 0), None, 16),
        (("defaults", "include", 2, 1, 0), None, 18),
        (("defaults",), "when", 20),
        (("defaults",), "keep-versions", 21),
        (("mirror", 0), None, 23),
        (("mirror", 0), "name", 24),
        (("mirror", 1), None, 26),
        (("mirror", 1), "name", 27),
        (("mirror", 1, "options"), "retry-for", 29),
        (("mirror", 1, "dest", 1), "path", 33),
        (("mirror", 2), None, 34),
        (("mirror", 2), "keep-versions", 36),
        (("mirror", 2, "options", "deep"), "x", 38),
        (("a", "b.c"), "d", 40),
    ],
)
def test_the_line_of_a_key(table: TomlPath, key: str | None, line: int) -> None:
    """Each table, key and element has its line, whatever texts and comments stand around it."""
    assert parse(FLEET).line_of(table, key) == line


def test_every_key_has_a_line() -> None:
    """The lines are those of exactly the tables, keys and elements that tomllib finds."""
    document = parse(FLEET)
    assert set(document.lines) == set(walk(document.tables))


def test_the_line_of_an_unknown_key() -> None:
    """A key that is not in the file has no line, and its place is the file."""
    document = parse(FLEET)
    assert document.line_of(("mirror", 3), "name") is None
    assert document.line_of(("defaults",), "fleet") is None
    assert document.format_place(("mirror", 3)) == "fleet.toml"
    assert document.format_place(("mirror", 2), "name") == "fleet.toml:35"


def test_a_table_after_its_inner_table() -> None:
    """The line of a table is that of its own header, even if the header of a table inside came first."""
    assert parse("[a.b]\nx = 1\n\n[a]\ny = 2\n").line_of(("a",)) == 4


@given(
    texts=st.lists(st.text(st.sampled_from("ab'\"\\#[]{}=,.\n\t "), max_size=12), max_size=4),
    forms=st.lists(st.sampled_from(["basic", "multi", "array", "inline", "header"]), min_size=4, max_size=4),
)
def test_no_text_misleads_the_scanner(texts: list[str], forms: list[str]) -> None:
    """Whatever stands in strings, also over several lines, the keys after them have their lines."""
    lines: list[str] = []
    expected: dict[int, int] = {}
    for index, (text, form) in enumerate(zip(texts, forms, strict=False)):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        basic = '"' + escaped.replace("\n", "\\n").replace("\t", "\\t") + '"'
        block = {
            "basic": f"text{index} = {basic}",
            "multi": f'text{index} = """{escaped}"""',
            "array": f"text{index} = [\n{basic}, # {basic}\n]",
            "inline": f"text{index} = {{ {basic} = {basic} }}",
            "header": f"[table{index}.{basic}]",
        }[form]
        lines += block.split("\n")
        lines.append(f"after{index} = 1")
        expected[index] = len(lines)
    document = parse("\n".join(lines) + "\n")
    found = {int(str(path[-1])[5:]): line for path, line in document.lines.items() if str(path[-1]).startswith("after")}
    assert found == expected
    assert set(document.lines) == set(walk(document.tables))


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"a = 1\nb = maybe\n", "config.toml:2: "),
        (b"a = 1\r\n\r\na = 2\r\n", "config.toml:3: "),
        (b"a = 1\nb = [1,\n", "config.toml:3: "),
        (b"a = 1\nb = '\xff'\n", "config.toml:2: this is not UTF-8 text"),
        (b"a = " + b"[" * 100_000, "config.toml: its arrays or tables are nested too deeply"),
    ],
)
def test_a_syntax_error_has_its_line(tmp_path: Path, data: bytes, place: str) -> None:
    """A file that is not TOML is a usage error with file and line."""
    path = tmp_path / "config.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_toml(path)
    assert str(caught.value).startswith(f"{tmp_path}/{place}")
    assert caught.value.hint


def test_a_syntax_error_does_not_show_values() -> None:
    """The message of a syntax error does not repeat the text of the line, which may be a secret."""
    with pytest.raises(UsageError) as caught:
        parse("token = eyJhbGciOiJSUzI1NiJ9.abc\n")
    assert "eyJ" not in str(caught.value)


def test_a_byte_order_mark_is_ignored() -> None:
    """A file that an editor of Windows has saved is read, with the same lines."""
    document = parse_toml(b"\xef\xbb\xbfa = 1\r\n[t]\r\nb = 2\r\n", Path("x"))
    assert (document.tables, document.line_of(("t",), "b")) == ({"a": 1, "t": {"b": 2}}, 3)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is too long are usage errors that name the path."""
    (tmp_path / "long").write_bytes(b"#" * (MAX_SMALL_FILE_BYTES + 1))
    for name in ("missing", ".", "long"):
        with pytest.raises(UsageError, match="cannot be read: ") as caught:
            read_toml(tmp_path / name)
        assert str(tmp_path) in str(caught.value)


def test_a_file_without_permission(tmp_path: Path) -> None:
    """A file that this user may not read is a usage error."""
    path = tmp_path / "x"
    path.touch(0o000)
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)  # root reads every file, so it becomes another user
        with pytest.raises(UsageError, match="Permission denied"):
            read_toml(path)
    finally:
        os.seteuid(user)
