"""Which files of an export are wanted: globs on their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from tilesync.errors import UsageError
from tilesync.model import ROOT, Globs

_GLOB_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|[^*?\[]+|\[")
_SET_SPECIAL_CHARS = re.compile(r"[\\\[^&~|]")
_WILDCARD_PATTERNS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def parse_globs(include: Iterable[str], exclude: Iterable[str]) -> Globs:
    """Globs that a person wrote, in one order. Raises UsageError for one that cannot be read."""
    made = Globs(tuple(sorted(set(include))), tuple(sorted(set(exclude))))
    for glob in (*made.include, *made.exclude):
        if not glob.strip("/"):
            raise UsageError("a glob is empty", hint="check --include and --exclude")
        try:
            _compile_globs((glob,))
        except re.error as error:
            raise UsageError(f"the glob {glob!r} cannot be read ({error})", hint="check --include, --exclude") from None
    return made


def narrow_globs(existing: Globs, requested: Globs) -> Globs:
    """The globs of what a command wants of files that were chosen by globs of their own: what those leave out stays
    out, and `given` chooses among the rest.
    """
    return Globs(requested.include or existing.include, tuple(sorted({*existing.exclude, *requested.exclude})))


def find_added_globs(existing: Globs, requested: Globs) -> Globs:
    """The globs that a command gave beyond those by which the files were chosen before."""
    new = (
        tuple(glob for glob in g if glob not in o)
        for o, g in zip(_include_and_exclude(existing), _include_and_exclude(requested), strict=True)
    )
    return Globs(*new)


def _include_and_exclude(globs: Globs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return globs.include, globs.exclude


def find_unmatched(globs: Globs, names: Iterable[str]) -> list[tuple[str, str]]:
    """The globs that match none of these names, each with its option. Reads no further than to the last first match."""
    left = [("--include", glob) for glob in globs.include] + [("--exclude", glob) for glob in globs.exclude]
    matchers = {each: _make_matcher(each[1:]) for each in left}
    for name in names:
        if hit := [each for each, matches in matchers.items() if matches(name)]:
            for each in hit:
                del matchers[each]
            if not matchers:
                break
    return list(matchers)


@lru_cache(maxsize=8)
def glob_matcher(globs: Globs) -> Callable[[str], bool]:
    """What says whether a name is wanted: one that `include` matches, or any where that is empty, unless `exclude`
    matches it. The root tileset always is.

    A glob with a slash is matched against the whole name, one without against its last part: `*` and `?` stop at
    slashes, `**` does not, `[…]` is one letter of a set. One that ends with a slash means all below it. Case counts.
    A glob also matches the very name that it is, whatever signs that has.
    """
    included, excluded = _make_matcher(globs.include), _make_matcher(globs.exclude)

    def keeps(name: str) -> bool:
        wanted = not globs.include or included(name)
        return name == ROOT or (wanted and not (globs.exclude and excluded(name)))

    return keeps


def _make_matcher(globs: tuple[str, ...]) -> Callable[[str], bool]:
    whole, names = _compile_globs(globs).fullmatch, frozenset(globs)
    return lambda name: whole(name) is not None or name in names


def _compile_globs(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_glob_pattern, globs)), re.DOTALL)


def _glob_pattern(glob: str) -> str:
    anywhere = "" if "/" in glob else "(?:.*/)?"
    glob += "**" if glob.endswith("/") else ""
    return anywhere + "".join(map(_token_pattern, _GLOB_TOKEN.findall(glob.removeprefix("/"))))


def _token_pattern(token: str) -> str:
    if token.startswith("[") and len(token) > 1:
        letters = _SET_SPECIAL_CHARS.sub(r"\\\g<0>", token[1:-1])
        return "(?!/)" + (f"[^{letters[1:]}]" if letters.startswith("!") else f"[{letters}]")
    return _WILDCARD_PATTERNS.get(token) or re.escape(token)
