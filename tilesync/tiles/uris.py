r"""URI resolution: find the blob of a container that a URI in a tileset, subtree or glTF names.

Resolves as viewers do: RFC 3986, section 5.2, plus the rules of browsers for http URLs (WHATWG URL, "basic URL
parser"): blanks at the ends and line breaks are dropped, `\` counts as `/`, `%2e` as a dot. A URI is untrusted input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from tilesync.core.safe_names import MAX_SEGMENT_BYTES, find_universal_problem

ARCHIVE_SUFFIX: Final = ".3tz"
"""Suffix of the name of a 3TZ archive, in lower case.

The suffix is case-sensitive, as in the regular expression of MAXAR_content_3tz: `A.3TZ/x` is a file in a folder. If
several segments have the suffix, the last one is the archive, as in that expression. Unlike there, the suffix must end
a segment, so `a.3tz.json` is no archive.
"""

_SEGMENT = r"[A-Za-z0-9_~=@+-]++(?>\.[A-Za-z0-9_~=@+-]++)*+"
_PLAIN_PATH = re.compile(f"{_SEGMENT}(?>/{_SEGMENT})*+")
_URI_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?:[/\\]{2}([^/\\?#]*))?([^?#]*)(\??)")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[\w.-]{1,253})(?::([0-9]{0,5}))?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_BLANK = "".join(map(chr, range(0x21)))
_LINE_BREAKS = re.compile(r"[\t\r\n]+")
_DOT_SEGMENTS = frozenset({".", "%2e"})
_PARENT_SEGMENTS = frozenset({"..", ".%2e", "%2e.", "%2e%2e"})
_CLIMBS_REASON = "climbs out of the container"
_MAX_SHOWN_CHARS = 200
_USER_INFO = re.compile(r"[/\\]{2}[^/\\?#]*@")
_Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class ResolvedUri:
    """A URI that names the blob `name`, decoded once, without query and fragment.

    The destination may be unable to store that name: that is checked elsewhere. `has_query`: the URI has a query, which
    a folder ignores. `is_absolute`: the URI depends on the location of the container (a URL, a leading `/`, or `..` out
    of it and back in), so viewers of a copy do not find the blob in the copy. `archive_path`: path of a file inside the
    3TZ archive `name`. It is only looked up and never written, so its safety is not checked.
    """

    name: str
    has_query: bool = False
    is_absolute: bool = False
    archive_path: str = ""


@dataclass(frozen=True, slots=True)
class RejectedUri:
    """A URI that names no blob to mirror. `reason` ends a sentence that begins with the URI; it never has the query.

    `has_unsafe_name`: it names a blob of the container with a name that no destination can store.
    """

    reason: str
    has_unsafe_name: bool = False


def resolve(uri: str, base: str, container_url: str) -> ResolvedUri | RejectedUri | None:
    """Resolve `uri` in the document with the blob name `base`; None when it names no file (empty, or `data:`).

    For a document in a 3TZ, `base` is `ARCHIVE/PATH`. `container_url` is the bare URL of the container, or "" if
    unknown: then every absolute URI counts as outside. Never raises; takes linear time.
    """
    name = base[: base.rfind("/") + 1] + uri
    if is_plain_path(name):  # nearly every URI
        return ResolvedUri(name)
    return _resolve_any(_strip_blanks(uri), base, container_url)


def is_plain_path(uri: str) -> bool:
    """Return whether a URI is a relative path with nothing to decode, no dot segment, no archive and no unsafe name.

    This is fast, and true for nearly every URI in a tileset. Other URIs may be relative paths too.
    """
    return len(uri) <= MAX_SEGMENT_BYTES and ARCHIVE_SUFFIX not in uri and _PLAIN_PATH.fullmatch(uri) is not None


def is_relative_path(uri: str) -> bool:
    """Return whether a URI is a relative-path reference (RFC 3986, section 4.2) that names a file.

    Blanks around the URI are ignored. A caller that adds a prefix must strip them first, or they end up in the middle.
    """
    scheme, authority, path, _ = _split_uri(_strip_blanks(uri))
    return not scheme and authority is None and path[:1] not in {"", "/"}


def redact_uri(uri: str) -> str:
    """Make a URI safe to print: drop the query and the user name, which may be secrets, and unprintable characters."""
    text = _USER_INFO.sub("//", uri.partition("?")[0].strip(), count=1)
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:_MAX_SHOWN_CHARS])
    return shown if len(text) <= _MAX_SHOWN_CHARS else f"{shown}…"


def _strip_blanks(uri: str) -> str:
    return _LINE_BREAKS.sub("", uri.strip(_BLANK))


def _split_uri(uri: str) -> tuple[str, str | None, str, bool]:
    """Split into scheme, authority, path and whether there is a query (RFC 3986, appendix B)."""
    match = _URI_PARTS.match(uri)
    assert match is not None, "the expression matches every text"
    scheme, authority, path, query = match.groups()
    return (scheme or "").lower(), authority, path.replace("\\", "/"), bool(query)


def _resolve_any(uri: str, base: str, container_url: str) -> ResolvedUri | RejectedUri | None:
    scheme, authority, path, query = _split_uri(uri)
    if not uri or scheme == "data":
        return None
    own, root = _parse_container_url(container_url)
    absolute = bool(scheme) or authority is not None or path.startswith("/")
    if absolute:
        if reason := _explain_foreign_origin(scheme, authority, own):
            return RejectedUri(reason)
        path, went_above = _remove_dot_segments(path, 0)
    else:
        document = quote(base, errors="surrogatepass")
        relative = document[: document.rfind("/") + 1] + path if path else document
        path, went_above = _remove_dot_segments(f"{root}/{relative}", root.count("/"))
    try:
        path, root = unquote_to_bytes(path).decode(), unquote(root)
    except UnicodeError:
        return RejectedUri("is not UTF-8", has_unsafe_name=not absolute)
    if (went_above and not own) or not f"{path}/".startswith(f"{root}/"):
        return RejectedUri("leads out of the container, on the same host" if absolute else _CLIMBS_REASON)
    return _classify_name(path[len(root) + 1 :], has_query=query, is_absolute=absolute or went_above)


def _parse_container_url(container_url: str) -> tuple[_Origin | None, str]:
    scheme, authority, path, _ = _split_uri(container_url)
    own = _parse_origin(scheme, authority or "")
    return own, path.rstrip("/") if own else ""


def _parse_origin(scheme: str, authority: str) -> _Origin | None:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or scheme not in _DEFAULT_PORTS:
        return None
    return scheme, match[1].lower(), int(match[2] or _DEFAULT_PORTS[scheme])


def _explain_foreign_origin(scheme: str, authority: str | None, own: _Origin | None) -> str | None:
    """Explain why an absolute URI leads to another origin than `own`; None when it does not.

    http and https of one host are two origins (RFC 6454): they may serve different files, and browsers block http
    content on https pages. If such a URI does lead to a blob of the container, the listing has that blob anyway.
    """
    if scheme and scheme not in _DEFAULT_PORTS:
        return f"has the scheme {scheme}" if len(scheme) < 40 else "has an unknown scheme"
    if not scheme and authority is None:
        return None if own else "begins with a slash, and the address of the container is unknown"
    if "@" in (authority := (authority or "").lower()):
        return "carries a user name"
    target = _parse_origin(scheme or (own[0] if own else "https"), authority)
    if target is None:
        return "names no valid host"
    if own is None:
        return f"leads to a host ({authority}), and the address of the container is unknown"
    if target[1] == own[1] and target[0] != own[0]:
        return f"leads to the container's host by {target[0]}, not {own[0]}"
    return None if target == own else f"leads to another host ({authority})"


def _remove_dot_segments(path: str, floor: int) -> tuple[str, bool]:
    """Remove dot segments (RFC 3986, section 5.2.4); return whether `..` removed one of the first `floor` segments."""
    kept: list[str] = []
    went_above = False
    last = ""
    for segment in path.removeprefix("/").split("/"):
        last = segment.lower()
        if last in _PARENT_SEGMENTS:
            went_above = went_above or len(kept) <= floor
            del kept[-1:]
        elif last not in _DOT_SEGMENTS:
            kept.append(segment)
    if last in _PARENT_SEGMENTS or last in _DOT_SEGMENTS:
        kept.append("")
    return "/" + "/".join(kept), went_above


def _classify_name(name: str, *, has_query: bool, is_absolute: bool) -> ResolvedUri | RejectedUri:
    if ".." in name.split("/"):  # decoded from %2F..%2F
        return RejectedUri(_CLIMBS_REASON)
    stem, _, rest = f"{name}/".rpartition(f"{ARCHIVE_SUFFIX}/")
    inner = rest[:-1].lstrip("/") if stem else ""
    name = stem + ARCHIVE_SUFFIX if stem else name
    if not name or name.endswith("/") or inner.endswith("/"):
        return RejectedUri("names a folder")
    if reason := find_universal_problem(name):
        return RejectedUri(
            f"names a blob that no folder can hold (its name is unsafe: it {reason})", has_unsafe_name=True
        )
    return ResolvedUri(name, has_query, is_absolute, inner)
