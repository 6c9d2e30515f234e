"""Include and exclude filters: globs on the names of files."""

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
    """Parse globs that a person wrote into sorted, unique ones. Raises UsageError for an invalid glob."""
    globs = Globs(tuple(sorted(set(include))), tuple(sorted(set(exclude))))
    for glob in (*globs.include, *globs.exclude):
        if not glob.strip("/"):
            raise UsageError("a glob is empty", hint="remove the empty --include or --exclude")
        try:
            _compile_globs((glob,))
        except re.error as error:
            raise UsageError(
                f"the glob {glob!r} is invalid ({error})", hint="correct it in --include or --exclude"
            ) from None
    return globs


def narrow_globs(existing: Globs, requested: Globs) -> Globs:
    """Combine the globs of a command with those that chose the existing files.

    Files that the existing globs leave out stay out; `requested` chooses among the rest.
    """
    return Globs(requested.include or existing.include, tuple(sorted({*existing.exclude, *requested.exclude})))


def find_added_globs(existing: Globs, requested: Globs) -> Globs:
    """Return the globs that a command adds to the existing ones."""
    added = (
        tuple(glob for glob in new if glob not in old)
        for old, new in zip(_include_and_exclude(existing), _include_and_exclude(requested), strict=True)
    )
    return Globs(*added)


def _include_and_exclude(globs: Globs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return globs.include, globs.exclude


def find_unmatched(globs: Globs, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the globs that match none of `names`, each with its option.

    Stops reading as soon as every glob has a match.
    """
    options = [("--include", glob) for glob in globs.include] + [("--exclude", glob) for glob in globs.exclude]
    matchers = {each: make_matcher(each[1:]) for each in options}
    for name in names:
        if matched := [each for each, matches in matchers.items() if matches(name)]:
            for each in matched:
                del matchers[each]
            if not matchers:
                break
    return list(matchers)


@lru_cache(maxsize=8)
def glob_matcher(globs: Globs) -> Callable[[str], bool]:
    """Return a function that tells whether a name is wanted.

    Wanted is a name that `include` matches, or any name if `include` is empty, unless `exclude` matches it. The root
    tileset is always wanted.

    A glob with a slash is matched against the whole name, one without against the last segment. `*` and `?` stop at
    slashes, `**` does not, `[…]` is one character of a set. A glob that ends with a slash means everything below it.
    Case matters. A glob also matches the name that is equal to it, whatever special characters it has.
    """
    included, excluded = make_matcher(globs.include), make_matcher(globs.exclude)

    def is_wanted(name: str) -> bool:
        is_included = not globs.include or included(name)
        return name == ROOT or (is_included and not (globs.exclude and excluded(name)))

    return is_wanted


def make_matcher(globs: tuple[str, ...]) -> Callable[[str], bool]:
    """Return a function that tells whether any of the globs matches a name. Raises re.error for an invalid glob."""
    fullmatch, names = _compile_globs(globs).fullmatch, frozenset(globs)
    return lambda name: fullmatch(name) is not None or name in names


def _compile_globs(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_glob_pattern, globs)), re.DOTALL)


def _glob_pattern(glob: str) -> str:
    anywhere = "" if "/" in glob else "(?:.*/)?"
    glob += "**" if glob.endswith("/") else ""
    return anywhere + "".join(map(_token_pattern, _GLOB_TOKEN.findall(glob.removeprefix("/"))))


def _token_pattern(token: str) -> str:
    if token.startswith("[") and len(token) > 1:
        chars = _SET_SPECIAL_CHARS.sub(r"\\\g<0>", token[1:-1])
        return "(?!/)" + (f"[^{chars[1:]}]" if chars.startswith("!") else f"[{chars}]")
    return _WILDCARD_PATTERNS.get(token) or re.escape(token)
