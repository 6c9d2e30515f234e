"""Whether what a web server answers is what a viewer in a browser needs. What is not raises, with what mends it.

Sources: Fetch Standard, "CORS protocol"; RFC 9110, sections 8.3, 8.4, 14; RFC 9111, section 5.2.2; RFC 8246.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tilesync.core.gzip import GZIP_MAGIC
from tilesync.core.http_headers import REVALIDATED
from tilesync.core.urls import loopback
from tilesync.doctor.remedies import ANY, Mending
from tilesync.doctor.result import Result, Said, some
from tilesync.errors import DestinationError, VerifyFailed
from tilesync.model import POINTER
from tilesync.model.storage import Answer, Label

SHORT: Final = 60
"""Seconds that a pointer may be cached without anyone seeing an old export for long."""

LONG: Final = 86_400
"""Seconds for which it is worth while to cache a file that never changes."""

_OCTETS: Final = "application/octet-stream"
_ENDINGS: Final = (".json", ".glb", ".gltf", ".png", ".jpg", ".jpeg", ".webp", ".ktx2")
"""Names that servers know a type by; of others they can say nothing, or `application/octet-stream`."""

_LED: Final = re.compile(rb'"(?:[^"\\]*/)?versions/([A-Za-z0-9._-]+)/')


class Wanted(NamedTuple):
    """The page of a viewer. `origin`: as what it asks; `any`: that one is an example, and any may come."""

    origin: str
    any: bool

    @property
    def allowed(self) -> str:
        """Who is to be let in."""
        return ANY if self.any else self.origin


class Sample(NamedTuple):
    """A held file that is asked for: `path` is its name from the top. `packed`: its payload is gzip."""

    path: str
    size: int
    sha256: bytes
    packed: bool
    label: Label


class Tried(NamedTuple):
    """What came of asking for a file, whole and its first byte alone."""

    sample: Sample
    whole: Answer
    part: Answer


# --- the pointer ---


def reached(answer: Answer, mend: Mending) -> Said:
    """The pointer can be read by anyone, and is JSON."""
    if answer.status in {301, 302, 303, 307, 308}:
        where = answer.headers.get("location", "").split("?")[0].removesuffix(f"/{POINTER}")
        raise DestinationError(
            f"{answer.url} sends elsewhere ({answer.status}): {where}", hint=f"give --public-url {where}"
        )
    if answer.status in {401, 403, 404, 409}:
        raise DestinationError(f"{answer.url} is not there for everybody ({answer.status})", hint=mend.access())
    if answer.status != 200:
        raise DestinationError(f"{answer.url} answers {answer.status}", hint=mend.access())
    try:
        with suppress(RecursionError):  # a tree of tiles may be deeper than this parser goes
            json.loads(plain(answer))
    except ValueError:
        raise DestinationError(f"{answer.url} is no JSON", hint=mend.access()) from None
    return Said(f"{answer.url} can be read by anyone, {len(answer.body):,} bytes")


def leads(answer: Answer, version: str, sha256: str) -> Said:
    """The pointer is the one that the destination holds, which has this digest and leads to that version."""
    body = plain(answer)
    if hashlib.sha256(body).hexdigest() == sha256:
        return Said(f"it leads to version {version}")
    led = sorted({found.decode() for found in _LED.findall(body)})
    what = f"it leads to version {some(led)}" if led and led != [version] else "its bytes are other ones"
    age = f"; a cache has had it for {answer.headers['age']} s" if "age" in answer.headers else ""
    raise DestinationError(
        f"it is not the pointer that is held, to version {version}: {what}{age}",
        hint="purge what caches it; or --public-url is another place",
    )


def pointer_caching(answer: Answer, mend: Mending) -> Said:
    """Nobody sees an old pointer for long."""
    said = answer.headers.get("cache-control", "")
    rules = _directives(said)
    age = rules.get("s-maxage") or rules.get("max-age")
    fresh = {"no-cache", "no-store"} & rules.keys() or (age is not None and age.isdecimal() and int(age) <= SHORT)
    if fresh:
        return Said(f"it is asked for anew: {said}")
    hint = mend.caching(POINTER, Label("application/json", None, REVALIDATED))
    what = f"cached by {said}" if said else "cached as each browser likes: there is no Cache-Control"
    return Said(f"it may be {what}; viewers see a new export late", Result.WARN, hint)


def _directives(text: str) -> Mapping[str, str]:
    parts = (part.strip().partition("=") for part in text.lower().split(","))
    return {name.strip(): value.strip('" ') for name, _, value in parts if name}


# --- other origins ---


def admits(answers: Sequence[Answer], wanted: Wanted, mend: Mending) -> Said:
    """Pages of another origin may read each answer."""
    shut = [answer for answer in answers if not _admitted(answer, wanted.origin)]
    asked = f"a page of {wanted.origin}" + (" (an example: --origin names yours)" if wanted.any else "")
    if shut:
        said = shut[0].headers.get("access-control-allow-origin")
        why = f"Access-Control-Allow-Origin is {said}" if said else "there is no Access-Control-Allow-Origin"
        raise DestinationError(
            f"{asked} may not read {urlsplit(shut[0].url).path}: {why}", hint=mend.cors(wanted.allowed)
        )
    parts = urlsplit(answers[0].url)
    if parts.scheme == "http" and not loopback(parts.hostname or "") and wanted.origin.startswith("https:"):
        return Said(
            f"{asked} may read it by CORS, but no https page loads from http",
            Result.WARN,
            "serve the tiles by https too",
        )
    return Said(f"{asked} may read it")


def _admitted(answer: Answer, origin: str) -> bool:
    return answer.headers.get("access-control-allow-origin") in {ANY, origin}


def preflight(answer: Answer, wanted: Wanted, mend: Mending) -> Said:
    """A page of another origin may send Range. Few viewers do, and newer browsers do not ask."""
    headers = {part.strip().lower() for part in answer.headers.get("access-control-allow-headers", "").split(",")}
    allows = 200 <= answer.status < 300 and bool(headers & {ANY, "range"})
    admits = _admitted(answer, wanted.origin)
    if allows and admits:
        return Said("a viewer may send Range")
    what = f"does not let {wanted.origin} in" if allows else "does not allow Range"
    return Said(
        f"OPTIONS is answered {answer.status} and {what}: a viewer that reads parts of files may fail",
        Result.WARN,
        mend.cors(wanted.allowed) if allows else mend.preflight(wanted.allowed),
    )


# --- the files ---


def whole(tried: Sequence[Tried]) -> Said:
    """Each file is there, and is byte for byte what is held."""
    lost = [f"{each.sample.path} ({each.whole.status})" for each in tried if each.whole.status != 200]
    if lost:
        raise DestinationError(
            f"not served: {some(lost)}",
            hint="the pointer is, so look for rules of the server that touch these paths; `tilesync verify` tells"
            " whether they are held",
        )
    other = [each.sample.path for each in tried if not _same(each)]
    if other:
        raise VerifyFailed(
            f"other bytes than the manifest says: {some(other)}",
            hint="`tilesync verify` tells whether the copy is bad; if not, purge what caches it",
        )
    return Said(f"{len(tried)} of the held files are served, and SHA-256 is that of the manifest")


def _same(tried: Tried) -> bool:
    """What a server unpacks by itself is not compared: only the stored bytes have a digest."""
    sample, body = tried.sample, tried.whole.body
    unpacked = sample.packed and not _is_gzip(body)
    return unpacked or sample.sha256 in {hashlib.sha256(data).digest() for data in (body, plain(tried.whole))}


def names(tried: Sequence[Tried], odd: str | None) -> Said:
    """A file is served whose name must be quoted."""
    if odd is None:
        return Said("no held file has a name that must be quoted", Result.SKIPPED)
    if any(each.sample.path == odd and each.whole.status == 200 for each in tried):
        return Said(f"`{odd}` is served")
    raise DestinationError(
        f"`{odd}` is not served",
        hint="something on the way changes quoted letters (%20, %2B, %25): a rewrite, or a proxy that decodes twice",
    )


def types(tried: Sequence[Tried], mend: Mending) -> Said:
    """Each file has its media type."""
    wrong = [each for each in tried if not _fits(each)]
    if wrong:
        said = [f"{each.sample.path} is {each.whole.headers.get('content-type') or 'of no type'}" for each in wrong]
        first = wrong[0].sample
        raise DestinationError(
            f"wrong types: {some(said)}, not {first.label.content_type}", hint=mend.label(first.path, _plainly(first))
        )
    return Said(some(sorted({each.sample.label.content_type for each in tried}), 6))


def _plainly(sample: Sample) -> Label:
    return sample.label if sample.packed else sample.label._replace(content_encoding=None)


def _fits(tried: Tried) -> bool:
    said = tried.whole.headers.get("content-type", "").split(";")[0].strip().lower()
    wanted = tried.sample.label.content_type.split(";")[0].strip().lower()
    if said == wanted or ("json" in said and "json" in wanted):
        return True
    if said in {"", _OCTETS}:
        return not tried.sample.path.lower().endswith(_ENDINGS)
    return wanted == _OCTETS and not said.startswith("text/")


def encodings(tried: Sequence[Tried], mend: Mending) -> Said:
    """What is stored as gzip is said to be, and nothing else is."""
    mute = [each.sample for each in tried if _is_gzip(each.whole.body) and not _said_gzip(each.whole)]
    if mute:
        gzip = [each.sample.path for each in tried if _is_gzip(each.whole.body)]
        raise DestinationError(
            f"gzip, and not said to be, so no viewer can read it: {some([sample.path for sample in mute])}",
            hint=mend.packed([mute[0].path, *gzip], mute[0].label._replace(content_encoding="gzip")),
        )
    liars = [each.sample for each in tried if _said_gzip(each.whole) and not _is_gzip(each.whole.body)]
    if liars:
        raise DestinationError(
            f"said to be gzip, and not, so no viewer can read it: {some([sample.path for sample in liars])}",
            hint="take the Content-Encoding away: it is for files that are stored as gzip",
        )
    packed = sum(each.sample.packed for each in tried)
    return Said(f"{packed} stored as gzip, and said to be" if packed else "stored plainly, and served so")


def ranges(tried: Sequence[Tried], mend: Mending) -> Said:
    """A part of a file can be had."""
    parts = [(each.sample, each.part) for each in tried if not _said_gzip(each.whole) or each.sample.packed]
    bad = [sample.path for sample, part in parts if part.status not in {200, 206} or not _cut(sample, part)]
    if bad:
        raise DestinationError(
            f"a request for the first byte is answered wrongly: {some(bad)}",
            hint="something on the way changes bodies or their parts: a cache, or a compression that knows no ranges",
        )
    if any(part.status == 200 for _, part in parts):
        return Said(
            "Range is ignored: downloads cannot resume, which no viewer of 3D Tiles minds",
            Result.WARN,
            "let the server, or the CDN, serve parts (nginx: `max_ranges` is not 0)",
        )
    return Said("the first byte of each can be had by itself")


def _cut(sample: Sample, part: Answer) -> bool:
    if part.status == 200:
        return True
    return part.headers.get("content-range", "") == f"bytes 0-0/{sample.size}" and len(part.body) == 1


def caching(tried: Sequence[Tried], mend: Mending) -> Said:
    """What never changes is cached for long."""
    short = [each for each in tried if not _lasting(each.whole.headers.get("cache-control", ""))]
    if not short:
        return Said(tried[0].whole.headers["cache-control"])
    said = short[0].whole.headers.get("cache-control") or "missing"
    return Said(
        f"files of a version never change, and are asked for again (Cache-Control is {said}): {short[0].sample.path}",
        Result.WARN,
        mend.caching(short[0].sample.path, short[0].sample.label),
    )


def _lasting(text: str) -> bool:
    rules = _directives(text)
    age = rules.get("max-age", "")
    return not {"no-cache", "no-store"} & rules.keys() and age.isdecimal() and int(age) >= LONG


def hidden(answer: Answer, mend: Mending) -> Said:
    """Nobody reads the state of a destination."""
    if answer.status < 300:
        raise DestinationError(f"the state is served to everybody: {answer.url}", hint=mend.hiding())
    return Said(f"the state is not served ({answer.status})")


# --- bodies ---


def _is_gzip(body: bytes) -> bool:
    return body.startswith(GZIP_MAGIC + b"\x08")


def _said_gzip(answer: Answer) -> bool:
    return answer.headers.get("content-encoding", "").strip().lower() in {"gzip", "x-gzip"}


def plain(answer: Answer) -> bytes:
    """The body, unpacked where it came as gzip."""
    if not (_said_gzip(answer) and _is_gzip(answer.body)):
        return answer.body
    try:
        return zlib.decompress(answer.body, wbits=31)
    except zlib.error:
        return answer.body
