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
from tilesync.core.http_headers import REVALIDATE_CACHE_CONTROL
from tilesync.core.urls import is_loopback
from tilesync.doctor.remedies import ANY_ORIGIN, Remedies
from tilesync.doctor.result import CheckResult, CheckStatus, join_some
from tilesync.errors import DestinationError, VerifyFailed
from tilesync.model import POINTER
from tilesync.model.storage import HttpResponse, ObjectHeaders

MAX_POINTER_CACHE_S: Final = 60
"""Seconds that a pointer may be cached without anyone seeing an old export for long."""

MIN_FILE_CACHE_S: Final = 86_400
"""Seconds for which it is worth while to cache a file that never changes."""

_OCTET_STREAM: Final = "application/octet-stream"
_TYPED_EXTENSIONS: Final = (".json", ".glb", ".gltf", ".png", ".jpg", ".jpeg", ".webp", ".ktx2")
"""Names that servers know a type by; of others they can say nothing, or `application/octet-stream`."""

_VERSION_REFERENCE: Final = re.compile(rb'"(?:[^"\\]*/)?versions/([A-Za-z0-9._-]+)/')


class ViewerPage(NamedTuple):
    """The page of a viewer. `origin`: as what it asks; `any`: that one is an example, and any may come."""

    origin: str
    any_origin: bool

    @property
    def allowed_origin(self) -> str:
        """Who is to be let in."""
        return ANY_ORIGIN if self.any_origin else self.origin


class SampleFile(NamedTuple):
    """A held file that is asked for: `path` is its name from the top. `packed`: its payload is gzip."""

    path: str
    size: int
    sha256: bytes
    is_gzip: bool
    headers: ObjectHeaders


class SampleResponses(NamedTuple):
    """What came of asking for a file, whole and its first byte alone."""

    sample: SampleFile
    full: HttpResponse
    first_byte: HttpResponse


# --- the pointer ---


def check_public_access(answer: HttpResponse, remedies: Remedies) -> CheckResult:
    """The pointer can be read by anyone, and is JSON."""
    if answer.status in {301, 302, 303, 307, 308}:
        where = answer.headers.get("location", "").split("?")[0].removesuffix(f"/{POINTER}")
        raise DestinationError(
            f"{answer.url} sends elsewhere ({answer.status}): {where}", hint=f"give --public-url {where}"
        )
    if answer.status in {401, 403, 404, 409}:
        raise DestinationError(f"{answer.url} is not there for everybody ({answer.status})", hint=remedies.access())
    if answer.status != 200:
        raise DestinationError(f"{answer.url} answers {answer.status}", hint=remedies.access())
    try:
        with suppress(RecursionError):  # a tree of tiles may be deeper than this parser goes
            json.loads(decode_body(answer))
    except ValueError:
        raise DestinationError(f"{answer.url} is no JSON", hint=remedies.access()) from None
    return CheckResult(f"{answer.url} can be read by anyone, {len(answer.body):,} bytes")


def check_pointer(answer: HttpResponse, version: str, sha256: str) -> CheckResult:
    """The pointer is the one that the destination holds, which has this digest and leads to that version."""
    body = decode_body(answer)
    if hashlib.sha256(body).hexdigest() == sha256:
        return CheckResult(f"it leads to version {version}")
    led = sorted({found.decode() for found in _VERSION_REFERENCE.findall(body)})
    what = f"it leads to version {join_some(led)}" if led and led != [version] else "its bytes are other ones"
    age = f"; a cache has had it for {answer.headers['age']} s" if "age" in answer.headers else ""
    raise DestinationError(
        f"it is not the pointer that is held, to version {version}: {what}{age}",
        hint="purge what caches it; or --public-url is another place",
    )


def check_pointer_caching(answer: HttpResponse, remedies: Remedies) -> CheckResult:
    """Nobody sees an old pointer for long."""
    said = answer.headers.get("cache-control", "")
    rules = _parse_directives(said)
    age = rules.get("s-maxage") or rules.get("max-age")
    fresh = {"no-cache", "no-store"} & rules.keys() or (
        age is not None and age.isdecimal() and int(age) <= MAX_POINTER_CACHE_S
    )
    if fresh:
        return CheckResult(f"it is asked for anew: {said}")
    hint = remedies.caching(POINTER, ObjectHeaders("application/json", None, REVALIDATE_CACHE_CONTROL))
    what = f"cached by {said}" if said else "cached as each browser likes: there is no Cache-Control"
    return CheckResult(f"it may be {what}; viewers see a new export late", CheckStatus.WARN, hint)


def _parse_directives(text: str) -> Mapping[str, str]:
    parts = (part.strip().partition("=") for part in text.lower().split(","))
    return {name.strip(): value.strip('" ') for name, _, value in parts if name}


# --- other origins ---


def check_cors(answers: Sequence[HttpResponse], viewer_page: ViewerPage, remedies: Remedies) -> CheckResult:
    """Pages of another origin may read each answer."""
    shut = [answer for answer in answers if not _allows_origin(answer, viewer_page.origin)]
    asked = f"a page of {viewer_page.origin}" + (
        " (an example: --origin names yours)" if viewer_page.any_origin else ""
    )
    if shut:
        said = shut[0].headers.get("access-control-allow-origin")
        why = f"Access-Control-Allow-Origin is {said}" if said else "there is no Access-Control-Allow-Origin"
        raise DestinationError(
            f"{asked} may not read {urlsplit(shut[0].url).path}: {why}", hint=remedies.cors(viewer_page.allowed_origin)
        )
    parts = urlsplit(answers[0].url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and viewer_page.origin.startswith("https:"):
        return CheckResult(
            f"{asked} may read it by CORS, but no https page loads from http",
            CheckStatus.WARN,
            "serve the tiles by https too",
        )
    return CheckResult(f"{asked} may read it")


def _allows_origin(answer: HttpResponse, origin: str) -> bool:
    return answer.headers.get("access-control-allow-origin") in {ANY_ORIGIN, origin}


def check_preflight(answer: HttpResponse, viewer_page: ViewerPage, remedies: Remedies) -> CheckResult:
    """A page of another origin may send Range. Few viewers do, and newer browsers do not ask."""
    headers = {part.strip().lower() for part in answer.headers.get("access-control-allow-headers", "").split(",")}
    allows = 200 <= answer.status < 300 and bool(headers & {ANY_ORIGIN, "range"})
    admits = _allows_origin(answer, viewer_page.origin)
    if allows and admits:
        return CheckResult("a viewer may send Range")
    what = f"does not let {viewer_page.origin} in" if allows else "does not allow Range"
    return CheckResult(
        f"OPTIONS is answered {answer.status} and {what}: a viewer that reads parts of files may fail",
        CheckStatus.WARN,
        remedies.cors(viewer_page.allowed_origin) if allows else remedies.preflight(viewer_page.allowed_origin),
    )


# --- the files ---


def check_files(responses: Sequence[SampleResponses]) -> CheckResult:
    """Each file is there, and is byte for byte what is held."""
    lost = [f"{each.sample.path} ({each.full.status})" for each in responses if each.full.status != 200]
    if lost:
        raise DestinationError(
            f"not served: {join_some(lost)}",
            hint="the pointer is, so look for rules of the server that touch these paths; `tilesync verify` tells"
            " whether they are held",
        )
    other = [each.sample.path for each in responses if not _matches_manifest(each)]
    if other:
        raise VerifyFailed(
            f"other bytes than the manifest says: {join_some(other)}",
            hint="`tilesync verify` tells whether the copy is bad; if not, purge what caches it",
        )
    return CheckResult(f"{len(responses)} of the held files are served, and SHA-256 is that of the manifest")


def _matches_manifest(responses: SampleResponses) -> bool:
    """What a server unpacks by itself is not compared: only the stored bytes have a digest."""
    sample, body = responses.sample, responses.full.body
    unpacked = sample.is_gzip and not _is_gzip(body)
    return unpacked or sample.sha256 in {hashlib.sha256(data).digest() for data in (body, decode_body(responses.full))}


def check_quoted_name(responses: Sequence[SampleResponses], quoted_name: str | None) -> CheckResult:
    """A file is served whose name must be quoted."""
    if quoted_name is None:
        return CheckResult("no held file has a name that must be quoted", CheckStatus.SKIPPED)
    if any(each.sample.path == quoted_name and each.full.status == 200 for each in responses):
        return CheckResult(f"`{quoted_name}` is served")
    raise DestinationError(
        f"`{quoted_name}` is not served",
        hint="something on the way changes quoted letters (%20, %2B, %25): a rewrite, or a proxy that decodes twice",
    )


def check_content_types(responses: Sequence[SampleResponses], remedies: Remedies) -> CheckResult:
    """Each file has its media type."""
    wrong = [each for each in responses if not _has_expected_type(each)]
    if wrong:
        said = [f"{each.sample.path} is {each.full.headers.get('content-type') or 'of no type'}" for each in wrong]
        first = wrong[0].sample
        raise DestinationError(
            f"wrong types: {join_some(said)}, not {first.headers.content_type}",
            hint=remedies.content_type(first.path, _expected_headers(first)),
        )
    return CheckResult(join_some(sorted({each.sample.headers.content_type for each in responses}), 6))


def _expected_headers(sample: SampleFile) -> ObjectHeaders:
    return sample.headers if sample.is_gzip else sample.headers._replace(content_encoding=None)


def _has_expected_type(responses: SampleResponses) -> bool:
    said = responses.full.headers.get("content-type", "").split(";")[0].strip().lower()
    wanted = responses.sample.headers.content_type.split(";")[0].strip().lower()
    if said == wanted or ("json" in said and "json" in wanted):
        return True
    if said in {"", _OCTET_STREAM}:
        return not responses.sample.path.lower().endswith(_TYPED_EXTENSIONS)
    return wanted == _OCTET_STREAM and not said.startswith("text/")


def check_content_encodings(responses: Sequence[SampleResponses], remedies: Remedies) -> CheckResult:
    """What is stored as gzip is said to be, and nothing else is."""
    mute = [each.sample for each in responses if _is_gzip(each.full.body) and not _declares_gzip(each.full)]
    if mute:
        gzip = [each.sample.path for each in responses if _is_gzip(each.full.body)]
        raise DestinationError(
            f"gzip, and not said to be, so no viewer can read it: {join_some([sample.path for sample in mute])}",
            hint=remedies.content_encoding([mute[0].path, *gzip], mute[0].headers._replace(content_encoding="gzip")),
        )
    liars = [each.sample for each in responses if _declares_gzip(each.full) and not _is_gzip(each.full.body)]
    if liars:
        raise DestinationError(
            f"said to be gzip, and not, so no viewer can read it: {join_some([sample.path for sample in liars])}",
            hint="take the Content-Encoding away: it is for files that are stored as gzip",
        )
    packed = sum(each.sample.is_gzip for each in responses)
    return CheckResult(f"{packed} stored as gzip, and said to be" if packed else "stored plainly, and served so")


def check_ranges(responses: Sequence[SampleResponses], remedies: Remedies) -> CheckResult:
    """A part of a file can be had."""
    parts = [
        (each.sample, each.first_byte) for each in responses if not _declares_gzip(each.full) or each.sample.is_gzip
    ]
    bad = [sample.path for sample, part in parts if part.status not in {200, 206} or not _is_valid_range(sample, part)]
    if bad:
        raise DestinationError(
            f"a request for the first byte is answered wrongly: {join_some(bad)}",
            hint="something on the way changes bodies or their parts: a cache, or a compression that knows no ranges",
        )
    if any(part.status == 200 for _, part in parts):
        return CheckResult(
            "Range is ignored: downloads cannot resume, which no viewer of 3D Tiles minds",
            CheckStatus.WARN,
            "let the server, or the CDN, serve parts (nginx: `max_ranges` is not 0)",
        )
    return CheckResult("the first byte of each can be had by itself")


def _is_valid_range(sample: SampleFile, response: HttpResponse) -> bool:
    if response.status == 200:
        return True
    return response.headers.get("content-range", "") == f"bytes 0-0/{sample.size}" and len(response.body) == 1


def check_caching(responses: Sequence[SampleResponses], remedies: Remedies) -> CheckResult:
    """What never changes is cached for long."""
    short = [each for each in responses if not _is_long_lived(each.full.headers.get("cache-control", ""))]
    if not short:
        return CheckResult(responses[0].full.headers["cache-control"])
    said = short[0].full.headers.get("cache-control") or "missing"
    return CheckResult(
        f"files of a version never change, and are asked for again (Cache-Control is {said}): {short[0].sample.path}",
        CheckStatus.WARN,
        remedies.caching(short[0].sample.path, short[0].sample.headers),
    )


def _is_long_lived(text: str) -> bool:
    rules = _parse_directives(text)
    age = rules.get("max-age", "")
    return not {"no-cache", "no-store"} & rules.keys() and age.isdecimal() and int(age) >= MIN_FILE_CACHE_S


def check_state_hidden(answer: HttpResponse, remedies: Remedies) -> CheckResult:
    """Nobody reads the state of a destination."""
    if answer.status < 300:
        raise DestinationError(f"the state is served to everybody: {answer.url}", hint=remedies.hide_state())
    return CheckResult(f"the state is not served ({answer.status})")


# --- bodies ---


def _is_gzip(body: bytes) -> bool:
    return body.startswith(GZIP_MAGIC + b"\x08")


def _declares_gzip(answer: HttpResponse) -> bool:
    return answer.headers.get("content-encoding", "").strip().lower() in {"gzip", "x-gzip"}


def decode_body(answer: HttpResponse) -> bytes:
    """The body, unpacked where it came as gzip."""
    if not (_declares_gzip(answer) and _is_gzip(answer.body)):
        return answer.body
    try:
        return zlib.decompress(answer.body, wbits=31)
    except zlib.error:
        return answer.body
