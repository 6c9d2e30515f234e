"""Which blob names a folder can hold safely, on any of the systems that copies travel between.

A container is untrusted input: a name is judged before anything is written for it. Judged strictly everywhere, so that
an archive made on one system can be unpacked on the others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, count

from tilesync.errors import UsageError

SEGMENT_BYTES = 255
"""Longest file name of the usual file systems (ext4, XFS, APFS, NTFS), in bytes of UTF-8."""

_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WINDOWS = re.compile(r'[<>:"|?*]| (?:/|$)')
_SUSPECT = re.compile(
    r"(?:^|/)(?:\.{0,2}(?:/|$)|con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])|\.(?:/|$)|^.:|\\|[\x00-\x09\x0b-\x1f\x7f]",
    re.IGNORECASE | re.MULTILINE,
)
"""Of names one below the other; a line break within one is not seen by it."""


def plain(names: Sequence[str], *, path_bytes: int = 0) -> bool:
    """Whether a look at all of them together shows that each can be held, wherever; most names are so."""
    longest = min(SEGMENT_BYTES, path_bytes or SEGMENT_BYTES)
    together = "\n".join(names)
    return not names or (
        together.isascii()
        and together.count("\n") == len(names) - 1
        and max(map(len, names)) <= longest
        and not _SUSPECT.search(together)
    )


def problem(name: str, *, path_bytes: int = 0, windows: bool = False, ours: str = "") -> str | None:
    """Why `name` cannot be held, or None when it can.

    `path_bytes` is the longest relative path that fits below the version's folder, in bytes of UTF-8 (0: no limit).
    `ours` is the name of a folder there that is not for what a container has.
    `windows` adds what only Windows cannot store. Source: Microsoft, "Naming Files, Paths, and Namespaces".
    """
    size = len(name) if name.isascii() else len(name.encode(errors="surrogatepass"))
    if ours and name.partition("/")[0].casefold() == ours:
        return f"stands where tilesync keeps its state ({ours})"
    short = size <= SEGMENT_BYTES and not (path_bytes and size > path_bytes)
    if short and not windows and "\n" not in name and not _SUSPECT.search(name):
        return None
    return _explain(name, size, path_bytes, windows=windows)


def _explain(name: str, size: int, path_bytes: int, *, windows: bool) -> str | None:
    if not name:
        return "is empty"
    if "\0" in name:
        return "holds a NUL"
    if _CONTROL.search(name):
        return "holds a control character"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/"):
        return "is an absolute path"
    if _DRIVE.match(name):
        return "begins with a drive letter"
    if windows and _WINDOWS.search(name):
        return "holds a character that Windows cannot store"
    if path_bytes and size > path_bytes:
        return f"is longer than the {path_bytes} bytes that fit here"
    return next((reason for segment in name.split("/") if (reason := _segment(segment))), None)


def _segment(segment: str) -> str | None:
    if not segment:
        return "holds an empty folder name"
    if segment == "..":
        return "climbs out with '..'"
    if segment == ".":
        return "holds a '.' folder"
    if segment.endswith("."):
        return "holds a part that ends with a dot"
    if _DEVICE.fullmatch(segment):
        return "holds a Windows device name"
    if len(segment.encode(errors="surrogatepass")) > SEGMENT_BYTES:
        return f"holds a part longer than {SEGMENT_BYTES} bytes"
    return None


def folders(name: str) -> list[str]:
    """The folders that a name implies, outermost first: `a/b/c` implies `a` and `a/b`."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def folders_of(names: Iterable[str]) -> set[str]:
    """The folders that some names imply."""
    innermost = {name.rpartition("/")[0] for name in names} - {""}
    return innermost.union(*(folders(name) for name in innermost))


def version_name(text: str) -> str:
    """`text` as the name of a version: safe in a path and in a URL without any quoting."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:120].strip(".-")
    return name if name and not _DEVICE.fullmatch(name) else f"v-{name}"


def the_one(text: str, names: Collection[str]) -> str:
    """The name that a person means: itself, or the only one that begins so. Raises UsageError."""
    found = [text] if text in names else [name for name in names if text and name.startswith(text)]
    if len(found) != 1:
        what = "no version is" if not found else "more than one version begins with"
        raise UsageError(f"{what} {text!r}", hint="`tilesync versions DEST` shows them all")
    return found[0]


def next_version(export_id: str, taken: Collection[str]) -> str:
    """The name of a new version of an export: its id, then `-2`, `-3`, …; none that is taken."""
    stem = version_name(export_id)
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)
