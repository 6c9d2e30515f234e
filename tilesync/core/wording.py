"""Counted nouns for messages."""

from __future__ import annotations


def format_count(count: int, noun: str) -> str:
    """Format a number and its noun: `1 file`, `2 files`, `12,345 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_file_count(count: int) -> str:
    """Format a number of files."""
    return format_count(count, "file")
