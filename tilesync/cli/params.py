"""Numbers and times as people read and write them."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from tilesync.core.guards import DeleteLimit
from tilesync.errors import TilesyncError
from tilesync.model.storage import AzureLocation, S3Location

Location = Path | AzureLocation | S3Location

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_COUNT = re.compile(r"[0-9]{1,12}")
_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(?:([kKmMgG])(i)?)?B?(?:/s)?")
_MIN_RATE_BYTES_PER_S = 1000
_LIMIT = re.compile(r"(\d{1,12}(?:\.\d+)?)\s*(%)?")

_MAX_DURATION = timedelta(days=36_500)
"""Longer than any wait or history; a calendar does not go back for ever."""


def format_size(count: float) -> str:
    """Bytes in decimal units: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def refuse_unexpanded_tilde(text: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
    """Raise a usage error for a path that begins with a `~` which nobody expanded: it would be a folder of that name.
    One that is there is meant.
    """
    first = Path(text).parts[:1]
    if not text.startswith("~") or os.path.lexists(first[0]):
        return
    rest, whole = "/".join(Path(text).parts[1:]), os.path.expanduser(text)
    instead = f"write $HOME/{rest}" + (f", here {whole}" if whole != text else "")
    if first[0] != "~":
        instead = "write the whole path" + (f", here {whole}" if whole != text else "")
    raise click.BadParameter(
        f"the ~ of {text} was not expanded: a shell does that only where it stands unquoted, an environment file never"
        f" does; {instead} (./{text} is a folder of that name)",
        ctx,
        param,
    )


class SourceType(click.ParamType[str]):
    """An iModel id, a link, or a place that is read; never an empty text, which an unset variable of a script gives."""

    name = "source"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it was given. An empty one is a usage error."""
        text = str(value)
        if not text.strip():
            self.fail("it is empty: an unset variable of a script?", param, ctx)
        return text


class FolderType(click.ParamType[Path]):
    """A folder to write to; never an empty text."""

    name = "folder"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. An empty text is a usage error, and so is what is none."""
        path = FilePathType().convert(SourceType().convert(value, param, ctx), param, ctx)
        assert path is not None
        return path


class DestinationType(click.ParamType[Location]):
    """A place to mirror into: a folder, a container, a bucket."""

    name = "destination"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        """The place. What is none is a usage error, and shown without what may be a signature."""
        from time import monotonic

        from tilesync.api.inputs import parse_location

        if isinstance(value, Path | AzureLocation | S3Location):
            return value
        text = str(value)
        if not text.strip():
            self.fail("it is empty: name the folder, container or bucket to mirror into", param, ctx)
        endpoint = ctx.params.get("azure_endpoint") if ctx is not None else None
        place = parse_location(
            text, endpoint=endpoint if isinstance(endpoint, str) and endpoint else None, fetched=monotonic()
        )
        if place is None and ("?sig=" in text or "&sig=" in text):
            self.fail("that is no folder, but a link that is not whole: it begins with https://", param, ctx)
        if place is None:
            refuse_unexpanded_tilde(text, param, ctx)
        return place or Path(text)


def format_destination_path(location: Location, name: str) -> str:
    """How a person names a file at the top of a destination."""
    return str(location / name) if isinstance(location, Path) else f"{location}/{name}"


class FilePathType(click.ParamType[Path | None]):
    """A path; an empty text is none."""

    name = "path"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path | None:
        """The path, None for an empty text: the variable of a script may be unset. A URL is a usage error, and not
        shown, since it may carry a signature; so is a dash, which other programs take
        for a standard stream.
        """
        text = str(value)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
            self.fail("this must be a path of this machine, not a URL", param, ctx)
        if text.strip() == "-":
            self.fail("a dash is no path here: standard input is /dev/stdin, standard output /dev/stdout", param, ctx)
        refuse_unexpanded_tilde(text, param, ctx)
        return Path(text) if text.strip() else None


class DurationType(click.ParamType[timedelta]):
    """A span of time: `90s`, `10m`, `1h`, `1h30m`; a bare number is seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The span. A text that is none is a usage error."""
        if isinstance(value, timedelta):
            return value
        match = _DURATION.fullmatch(str(value).strip())
        if not match or not any(match.groups()):
            self.fail(f"{value!r} is no duration: write 90s, 10m or 1h", param, ctx)
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        span = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if span > _MAX_DURATION.total_seconds():
            self.fail(f"{value!r} is longer than a hundred years", param, ctx)
        return timedelta(seconds=span)


class RateType(click.ParamType[float | None]):
    """Bytes a second: `500k`, `10M`, `1.5Mi`; `off` and an empty text are no limit."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """The rate, at least a thousand bytes a second. A text that is none is a usage error."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        if text.lower() in {"", "off"}:
            return None
        match = _RATE.fullmatch(text)
        if match is None:
            self.fail(f"{value!r} is no rate: write bytes a second as 500k, 10M or 1.5Mi", param, ctx)
        rate: float = float(match[1]) * (1024.0 if match[3] else 1000.0) ** " kmg".index((match[2] or " ").lower())
        if rate < _MIN_RATE_BYTES_PER_S:
            self.fail(
                f"{value!r} is less than {_MIN_RATE_BYTES_PER_S} bytes a second; write 10M for ten million", param, ctx
            )
        return rate


class CountOrWordType(click.ParamType[int | None]):
    """A number from 1 to `most`, or a word (None)."""

    def __init__(self, word: str, *, max_count: int) -> None:
        self.name = f"N|{word}"
        self._word = word
        self._max_count = max_count

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """The number; None for the word. A text that is neither is a usage error."""
        text = str(value).strip().lower()
        if text == self._word:
            return None
        if not _COUNT.fullmatch(text) or not 1 <= int(text) <= self._max_count:
            self.fail(f"{value!r} is neither '{self._word}' nor a number from 1 to {self._max_count:,}", param, ctx)
        return int(text)


class DeleteLimitType(click.ParamType[DeleteLimit]):
    """How many files at most: a number, or a share of those that are there."""

    name = "N|N%"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> DeleteLimit:
        """The limit. A text that is none is a usage error."""
        if isinstance(value, DeleteLimit):
            return value
        match = _LIMIT.fullmatch(str(value).strip())
        if not match or (match[2] and float(match[1]) > 100):
            self.fail(f"{value!r} is neither a number of files nor a share of them: write 100 or 5%", param, ctx)
        if not match[2] and "." in match[1]:
            self.fail(f"{value!r} is no whole number of files", param, ctx)
        return DeleteLimit(percent=float(match[1])) if match[2] else DeleteLimit(int(match[1]))


def replace_control_characters(text: str) -> str:
    """A text without what would steer a terminal: others wrote some of it. Line breaks and tabs stay."""
    return _CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text)


_CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters. Source: ECMA-48, C0 and C1."""


def format_error(error: TilesyncError) -> str:
    """An error and what to do about it."""
    return f"error: {error}" + (f"\n  {error.hint}" if error.hint else "")
