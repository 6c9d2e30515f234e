"""Counted nouns, sizes and time spans for messages."""

from __future__ import annotations

from datetime import timedelta


def format_count(count: int, noun: str, plural: str = "") -> str:
    """Format a number and its noun: `1 file`, `2 files`, `12,345 files`. `plural`: if it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def format_file_count(count: int) -> str:
    """Format a number of files."""
    return format_count(count, "file")


def format_size(count: float) -> str:
    """Format a number of bytes in decimal units: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_age(age: timedelta) -> str:
    """Format a time span in its largest one or two units: `3 d 4 h`, `25 min`, `40 s`."""
    seconds = max(0, round(age.total_seconds()))
    for size, unit, smaller, smaller_unit in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size:,} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"
