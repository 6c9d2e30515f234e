"""Tables for people: aligned columns, in lines of their own where a terminal has no room for all of them."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

from tilesync.cli.params import replace_control_characters

COLUMN_GAP = "  "
CONTINUATION_INDENT = "    "
_MIN_TEXT_CHARS = 12
"""Letters of a free text that are shown at least."""


def format_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None, truncated: Collection[str] = ()
) -> str:
    """Aligned columns. With a `width` no line is wider: free texts (the columns `elided`) are cut short, and columns
    that still have no room go on in a line below. Ids, sizes and times are never cut. Without a width all is shown.
    """
    lines = [head, *([replace_control_characters(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    groups = [list(range(len(head)))]
    if width is not None:
        free = [column for column, name in enumerate(head) if name in truncated]
        groups, widths = _lay_out_columns(widths, free, width)
    return "\n".join(
        _format_row(
            [_truncate(line[column], widths[column]) for column in group], [widths[column] for column in group], lead
        )
        for line in lines
        for lead, group in zip(("", *[CONTINUATION_INDENT] * (len(groups) - 1)), groups, strict=True)
    )


def _lay_out_columns(widths: Sequence[int], free: Sequence[int], width: int) -> tuple[list[list[int]], list[int]]:
    """The columns of each line of a row, and how wide each is: free texts take the room that others leave them."""
    least = [min(each, _MIN_TEXT_CHARS) if column in free else each for column, each in enumerate(widths)]
    in_one = sum(least) + len(COLUMN_GAP) * (len(least) - 1) <= width
    groups: list[list[int]] = [[]]
    laid, end = list(widths), 0
    for column, narrowest in enumerate(least):
        start = end + (len(COLUMN_GAP) if groups[-1] else 0)
        behind = [each for each in range(column + 1, len(least)) if in_one or each in free]
        rest = sum(len(COLUMN_GAP) + least[each] for each in behind) if column in free else 0
        if groups[-1] and not in_one and start + narrowest + rest > width:
            groups.append([])
            start = len(CONTINUATION_INDENT)
        if column in free:
            laid[column] = max(min(widths[column], width - start - rest), narrowest)
        groups[-1].append(column)
        end = start + laid[column]
    return groups, laid


def _format_row(cells: Sequence[str], widths: Sequence[int], lead: str) -> str:
    return lead + COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _truncate(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"


def truncate_start(text: str, width: int) -> str:
    """The end of a text that is too long: of the name of a file that is what tells it from its neighbours."""
    return text if len(text) <= width else f"…{text[len(text) - max(width - 1, 1) :]}"


def wrap_text(text: str, *, first_indent: str, next_indent: str, width: int | None) -> str:
    """A sentence behind `first`, its further lines behind `then`; words, and so commands and ids, stay whole."""
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
