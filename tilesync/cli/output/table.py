"""Text tables with aligned columns that continue on a further line on a narrow terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

from tilesync.cli.params import replace_control_characters

COLUMN_GAP = "  "
CONTINUATION_INDENT = "    "
_MIN_TEXT_CHARS = 12
"""Minimum characters of a free text that are shown."""


def format_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None, truncated: Collection[str] = ()
) -> str:
    """Align columns. With a `width` no line is wider: free texts (the columns `truncated`) are cut, and columns that
    still do not fit go to a line below. Ids, sizes and times are never cut. Without a width everything is shown.
    """
    lines = [head, *([replace_control_characters(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    groups = [list(range(len(head)))]
    if width is not None:
        free = [column for column, name in enumerate(head) if name in truncated]
        groups, widths = _lay_out_columns(widths, free, width)
    return "\n".join(
        _format_row(
            [truncate_end(line[column], widths[column]) for column in group],
            [widths[column] for column in group],
            indent,
        )
        for line in lines
        for indent, group in zip(("", *[CONTINUATION_INDENT] * (len(groups) - 1)), groups, strict=True)
    )


def _lay_out_columns(widths: Sequence[int], free: Sequence[int], width: int) -> tuple[list[list[int]], list[int]]:
    """Return the columns of each line of a row, and the width of each column.

    Free texts (`free`) take the room that the others leave. A column that does not fit starts the next line.
    """
    min_widths = [min(each, _MIN_TEXT_CHARS) if column in free else each for column, each in enumerate(widths)]
    fits_one_line = sum(min_widths) + len(COLUMN_GAP) * (len(min_widths) - 1) <= width
    groups: list[list[int]] = [[]]
    final_widths, end = list(widths), 0
    for column, min_width in enumerate(min_widths):
        start = end + (len(COLUMN_GAP) if groups[-1] else 0)
        following = [each for each in range(column + 1, len(min_widths)) if fits_one_line or each in free]
        reserved = sum(len(COLUMN_GAP) + min_widths[each] for each in following) if column in free else 0
        if groups[-1] and not fits_one_line and start + min_width + reserved > width:
            groups.append([])
            start = len(CONTINUATION_INDENT)
        if column in free:
            final_widths[column] = max(min(widths[column], width - start - reserved), min_width)
        groups[-1].append(column)
        end = start + final_widths[column]
    return groups, final_widths


def _format_row(cells: Sequence[str], widths: Sequence[int], indent: str) -> str:
    return indent + COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def truncate_end(text: str, width: int) -> str:
    """Cut the end of a text that is too long."""
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"


def truncate_start(text: str, width: int) -> str:
    """Cut the start of a text that is too long: the end of a file name differs most from its neighbours."""
    return text if len(text) <= width else f"…{text[len(text) - max(width - 1, 1) :]}"


def wrap_text(text: str, *, first_indent: str, next_indent: str, width: int | None) -> str:
    """Wrap a sentence after `first_indent`, further lines after `next_indent`. Commands and ids are never broken."""
    if width is None:
        return first_indent + text
    return textwrap.fill(
        text,
        width,
        initial_indent=first_indent,
        subsequent_indent=next_indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
