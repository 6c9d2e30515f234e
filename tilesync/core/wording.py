"""Counted nouns for messages."""

from __future__ import annotations


def format_count(count: int, noun: str, plural: str = "") -> str:
    """Format a number and its noun: `1 file`, `2 files`, `12,345 files`. `plural`: if it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def format_file_count(count: int) -> str:
    """Format a number of files."""
    return format_count(count, "file")
