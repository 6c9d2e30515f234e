"""Tables fit a terminal, and are complete elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.api.rows import make_export_info
from tilesync.cli.output.summary import format_export_table
from tilesync.cli.output.table import format_table, truncate_start, wrap_text
from tilesync.jobs.versions.listing import ListedVersion
from tilesync.model import Export

ID = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"
NAME = "A bridge over a river, seen from the north in the morning, with every bolt and cable that it has"
ROW = Export(
    id=ID, status="Complete", name=NAME, imodel=ID[::-1], changeset="0123456789abcdef" * 2, type="3DTiles",
    modified="2026-11-29T08:25:51.1234567Z", size=12_345_678, error="", record={}, link=None,
)  # fmt: skip


@pytest.mark.parametrize("imodel", [True, False])
@pytest.mark.parametrize("there", [None, ()])
def test_exports_fit_80_columns(imodel: bool, there: tuple[ListedVersion, ...] | None) -> None:
    """Ids, times and sizes are never cut, names are; without a width everything is shown."""
    row, has_held = make_export_info(ROW, there), there is not None
    shown = format_export_table([row, row], has_held=has_held, has_imodel=imodel, width=80)
    assert max(map(len, shown.splitlines())) <= 80
    for whole in (
        ID,
        "2026-11-29T08:25:51.1234567Z",
        "12.3 MB",
        "Complete",
        "A bridge over",
        *([ID[::-1]] if imodel else []),
    ):
        assert shown.count(whole) == 2
    assert "…" in shown
    whole_table = format_export_table([row], has_held=has_held, has_imodel=imodel)
    assert NAME in whole_table
    assert len(whole_table.splitlines()) == 2


def test_a_wide_terminal_has_a_line_a_row() -> None:
    """A row that fits is one line; a name that is slightly too long is cut to fit."""
    row = make_export_info(ROW)

    def table(width: int | None = None) -> str:
        return format_export_table([row], has_held=False, has_imodel=False, width=width)

    assert table(300) == table()
    cut = table(150)
    assert len(cut.splitlines()) == 2
    assert max(map(len, cut.splitlines())) == 150


@given(
    st.lists(st.lists(st.text("abc ", max_size=30), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(45, 120),
)
def test_no_line_is_wider(rows: list[list[str]], width: int) -> None:
    """No line is wider than the terminal, for any cells."""
    shown = format_table(["ID", "WHAT", "NAME"], rows, width=width, truncated=("NAME",))
    assert max(map(len, shown.splitlines()), default=0) <= width


def test_names_keep_their_end() -> None:
    """The start of a path is cut, because its end identifies the file."""
    assert truncate_start("tiles/0/1/2/3.glb", 8) == "…2/3.glb"
    assert truncate_start("3.glb", 8) == "3.glb"


def test_sentences_are_wrapped_between_words() -> None:
    """Ids and commands are never broken; without a width nothing is wrapped."""
    text = f"`tilesync mirror {ID} DEST` " * 4
    shown = wrap_text(text, first_indent="ok    ", next_indent="      ", width=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count(ID) == 4
    assert wrap_text(text, first_indent="ok    ", next_indent="", width=None) == "ok    " + text


def test_no_cell_steers_the_terminal() -> None:
    """Foreign texts, such as the name of an export, stay in their row and change no color."""
    assert format_table(["ID", "NAME"], [["1", "a\x1b[31mb\nc\x9b2J"]]) == "ID  NAME\n1   a\ufffd[31mb c\ufffd2J"
