"""Which blob names can be held: nowhere, in an object store alone, in a folder, in a folder of Windows too.

A container is untrusted input: a name is judged before anything is written for it. What Windows alone cannot hold is
held elsewhere, with a warning: an archive made on one system may have to be unpacked on another.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, count

from tilesync.errors import UnsafeName, UsageError
from tilesync.model import ROOT

MAX_NAME_CHARS = 1024
"""Characters of a blob's name at most. Source: "Naming and Referencing Containers, Blobs, and Metadata"."""

_MAX_NAMES_IN_MESSAGE, _MAX_EXCLUDE_OPTIONS = 20, 3

MAX_SEGMENT_BYTES = 255
"""Longest file name of the usual file systems (ext4, XFS, APFS, NTFS), in bytes of UTF-8."""

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
"""In names one below the other, in lower case: what those have that Windows cannot hold, and perhaps others too."""
_SUSPECT_IN_LINES = re.compile(
    r"(?:^|/)(?:\.{0,2}(?:/|$)|con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])|\.(?:/|$)|^.:|\\|[\x00-\x09\x0b-\x1f\x7f]",
    re.IGNORECASE | re.MULTILINE,
)
"""Of names one below the other; a line break within one is not seen by it."""


def are_all_safe(names: Sequence[str], *, path_bytes: int = 0) -> bool:
    """Whether a look at all of them together shows that each can be held, wherever, but for what Windows cannot store
    and others can; most names are so.
    """
    longest = min(MAX_SEGMENT_BYTES, path_bytes or MAX_SEGMENT_BYTES)
    together = "\n".join(names)
    return not names or (
        together.isascii()
        and together.count("\n") == len(names) - 1
        and max(map(len, names)) <= longest
        and not _SUSPECT_IN_LINES.search(together)
    )


def find_problem(name: str, *, path_bytes: int = 0, windows: bool = False, reserved: str = "") -> str | None:
    """Why a folder cannot hold `name`, or None when it can.

    `path_bytes` is the longest relative path that fits below the version's folder, in bytes of UTF-8 (0: no limit).
    `ours` is the name of a folder there that is not for what a container has.
    `windows` adds what only Windows cannot store. Source: Microsoft, "Naming Files, Paths, and Namespaces".
    """
    size = len(name) if name.isascii() else len(name.encode(errors="surrogatepass"))
    if reserved and name.partition("/")[0].casefold() == reserved:
        return f"stands where tilesync keeps its state ({reserved})"
    short = size <= MAX_SEGMENT_BYTES and not (path_bytes and size > path_bytes)
    if short and not windows and "\n" not in name and not _SUSPECT_IN_LINES.search(name):
        return None
    return _explain_problem(name, size, path_bytes, windows=windows)


def _explain_problem(name: str, size: int, path_bytes: int, *, windows: bool) -> str | None:
    if why := find_universal_problem(name):
        return why
    if name.startswith("/"):
        return "is an absolute path"
    if path_bytes and size > path_bytes:
        return f"is longer than the {path_bytes} bytes that fit here"
    segments = name.split("/")
    if "" in segments:
        return "holds an empty folder name"
    if any(len(segment.encode(errors="surrogatepass")) > MAX_SEGMENT_BYTES for segment in segments):
        return f"holds a part longer than {MAX_SEGMENT_BYTES} bytes"
    return _windows_problem(name, segments) if windows else None


def find_universal_problem(name: str) -> str | None:
    """Why no place can hold `name`, since nobody can ask for it there as it is written; None when one can.

    Source: WHATWG URL, "path state": dot segments and control characters vanish, a backslash is a slash.
    """
    if not name:
        return "is empty"
    if "\0" in name:
        return "holds a NUL"
    if _CONTROL_CHAR.search(name):
        return "holds a control character"
    if "\\" in name:
        return "holds a backslash"
    if len(name) > MAX_NAME_CHARS:
        return f"is longer than the {MAX_NAME_CHARS:,} characters that Azure allows"
    segments = name.split("/") if "." in name else ()
    if ".." in segments:
        return "climbs out with '..'"
    return "holds a '.' folder" if "." in segments else None


def find_windows_unsafe(names: Sequence[str]) -> list[str]:
    """Those of some names that Windows alone cannot hold. Source: Microsoft, "Naming Files, Paths, and Namespaces"."""
    together = "\n".join(("", *names, "")).lower()
    signs = {sign for sign in _WINDOWS_SUSPECTS if sign in together}
    if not signs or (all(sign[:1] in "/\n" for sign in signs) and not _DEVICE_NAME_IN_LINES.search(together)):
        return []
    return [name for name in names if _windows_problem(name, name.split("/"))]


def _windows_problem(name: str, segments: Sequence[str]) -> str | None:
    if _WINDOWS_FORBIDDEN.search(name):
        return "holds a character that Windows cannot store"
    if any(segment.endswith(".") for segment in segments):
        return "holds a part that ends with a dot"
    return "holds a Windows device name" if any(map(_DEVICE_NAME.fullmatch, segments)) else None


def raise_if_unsafe(bad: Sequence[tuple[str, str]], where: str, *, elsewhere: str = "") -> None:
    """Raise UnsafeName for names with the reason of each, where there are any. `elsewhere` ends the hint, where another
    place could hold any of them.
    """
    if bad:
        named = "; ".join(f"{quote_name(name)} {why}" for name, why in bad[:_MAX_NAMES_IN_MESSAGE])
        more = f"; and {len(bad) - _MAX_NAMES_IN_MESSAGE:,} more" if len(bad) > _MAX_NAMES_IN_MESSAGE else ""
        way_out = "" if all(find_universal_problem(name) for name, _ in bad) else elsewhere
        hint = f"nothing of these was written; {make_exclude_hint([name for name, _ in bad])}{way_out}"
        raise UnsafeName(f"the container names files that {where}: {named}{more}", hint=hint)


def make_exclude_hint(names: Sequence[str]) -> str:
    """How to leave some files out, for a hint."""
    options = " ".join(f"--exclude {shlex.quote(name)}" for name in names[:_MAX_EXCLUDE_OPTIONS] if _is_typable(name))
    more = " and so on" if len(names) > _MAX_EXCLUDE_OPTIONS else ""
    return f"leave {'it' if len(names) == 1 else 'them'} out with {options or '--exclude GLOB'}{more}"


def _is_typable(name: str) -> bool:
    """Whether a person can write a name on a command line."""
    return len(name) <= MAX_NAME_CHARS and name.isprintable()


def raise_file_folder_clash(file: str, inside: str) -> None:
    """Raise UnsafeName for a blob that is a folder of another blob."""
    globs = [file, f"{file}/**"] if file != ROOT else [f"{file}/**"]  # without the root nothing can be shown
    options = ", or ".join(f"--exclude {shlex.quote(glob)}" for glob in globs)
    raise UnsafeName(
        f"the container has a name that is both a file and a folder: {file}, beside {inside}; this place can hold one"
        " of them",
        hint=f"leave one of them out: {options}; an object store can hold both",
    )


def quote_name(name: str) -> str:
    """A name for a message, cut where it is long."""
    return repr(name) if len(name) <= MAX_SEGMENT_BYTES else f"{name[:MAX_SEGMENT_BYTES]!r}… ({len(name):,} characters)"


def list_parent_folders(name: str) -> list[str]:
    """The folders that a name implies, outermost first: `a/b/c` implies `a` and `a/b`."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def collect_folders(names: Iterable[str]) -> set[str]:
    """The folders that some names imply."""
    innermost = {name.rpartition("/")[0] for name in names} - {""}
    return innermost.union(*(list_parent_folders(name) for name in innermost))


def make_version_name(text: str) -> str:
    """`text` as the name of a version: safe in a path and in a URL without any quoting."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:120].strip(".-")
    return name if name and not _DEVICE_NAME.fullmatch(name) else f"v-{name}"


def resolve_version_name(text: str, names: Collection[str]) -> str:
    """The name that a person means: itself, or the only one that begins so. Raises UsageError."""
    found = [text] if text in names else [name for name in names if text and name.startswith(text)]
    if len(found) != 1:
        what = "no version is" if not found else "more than one version begins with"
        raise UsageError(f"{what} {text!r}", hint="`tilesync versions DEST` shows them all")
    return found[0]


def make_next_version_name(export_id: str, taken: Collection[str]) -> str:
    """The name of a new version of an export: its id, then `-2`, `-3`, …; none that is taken."""
    stem = make_version_name(export_id)
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)
