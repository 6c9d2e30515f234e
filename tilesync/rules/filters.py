"""Which files of an export are wanted: globs on their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tilesync.errors import UsageError
from tilesync.model import ROOT

_PARTS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|[^*?\[]+|\[")
_SET_SIGNS = re.compile(r"[\\\[^&~|]")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class Filter:
    """Keeps a name that one of `include` matches, or any where there are none, unless one of `exclude` matches it.

    The root tileset is always kept. A glob with a slash is matched against the whole name, one without against its last
    part: `*` and `?` stop at slashes, `**` does not, `[…]` is one letter of a set. Case counts.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def keeps(self, name: str) -> bool:
        """Whether a file is wanted."""
        if name == ROOT or not self:
            return True
        wanted = not self.include or self._included.fullmatch(name) is not None
        return wanted and (not self.exclude or self._excluded.fullmatch(name) is None)

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)

    @cached_property
    def _included(self) -> re.Pattern[str]:
        return _any_of(self.include)

    @cached_property
    def _excluded(self) -> re.Pattern[str]:
        return _any_of(self.exclude)

    def said(self) -> dict[str, list[str]]:
        """The globs as they are written down: what means the same is written the same."""
        said = {"include": sorted(set(self.include)), "exclude": sorted(set(self.exclude))}
        return {key: globs for key, globs in said.items() if globs}


def make_filter(include: tuple[str, ...], exclude: tuple[str, ...]) -> Filter:
    """A filter of globs that a person wrote. Raises UsageError for one that cannot be read."""
    made = Filter(include, exclude)
    for glob in (*include, *exclude):
        try:
            _any_of((glob,))
        except re.error as error:
            raise UsageError(f"the glob {glob!r} cannot be read ({error})", hint="check --include, --exclude") from None
        if not glob.strip("/"):
            raise UsageError("a glob is empty", hint="check --include and --exclude")
    return made


def read_filter(said: Any) -> Filter:
    """The filter that was written down. Raises AttributeError or TypeError for anything else."""
    return Filter(tuple(said.get("include", ())), tuple(said.get("exclude", ())))


def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_expression, globs)), re.DOTALL)


def _expression(glob: str) -> str:
    anywhere = "" if "/" in glob else "(?:.*/)?"
    return anywhere + "".join(map(_meaning, _PARTS.findall(glob.removeprefix("/"))))


def _meaning(part: str) -> str:
    if part.startswith("[") and len(part) > 1:
        letters = _SET_SIGNS.sub(r"\\\g<0>", part[1:-1])
        return f"[^{letters[1:]}]" if letters.startswith("!") else f"[{letters}]"
    return _MEANING.get(part) or re.escape(part)
