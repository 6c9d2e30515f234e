"""Parameter types of the command line, and text of sizes, paths and errors for people."""

from __future__ import annotations

import os
import re
from datetime import time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tilesync.core.option_values import parse_count_or_word, parse_duration, parse_rate, parse_size, parse_time_of_day
from tilesync.core.wording import format_size as format_size
from tilesync.errors import TilesyncError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from tilesync.api.locations import Location
    from tilesync.core.guards import DeleteLimit


def refuse_unexpanded_tilde(text: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
    """Raise a usage error for a path with an unexpanded `~`, which would create a folder of that name.

    If such a folder exists, the path is accepted.
    """
    first = Path(text).parts[:1]
    if not text.startswith("~") or os.path.lexists(first[0]):
        return
    rest, expanded = "/".join(Path(text).parts[1:]), os.path.expanduser(text)
    advice = f"write $HOME/{rest}" + (f", here {expanded}" if expanded != text else "")
    if first[0] != "~":
        advice = "write the whole path" + (f", here {expanded}" if expanded != text else "")
    raise click.BadParameter(
        f"the ~ of {text} was not expanded: a shell expands it only if it is not quoted, and never in an environment"
        f" file; {advice} (for a folder named ~ write ./{text})",
        ctx,
        param,
    )


def refuse_lost_folder(text: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
    """Raise a usage error for a relative path if the working directory was deleted: nothing can be there."""
    if not text.strip() or os.path.isabs(text):
        return
    try:
        os.getcwd()
    except OSError as error:
        raise click.BadParameter(
            f"the working directory cannot be used ({error.strerror}): go to another one, or write the whole path of"
            f" {text}",
            ctx,
            param,
        ) from None


def complete_path(incomplete: str, *, only_folders: bool) -> list[CompletionItem]:
    """Return the completion of a path: the shell itself completes local files or folders."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir" if only_folders else "file")]


class SourceType(click.ParamType[str]):
    """Parameter type of SOURCE: an iModel id, a link or an existing mirror; refuses an empty text."""

    name = "source"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text unchanged. An empty text is a usage error: an unset variable of a script gives one."""
        text = str(value)
        if not text.strip():
            self.fail("it is empty; check whether a variable of your script is not set", param, ctx)
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete local folders."""
        return complete_path(incomplete, only_folders=True)


class FolderType(click.ParamType[Path]):
    """Parameter type of a folder to write to; refuses an empty text."""

    name = "folder"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path. An empty text and a URL are usage errors."""
        path = FilePathType().convert(SourceType().convert(value, param, ctx), param, ctx)
        assert path is not None
        return path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete local folders."""
        return complete_path(incomplete, only_folders=True)


class DestinationType(click.ParamType["Location"]):
    """Parameter type of DEST: a folder, a container or a bucket."""

    name = "destination"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        """Return the location. An invalid one is a usage error, whose message never shows a possible signature."""
        if ctx is not None and ctx.resilient_parsing:
            return value  # type: ignore[no-any-return]  # completion only needs to know that it is there
        from tilesync.api.locations import is_folder, parse_dest

        endpoint = ctx.params.get("azure_endpoint") if ctx is not None else None
        location = parse_dest(value, endpoint if isinstance(endpoint, str) else None)  # click has a value for "unset"
        if is_folder(location):
            refuse_unexpanded_tilde(str(value), param, ctx)
            refuse_lost_folder(str(value), param, ctx)
        return location

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete local folders."""
        return complete_path(incomplete, only_folders=True)


def format_destination_path(location: Location, name: str) -> str:
    """Format the path or URL of a file at the top of a destination, for people."""
    from tilesync.api.locations import is_folder

    return str(Path(str(location)) / name) if is_folder(location) else f"{location}/{name}"


class FilePathType(click.ParamType[Path | None]):
    """Parameter type of a local path; an empty text is None. `is_folder`: shells complete only folders."""

    name = "path"

    def __init__(self, *, is_folder: bool = False) -> None:
        self._is_folder = is_folder

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path | None:
        """Return the path; None for an empty text, as from an unset variable of a script.

        A URL is a usage error; the message does not show it, since it may contain a signature. A dash is one too, since
        other programs read it as a standard stream.
        """
        text = str(value)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
            self.fail("this must be a local path, not a URL", param, ctx)
        if text.strip() == "-":
            self.fail(
                "- is not accepted as a path: write /dev/stdin for standard input, /dev/stdout for standard output",
                param,
                ctx,
            )
        refuse_unexpanded_tilde(text, param, ctx)
        refuse_lost_folder(text, param, ctx)
        return Path(text) if text.strip() else None

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete local files, or folders."""
        return complete_path(incomplete, only_folders=self._is_folder)


class DurationType(click.ParamType[timedelta]):
    """Parameter type of a duration: `90s`, `10m`, `1h`, `1h30m`; a number without a unit is seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration. An invalid text is a usage error."""
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TimeOfDayType(click.ParamType[time]):
    """Parameter type of a local time of day: `06:00`."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> time:
        """Return the time. An invalid text is a usage error."""
        if isinstance(value, time):
            return value
        try:
            return parse_time_of_day(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class RateType(click.ParamType[float | None]):
    """Parameter type of a rate in bytes per second: `500k`, `10M`, `1.5Mi`; `off` or an empty text is no limit."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Return the rate in bytes per second, at least 1000. An invalid text is a usage error."""
        if isinstance(value, float):
            return value
        try:
            return parse_rate(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SizeType(click.ParamType[int]):
    """Parameter type of a size in bytes: `256M`, `1.5Gi`."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the size in bytes. An invalid text is a usage error."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CountOrWordType(click.ParamType[int | None]):
    """Parameter type of a number from 1 to `max_count`, or a word (None)."""

    def __init__(self, word: str, *, max_count: int) -> None:
        self.name = f"N|{word}"
        self._word = word
        self._max_count = max_count

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number; None for the word. Any other text is a usage error."""
        try:
            return parse_count_or_word(str(value), self._word, max_count=self._max_count)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class DeleteLimitType(click.ParamType["DeleteLimit"]):
    """Parameter type of a maximum of deleted files: a number, or a percentage of the existing files."""

    name = "N|N%"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> DeleteLimit:
        """Return the limit. An invalid text is a usage error."""
        from tilesync.core.guards import DeleteLimit, parse_delete_limit

        if isinstance(value, DeleteLimit):
            return value
        try:
            return parse_delete_limit(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def replace_control_characters(text: str) -> str:
    """Replace control characters, since text of servers could control the terminal, or turn around what it shows.

    Keep line breaks and tabs.
    """
    return _CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text)


_CONTROL_CHARACTERS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those for the direction of text. Source: ECMA-48, C0 and C1; Unicode, Bidi_Control."""


def format_error(error: TilesyncError) -> str:
    """Format an error and its hint for people."""
    return f"error: {error}" + (f"\n  {error.hint}" if error.hint else "")
