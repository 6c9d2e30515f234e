"""Places of mirrors: destinations from templates, with names that every store can hold.

The rule for `{name}`, for display names are free text: Unicode is normalized (NFC). Each run of characters other than
letters with their marks, digits, `.`, `_` and `-` becomes one `-`. Leading and trailing `.` and `-` go. The name is cut
to 80 characters. A name that is empty then, or that Windows reserves for a device, becomes `imodel-` with the first
eight characters of the id.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from tilesync.core.safe_names import find_problem

MAX_NAME_CHARS: Final = 80

PLACEHOLDERS: Final = frozenset({"name", "imodel", "itwin"})

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}|[{}]")
_UNSAFE_RUN: Final = re.compile("-+")


def make_safe_name(name: str, imodel: str | None = None) -> str:
    """Return a display name as one segment of a path, by the rule of this module."""
    safe = _UNSAFE_RUN.sub("-", _mark_unsafe(unicodedata.normalize("NFC", name)))
    safe = safe.strip(".-")[:MAX_NAME_CHARS].strip(".-")
    if not safe or find_problem(safe, windows=True) is not None:
        return f"imodel-{imodel[:8]}" if imodel else "mirror"
    return safe


def _mark_unsafe(name: str) -> str:
    """Replace each unsafe character by `-`. A mark is safe behind a letter: Devanagari writes vowels as marks."""
    chars = list[str]()
    for char in name:
        is_mark = unicodedata.category(char)[0] == "M"
        is_behind_letter = bool(chars) and chars[-1] not in "._-"
        chars.append(char if char in "._" or char.isalnum() or (is_mark and is_behind_letter) else "-")
    return "".join(chars)


def list_placeholders(template: str) -> list[str]:
    """Return the placeholders of a template. Raises ValueError for an unknown one, or a single brace."""
    found = [match[1] for match in _PLACEHOLDER.finditer(template)]
    for placeholder in found:
        if placeholder not in PLACEHOLDERS:
            shown = "a single brace" if placeholder is None else f"{{{placeholder}}}"
            raise ValueError(f"{shown} is no placeholder: there are {{name}}, {{imodel}} and {{itwin}}")
    return found


def expand_template(template: str, *, name: str, imodel: str | None, itwin: str | None) -> str:
    """Replace the placeholders of a template; `name` is made safe."""
    values = {"name": make_safe_name(name, imodel), "imodel": imodel or "", "itwin": itwin or ""}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def find_shared_places(places: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield `(name, other name, place)` for each two mirrors that would share a place, or one within the other's.

    `places` are pairs of a name and a normalized place (`normalize_place`).
    """
    owners: dict[str, str] = {}
    for place, name in sorted((place, name) for name, place in places):
        for parent in _with_parents(place):
            if parent in owners:
                yield owners[parent], name, place
                break
        owners.setdefault(place, name)


def _with_parents(place: str) -> Iterator[str]:
    while place:
        yield place
        place = place.rpartition("/")[0]


def normalize_place(place: str, *, is_folder: bool) -> str:
    """Normalize a place for comparisons: the real path or a URL, without case, since some file systems have none."""
    text = os.path.realpath(place).replace(os.sep, "/") if is_folder else place.rstrip("/")
    return unicodedata.normalize("NFC", text).casefold()
