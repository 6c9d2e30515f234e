"""Safety of blob names: which can be stored in object stores, in folders, and in folders on Windows.

A container is untrusted input, so each name is checked before anything is written. If only Windows cannot store a name,
other systems store it with a warning, because the files may be copied to Windows later.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, count, groupby
from operator import itemgetter
from typing import Final, TypeVar

from tilesync.errors import DestinationError, UnsafeName, UsageError
from tilesync.model import ROOT

T = TypeVar("T")

MAX_NAME_CHARS = 1024
"""Maximum characters of a blob name. Source: "Naming and Referencing Containers, Blobs, and Metadata"."""

CURRENT_VERSION: Final = "current"
"""Text for the version that the pointer names. No version has this name: names begin with the id of an export."""

_MAX_NAMES_IN_MESSAGE, _MAX_EXCLUDE_OPTIONS, _MAX_VERSIONS_IN_HINT = 20, 3, 8

MAX_SEGMENT_BYTES = 255
"""Longest file name of common file systems (ext4, XFS, APFS, NTFS), in bytes of UTF-8."""

_DEVICE_NAME = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\..*)?", re.IGNORECASE)
_CONTROL_CHAR = re.compile(r"[\x00-\x1f\x7f]")
_WINDOWS_FORBIDDEN = re.compile(r'[<>:"|?*]| (?:/|$)')
_WINDOWS_SUSPECTS = (
    *'<>:"|?*',
    " /",
    " \n",
    "./",
    ".\n",
    *(f"{lead}{word}" for lead in "/\n" for word in ("con", "prn", "aux", "nul", "com", "lpt")),
)
_DEVICE_NAME_IN_LINES = re.compile(r"[/\n](?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)[./\n]")
"""Device names in lower-case names joined by line breaks; also matches some harmless names."""
_SUSPECTS = ("//", "./", "\\", ":", "/con", "/prn", "/aux", "/nul", "/com", "/lpt")
"""Texts one of which is in every name with a suspect part, in lower case between slashes, if all of it is printable;
the search for them takes a tenth of the time of the pattern below, which finds fewer harmless names."""

_SUSPECT_IN_LINES = re.compile(
    r"(?:^|/)(?:\.{0,2}(?:/|$)|con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])|\.(?:/|$)|^.:|\\|[\x00-\x09\x0b-\x1f\x7f]",
    re.IGNORECASE | re.MULTILINE,
)
"""Suspect parts in names joined by line breaks. It does not detect a name that itself contains a line break."""


def are_all_safe(names: Sequence[str], *, path_bytes: int = 0) -> bool:
    """Return whether one quick check of all names together proves each of them safe.

    Names that only Windows cannot store may pass. False means that each name must be checked by itself.
    """
    longest = min(MAX_SEGMENT_BYTES, path_bytes or MAX_SEGMENT_BYTES)
    framed = f"/{'/'.join(names)}/"
    if framed.isascii() and framed.isprintable():
        lowered = framed.lower()
        if not any(suspect in lowered for suspect in _SUSPECTS):
            return max(map(len, names)) <= longest
    joined = "\n".join(names)
    return not names or (
        joined.isascii()
        and joined.count("\n") == len(names) - 1
        and max(map(len, names)) <= longest
        and not _SUSPECT_IN_LINES.search(joined)
    )


def find_problem(name: str, *, path_bytes: int = 0, windows: bool = False, reserved: str = "") -> str | None:
    """Return why a folder cannot store `name`, or None if it can.

    `path_bytes`: longest path that fits below the folder of the version, in bytes of UTF-8 (0: no limit). `reserved`:
    name of tilesync's own folder in that folder. `windows`: also check the rules that apply only on Windows. Source:
    Microsoft, "Naming Files, Paths, and Namespaces".
    """
    size = len(name) if name.isascii() else len(name.encode(errors="surrogatepass"))
    if reserved and name.partition("/")[0].casefold() == reserved:
        return f"is where tilesync keeps its state ({reserved})"
    has_short_path = size <= MAX_SEGMENT_BYTES and not (path_bytes and size > path_bytes)
    if has_short_path and not windows and "\n" not in name and not _SUSPECT_IN_LINES.search(name):
        return None
    return _explain_problem(name, size, path_bytes, windows=windows)


def _explain_problem(name: str, size: int, path_bytes: int, *, windows: bool) -> str | None:
    if problem := find_entry_problem(name):
        return problem
    if path_bytes and size > path_bytes:
        return f"is longer than the {path_bytes} bytes that fit here"
    segments = name.split("/")
    if "" in segments:
        return "has an empty folder name"
    if any(len(segment.encode(errors="surrogatepass")) > MAX_SEGMENT_BYTES for segment in segments):
        return f"has a part longer than {MAX_SEGMENT_BYTES} bytes"
    return _windows_problem(name, segments) if windows else None


def find_universal_problem(name: str) -> str | None:
    """Return why no destination can store `name`; None if one can.

    A file is useless if no URL can name it. Source: WHATWG URL, "path state": dot segments and control characters
    vanish, a backslash becomes a slash.
    """
    if not name:
        return "is empty"
    if "\0" in name:
        return "has a NUL"
    if _CONTROL_CHAR.search(name):
        return "has a control character"
    if "\\" in name:
        return "has a backslash"
    if len(name) > MAX_NAME_CHARS:
        return f"is longer than the {MAX_NAME_CHARS:,} characters that Azure allows"
    segments = name.split("/") if "." in name else ()
    if ".." in segments:
        return "leaves its folder with '..'"
    return "has a '.' folder" if "." in segments else None


def find_entry_problem(name: str) -> str | None:
    """Return why no package may have an entry of this name; None if one may. It is unpacked at its path."""
    return "is an absolute path" if name.startswith("/") else find_universal_problem(name)


def find_windows_unsafe(names: Sequence[str]) -> list[str]:
    """Return the names that only Windows cannot store. Source: Microsoft, "Naming Files, Paths, and Namespaces"."""
    joined = "\n".join(("", *names, "")).lower()
    suspects = {suspect for suspect in _WINDOWS_SUSPECTS if suspect in joined}
    if not suspects or (all(each[:1] in "/\n" for each in suspects) and not _DEVICE_NAME_IN_LINES.search(joined)):
        return []
    return [name for name in names if _windows_problem(name, name.split("/"))]


def _windows_problem(name: str, segments: Sequence[str]) -> str | None:
    if _WINDOWS_FORBIDDEN.search(name):
        return "has a character that Windows cannot store"
    if any(segment.endswith(".") for segment in segments):
        return "has a part that ends with a dot"
    return "has a Windows device name" if any(map(_DEVICE_NAME.fullmatch, segments)) else None


def raise_if_unsafe(bad: Sequence[tuple[str, str]], verdict: str, *, elsewhere: str = "") -> None:
    """Raise UnsafeName if there are bad names, each given with its reason.

    The message says "the container names files that `verdict`". `elsewhere` is added to the hint if another destination
    could store any of the names.
    """
    if bad:
        named = "; ".join(f"{quote_name(name)} {why}" for name, why in bad[:_MAX_NAMES_IN_MESSAGE])
        more = f"; and {len(bad) - _MAX_NAMES_IN_MESSAGE:,} more" if len(bad) > _MAX_NAMES_IN_MESSAGE else ""
        alternative = "" if all(find_universal_problem(name) for name, _ in bad) else elsewhere
        hint = f"none of these files was written; {make_exclude_hint([name for name, _ in bad])}{alternative}"
        raise UnsafeName(f"the container names files that {verdict}: {named}{more}", hint=hint)


def make_exclude_hint(names: Sequence[str]) -> str:
    """Return the part of a hint that tells how to exclude files."""
    options = " ".join(f"--exclude {shlex.quote(name)}" for name in names[:_MAX_EXCLUDE_OPTIONS] if _is_typable(name))
    more = " and so on" if len(names) > _MAX_EXCLUDE_OPTIONS else ""
    return f"leave {'it' if len(names) == 1 else 'them'} out with {options or '--exclude GLOB'}{more}"


def _is_typable(name: str) -> bool:
    """Return whether a name can be typed on a command line."""
    return len(name) <= MAX_NAME_CHARS and name.isprintable()


def raise_file_folder_clash(file: str, inside: str) -> None:
    """Raise UnsafeName for a blob whose name is also a folder of another blob."""
    # Never suggest to exclude the root tileset: without it no viewer can show anything.
    globs = [file, f"{file}/**"] if file != ROOT else [f"{file}/**"]
    options = ", or ".join(f"--exclude {shlex.quote(glob)}" for glob in globs)
    raise UnsafeName(
        f"the container has a name that is both a file and a folder: {file}, and {inside}; this destination can store"
        " only one of them",
        hint=f"leave one of them out: {options}; an object store can store both",
    )


def quote_name(name: str) -> str:
    """Quote a name for a message; cut a long one."""
    return repr(name) if len(name) <= MAX_SEGMENT_BYTES else f"{name[:MAX_SEGMENT_BYTES]!r}… ({len(name):,} characters)"


def list_parent_folders(name: str) -> list[str]:
    """Return the folders that a name implies, outermost first: `a/b/c` implies `a` and `a/b`."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def collect_folders(names: Iterable[str]) -> set[str]:
    """Return the folders that some names imply."""
    innermost = {name.rpartition("/")[0] for name in names} - {""}
    return innermost.union(*(list_parent_folders(name) for name in innermost))


def group_by_folder(items: Iterable[T], get_name: Callable[[T], str]) -> Iterator[tuple[str, Iterator[tuple[str, T]]]]:
    """Yield each folder with the consecutive items in it, and for each of these its name within the folder."""
    split = ((*get_name(item).rpartition("/")[::2], item) for item in items)
    for folder, inside in groupby(split, itemgetter(0)):
        yield folder, ((name, item) for _, name, item in inside)


def make_version_name(text: str) -> str:
    """Turn `text` into the name of a version: safe in paths and URLs without quoting."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:120].strip(".-")
    return name if name and not _DEVICE_NAME.fullmatch(name) else f"v-{name}"


def resolve_version_name(text: str, names: Collection[str], *, current: str | None) -> str:
    """Return the version that a person means: `current`, the exact name, or the only one with this prefix.

    `current`: the version that the pointer names. Raises UsageError if there is no such version or more than one;
    DestinationError if there is no current one.
    """
    if text == CURRENT_VERSION:
        return _check_current(current, names)
    found = [text] if text in names else [name for name in names if text and name.startswith(text)]
    if len(found) != 1:
        problem = "no version is named" if not found else "more than one version begins with"
        raise UsageError(f"{problem} {text!r}", hint=_list_versions_hint(found or names))
    return found[0]


def _check_current(current: str | None, names: Collection[str]) -> str:
    if current is None:
        raise DestinationError(
            "no version is published yet, so there is no current one",
            hint=f"name a version instead of `{CURRENT_VERSION}`: `tilesync versions DEST` shows all versions",
        )
    if current not in names:
        raise DestinationError(
            f"the destination is damaged: its latest.json names version {current}, whose manifest is missing",
            hint="run `tilesync mirror` again, or name another version: `tilesync versions DEST` shows all versions",
        )
    return current


def _list_versions_hint(names: Collection[str]) -> str:
    """Return the hint that lists the versions to choose from, if there are few."""
    command = "`tilesync versions DEST` shows all versions"
    if not names or len(names) > _MAX_VERSIONS_IN_HINT:
        return command
    return f"choose one of {', '.join(sorted(names))}; {command}"


def make_next_version_name(export_id: str, taken: Collection[str]) -> str:
    """Return the name of a new version of an export: its id, then `-2`, `-3`, …; the first one not taken."""
    stem = make_version_name(export_id)
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)
