"""Readers of the values of a fleet file: each returns the parsed value.

They raise ValueError or UsageError with a sentence for a person. Texts that the command line parses are parsed by the
same functions here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from tilesync.api.locations import parse_imodel_id, parse_itwin_id
from tilesync.core.option_values import parse_duration, parse_rate, parse_time_of_day
from tilesync.fleets.file.settings import SecretReference
from tilesync.runtime.subprocess import split_command

Reader = Callable[[Any], Any]

REFERENCE_HINT: Final = "refer to it by { env = ... }, { file = ... } or { command = ... }"

_URL_START: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CONTROL_CHAR: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def read_text(value: Any) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise ValueError(f"{_show(value)} is not a text: write it in quotes")
    return value


def read_required_text(value: Any) -> str:
    """Read a text that is not empty."""
    if not read_text(value).strip():
        raise ValueError("it is empty")
    return str(value)


def read_name(value: Any) -> str:
    """Read a name: a text in one line."""
    if _CONTROL_CHAR.search(read_required_text(value)):
        raise ValueError("it has a line break or a control character: write it in one line")
    return str(value).strip()


def read_flag(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{_show(value)} is neither true nor false")
    return value


def read_texts(value: Any) -> tuple[str, ...]:
    """Read a list of texts; a single text is a list of one."""
    values = value if isinstance(value, list) else [value]
    return tuple(map(read_required_text, values))


def read_number(value: Any, *, most: int) -> int:
    """Read a whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{_show(value)} is not a number from 1 to {most:,}")
    return value


def read_written(parse: Callable[[str], Any], value: Any) -> Any:
    """Read a value that may be a number or a text, by the parser of the command line."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{_show(value)} is neither a text nor a number")
    return parse(str(value))


read_duration: Final = partial(read_written, parse_duration)
read_rate: Final = partial(read_written, parse_rate)


def read_time_of_day(value: Any) -> time:
    """Read a local time of day: `06:00`, or a time of TOML."""
    return value if isinstance(value, time) else parse_time_of_day(str(value))


def read_choice(choices: tuple[str, ...], value: Any) -> str:
    """Read one of these texts."""
    if value not in choices:
        raise ValueError(f"{_show(value)} is not one of {', '.join(choices)}")
    return str(value)


def read_command(value: Any) -> str:
    """Read a command, which runs without a shell. Raises UsageError if its quotes are wrong."""
    split_command(read_required_text(value), "this key")
    return str(value)


def read_optional_command(value: Any) -> str:
    """Read a command; an empty text is none, as on the command line."""
    return read_command(value) if read_text(value).strip() else ""


def read_path(folder: Path, value: Any) -> Path:
    """Read a local path; a relative one starts at `folder`."""
    text = read_required_text(value)
    if _URL_START.match(text):
        raise ValueError("this must be a local path, not a URL")
    if text.strip() == "-":
        raise ValueError("- is not accepted as a path")
    refuse_tilde(text, folder)
    return folder / text


def refuse_tilde(text: str, folder: Path) -> None:
    """Raise ValueError for a path that begins with `~`, which only a shell replaces; not if `folder` has such a folder.

    It would name another folder for each user that runs the file.
    """
    first = Path(text).parts[:1]
    if text.startswith("~") and not os.path.lexists(folder / first[0]):
        raise ValueError(f"the ~ of {text} is not expanded: write the whole path, here {os.path.expanduser(text)}")


def read_reference(folder: Path, value: Any) -> SecretReference:
    """Read a reference to a secret. Raises ValueError for a text, which is not shown."""
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= {"env", "file", "command"}:
        raise ValueError(REFERENCE_HINT)
    kind, text = next(iter(value.items()))
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{kind} must be a text that is not empty")
    if kind == "env":
        if "=" in text or "\0" in text:
            raise ValueError("env must be the name of a variable")
        return SecretReference(env=text)
    return (
        SecretReference(file=read_path(folder, text)) if kind == "file" else SecretReference(command=read_command(text))
    )


def read_ping(folder: Path, value: Any) -> str | SecretReference:
    """Read the URL to ping, or a reference to it."""
    if isinstance(value, dict):
        return read_reference(folder, value)
    from tilesync.monitoring.ping import check_ping_url  # its import has an effect: see `cli.main._exit_process`

    check_ping_url(read_required_text(value).strip())
    return str(value).strip()


def read_dests(folder: Path, value: Any) -> tuple[str | SecretReference, ...]:
    """Read the destination, or a list of several."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError("the list is empty")
    return tuple(_read_dest(folder, each) for each in values)


def _read_dest(folder: Path, value: Any) -> str | SecretReference:
    if isinstance(value, dict):
        return read_reference(folder, value)
    refuse_tilde(read_required_text(value), folder)
    return str(value)


def read_source(folder: Path, value: Any) -> str | SecretReference:
    """Read the source: a reference to a container link, or an existing mirror. A relative path starts at `folder`."""
    if isinstance(value, dict):
        return read_reference(folder, value)
    text = read_required_text(value)
    if text.startswith(("az:", "s3:")):
        return text
    if "://" in text or any(sign in text for sign in "?&="):
        raise ValueError(
            "a container link is a secret: refer to it by { env = ... }, { file = ... } or { command = ... }"
        )
    refuse_tilde(text, folder)
    return str(folder / text)


def read_imodel(value: Any) -> str:
    """Read the id of an iModel, or the URL of a portal that has it."""
    return parse_imodel_id(read_required_text(value)).lower()


def read_itwin(value: Any) -> str:
    """Read the id of an iTwin, or the URL of a portal that has it."""
    return parse_itwin_id(read_required_text(value)).lower()


def _show(value: Any) -> str:
    """Return a value for a message; of a list or table only its kind."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)
