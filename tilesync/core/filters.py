"""Which files of an export are wanted: globs on their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from tilesync.errors import UsageError
from tilesync.model import ROOT, Globs

_PARTS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|[^*?\[]+|\[")
_SET_SIGNS = re.compile(r"[\\\[^&~|]")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def globs(include: Iterable[str], exclude: Iterable[str]) -> Globs:
    """Globs that a person wrote, in one order. Raises UsageError for one that cannot be read."""
    made = Globs(tuple(sorted(set(include))), tuple(sorted(set(exclude))))
    for glob in (*made.include, *made.exclude):
        if not glob.strip("/"):
            raise UsageError("a glob is empty", hint="check --include and --exclude")
        try:
            _any_of((glob,))
        except re.error as error:
            raise UsageError(f"the glob {glob!r} cannot be read ({error})", hint="check --include, --exclude") from None
    return made


def narrowed(own: Globs, given: Globs) -> Globs:
    """The globs of what a command wants of files that were chosen by globs of their own: what those leave out stays
    out, and `given` chooses among the rest.
    """
    return Globs(given.include or own.include, tuple(sorted({*own.exclude, *given.exclude})))


def added(own: Globs, given: Globs) -> Globs:
    """The globs that a command gave beyond those by which the files were chosen before."""
    new = (tuple(glob for glob in g if glob not in o) for o, g in zip(_both(own), _both(given), strict=True))
    return Globs(*new)


def _both(of: Globs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return of.include, of.exclude


def unmatched(of: Globs, names: Iterable[str]) -> list[tuple[str, str]]:
    """The globs that match none of these names, each with its option. Reads no further than to the last first match."""
    left = [("--include", glob) for glob in of.include] + [("--exclude", glob) for glob in of.exclude]
    matchers = {each: _matcher(each[1:]) for each in left}
    for name in names:
        if hit := [each for each, matches in matchers.items() if matches(name)]:
            for each in hit:
                del matchers[each]
            if not matchers:
                break
    return list(matchers)


@lru_cache(maxsize=8)
def keeper(of: Globs) -> Callable[[str], bool]:
    """What says whether a name is wanted: one that `include` matches, or any where that is empty, unless `exclude`
    matches it. The root tileset always is.

    A glob with a slash is matched against the whole name, one without against its last part: `*` and `?` stop at
    slashes, `**` does not, `[…]` is one letter of a set. One that ends with a slash means all below it. Case counts.
    A glob also matches the very name that it is, whatever signs that has.
    """
    included, excluded = _matcher(of.include), _matcher(of.exclude)

    def keeps(name: str) -> bool:
        wanted = not of.include or included(name)
        return name == ROOT or (wanted and not (of.exclude and excluded(name)))

    return keeps


def _matcher(some: tuple[str, ...]) -> Callable[[str], bool]:
    whole, names = _any_of(some).fullmatch, frozenset(some)
    return lambda name: whole(name) is not None or name in names


def _any_of(some: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_expression, some)), re.DOTALL)


def _expression(glob: str) -> str:
    anywhere = "" if "/" in glob else "(?:.*/)?"
    glob += "**" if glob.endswith("/") else ""
    return anywhere + "".join(map(_meaning, _PARTS.findall(glob.removeprefix("/"))))


def _meaning(part: str) -> str:
    if part.startswith("[") and len(part) > 1:
        letters = _SET_SIGNS.sub(r"\\\g<0>", part[1:-1])
        return "(?!/)" + (f"[^{letters[1:]}]" if letters.startswith("!") else f"[{letters}]")
    return _MEANING.get(part) or re.escape(part)
