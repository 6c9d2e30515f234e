r"""Which blob of a container a URI means, as a tileset, a subtree or a glTF holds it.

Resolved as viewers do it: RFC 3986, section 5.2, with what browsers add to it for http URLs (WHATWG URL, "basic URL
parser"): blanks at the ends and line breaks are dropped, `\` counts as `/`, `%2e` as a dot. A URI is untrusted input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from tilesync.core.safe_names import MAX_SEGMENT_BYTES, find_universal_problem

ARCHIVE_SUFFIX: Final = ".3tz"
"""What the name of a 3TZ archive ends with, in lower case.

The expression of MAXAR_content_3tz has no flag for case and blob names heed it: `A.3TZ/x` is a file in a folder. It
also takes `a.3tz.json` apart, surely unmeant: here the ending must end a segment. The last one counts, as there.
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
_CLIMBS = "climbs out of the container"
_MAX_SHOWN_CHARS = 200
_USER_INFO = re.compile(r"[/\\]{2}[^/\\?#]*@")
_Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class ResolvedUri:
    """A URI that means the blob `name`: decoded once, without query and fragment. Whether it can be held depends on the
    place.

    `query`: the URI carries a query; a folder serves the file without it. `absolute`: the URI holds the container's own
    place (a URL, a leading `/`, or `..` out of it and back): viewers of a copy do not find it there. `inner`: path of a
    file in the 3TZ archive `name`; it is looked up, never written, so it is not judged as `name` is.
    """

    name: str
    has_query: bool = False
    is_absolute: bool = False
    archive_path: str = ""


@dataclass(frozen=True, slots=True)
class RejectedUri:
    """A URI that means no blob to be mirrored; `why` stands behind it in a sentence and repeats no query.

    `unsafe`: it means a blob of the container, of a name that no place can hold.
    """

    reason: str
    has_unsafe_name: bool = False


def resolve(uri: str, base: str, container_url: str) -> ResolvedUri | RejectedUri | None:
    """What `uri` means in the document `base`, a blob's name; None when it names no file (empty, or `data:`).

    For a document in a 3TZ, `base` is `ARCHIVE/PATH`. `home` is the bare URL of the container, "" when unknown: then
    nothing absolute is inside. Never raises; takes time in proportion to the length.
    """
    # Nearly every URI: nothing to decode, no dot segment, a name that `unaskable` has nothing against.
    name = base[: base.rfind("/") + 1] + uri
    if len(name) <= MAX_SEGMENT_BYTES and ARCHIVE_SUFFIX not in name and _PLAIN_PATH.fullmatch(name):
        return ResolvedUri(name)
    return _resolve_any(_strip_blanks(uri), base, container_url)


def is_relative_path(uri: str) -> bool:
    """Whether a URI is a relative-path reference (RFC 3986, section 4.2) that names a file; blanks around it are none.

    Who writes something in front of it must strip those blanks: they would come to stand within.
    """
    scheme, authority, path, _ = _split_uri(_strip_blanks(uri))
    return not scheme and authority is None and path[:1] not in {"", "/"}


def redact_uri(uri: str) -> str:
    """A URI fit for a line, a terminal and UTF-8: without its query and its user, which may be secrets."""
    text = _USER_INFO.sub("//", uri.partition("?")[0].strip(), count=1)
    signs = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text[:_MAX_SHOWN_CHARS])
    return signs if len(text) <= _MAX_SHOWN_CHARS else f"{signs}…"


def _strip_blanks(uri: str) -> str:
    return _LINE_BREAKS.sub("", uri.strip(_BLANK))


def _split_uri(uri: str) -> tuple[str, str | None, str, bool]:
    """Scheme, authority, path and whether there is a query (RFC 3986, appendix B)."""
    parts = _URI_PARTS.match(uri)
    assert parts is not None, "the expression matches every text"
    scheme, authority, path, query = parts.groups()
    return (scheme or "").lower(), authority, path.replace("\\", "/"), bool(query)


def _resolve_any(uri: str, base: str, container_url: str) -> ResolvedUri | RejectedUri | None:
    scheme, authority, path, query = _split_uri(uri)
    if not uri or scheme == "data":
        return None
    own, root = _parse_container_url(container_url)
    absolute = bool(scheme) or authority is not None or path.startswith("/")
    if absolute:
        if why := _explain_foreign_origin(scheme, authority, own):
            return RejectedUri(why)
        path, left = _remove_dot_segments(path, 0)
    else:
        document = quote(base, errors="surrogatepass")
        below = document[: document.rfind("/") + 1] + path if path else document
        path, left = _remove_dot_segments(f"{root}/{below}", root.count("/"))
    try:
        path, root = unquote_to_bytes(path).decode(), unquote(root)
    except UnicodeError:
        return RejectedUri("is not UTF-8", has_unsafe_name=not absolute)
    if (left and not own) or not f"{path}/".startswith(f"{root}/"):
        return RejectedUri("leads out of the container, on the same host" if absolute else _CLIMBS)
    return _classify_name(path[len(root) + 1 :], has_query=query, is_absolute=absolute or left)


def _parse_container_url(container_url: str) -> tuple[_Origin | None, str]:
    scheme, authority, path, _ = _split_uri(container_url)
    own = _parse_origin(scheme, authority or "")
    return own, path.rstrip("/") if own else ""


def _parse_origin(scheme: str, authority: str) -> _Origin | None:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None or scheme not in _DEFAULT_PORTS:
        return None
    return scheme, parts[1].lower(), int(parts[2] or _DEFAULT_PORTS[scheme])


def _explain_foreign_origin(scheme: str, authority: str | None, own: _Origin | None) -> str | None:
    """Why a URI with a scheme, an authority or a leading `/` leads to another origin than `own`; None when it does not.

    http and https of one host are two origins (RFC 6454): whoever answers there need not be this container, and
    browsers block http beside https. Nothing is lost: the blob, if it is the same, is in the listing anyway.
    """
    if scheme and scheme not in _DEFAULT_PORTS:
        return f"has the scheme {scheme}" if len(scheme) < 40 else "has an unknown scheme"
    if not scheme and authority is None:
        return None if own else "begins with a slash, while the container's address is not known"
    if "@" in (authority := (authority or "").lower()):
        return "carries a user name"
    there = _parse_origin(scheme or (own[0] if own else "https"), authority)
    if there is None:
        return "names no valid host"
    if own is None:
        return f"leads to a host ({authority}), while the container's address is not known"
    if there[1] == own[1] and there[0] != own[0]:
        return f"leads to the container's host by {there[0]}, not {own[0]}"
    return None if there == own else f"leads to another host ({authority})"


def _remove_dot_segments(path: str, floor: int) -> tuple[str, bool]:
    """`path` without dot segments (RFC 3986, section 5.2.4), and whether it went above its first `floor` segments."""
    kept: list[str] = []
    left = False
    last = ""
    for segment in path.removeprefix("/").split("/"):
        last = segment.lower()
        if last in _PARENT_SEGMENTS:
            left = left or len(kept) <= floor
            del kept[-1:]
        elif last not in _DOT_SEGMENTS:
            kept.append(segment)
    if last in _PARENT_SEGMENTS or last in _DOT_SEGMENTS:
        kept.append("")
    return "/" + "/".join(kept), left


def _classify_name(name: str, *, has_query: bool, is_absolute: bool) -> ResolvedUri | RejectedUri:
    if ".." in name.split("/"):  # written as %2F..%2F: a path again to whoever unpacks it
        return RejectedUri(_CLIMBS)
    stem, _, rest = f"{name}/".rpartition(f"{ARCHIVE_SUFFIX}/")
    inner = rest[:-1].lstrip("/") if stem else ""
    name = stem + ARCHIVE_SUFFIX if stem else name
    if not name or name.endswith("/") or inner.endswith("/"):
        return RejectedUri("names a folder")
    if reason := find_universal_problem(name):
        return RejectedUri(
            f"means a blob that no folder can hold (its name is unsafe: it {reason})", has_unsafe_name=True
        )
    return ResolvedUri(name, has_query, is_absolute, inner)
