"""Response rules: check the HTTP responses of a server for what a viewer in a browser needs.

A failed check raises an error with a hint.

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

from tilesync.checks.remedies import ANY_ORIGIN, Remedies
from tilesync.checks.result import CheckResult, CheckStatus, join_some
from tilesync.core.http_headers import REVALIDATE_CACHE_CONTROL
from tilesync.core.urls import is_loopback
from tilesync.errors import DestinationError, VerifyFailed
from tilesync.model import POINTER
from tilesync.model.storage import HttpResponse, ObjectHeaders
from tilesync.runtime.gzip import GZIP_MAGIC

MAX_POINTER_CACHE_S: Final = 60
"""Maximum seconds that a pointer may be cached: after a publication, viewers show the old export for so long."""

MIN_FILE_CACHE_S: Final = 86_400
"""Minimum seconds that a file of a version should be cached, since it never changes."""

_OCTET_STREAM: Final = "application/octet-stream"
_TYPED_EXTENSIONS: Final = (".json", ".glb", ".gltf", ".png", ".jpg", ".jpeg", ".webp", ".ktx2")
"""Extensions that need a media type of their own; other files may have `application/octet-stream` or no type."""

_VERSION_REFERENCE: Final = re.compile(rb'"(?:[^"\\]*/)?versions/([A-Za-z0-9._-]+)/')


class ViewerPage(NamedTuple):
    """Web page of a viewer. `origin` is sent with requests. `any_origin`: it is an example, all must be allowed."""

    origin: str
    any_origin: bool

    @property
    def allowed_origin(self) -> str:
        """Origin that the server must allow, or `*`."""
        return ANY_ORIGIN if self.any_origin else self.origin


class SampleFile(NamedTuple):
    """Stored file to request: `path` is its name from the top of the destination. `is_gzip`: its content is gzip."""

    path: str
    size: int
    sha256: bytes
    is_gzip: bool
    headers: ObjectHeaders


class SampleResponses(NamedTuple):
    """Responses for a file: the full file, and its first byte alone."""

    sample: SampleFile
    full: HttpResponse
    first_byte: HttpResponse


# --- the pointer ---


def check_public_access(response: HttpResponse, remedies: Remedies) -> CheckResult:
    """Check that anyone can read the pointer, and that it is JSON."""
    if response.status in {301, 302, 303, 307, 308}:
        target = response.headers.get("location", "").split("?")[0].removesuffix(f"/{POINTER}")
        raise DestinationError(
            f"{response.url} redirects ({response.status}) to {target}", hint=f"give --public-url {target}"
        )
    if response.status == 401:
        raise DestinationError(
            f"{response.url} is not public (401): it asks for a token or a password", hint=remedies.credentials()
        )
    if response.status in {403, 404, 409}:
        raise DestinationError(f"{response.url} is not public ({response.status})", hint=remedies.access())
    if response.status != 200:
        raise DestinationError(f"{response.url} answers {response.status}", hint=remedies.access())
    try:
        with suppress(RecursionError):  # a tree of tiles may be deeper than this parser can read
            json.loads(decode_body(response))
    except ValueError:
        raise DestinationError(f"{response.url} is not JSON", hint=remedies.access()) from None
    return CheckResult(f"anyone can read {response.url}, {len(response.body):,} bytes")


def check_pointer(response: HttpResponse, version: str, sha256: str) -> CheckResult:
    """Check that the served pointer is the stored one, by its digest."""
    body = decode_body(response)
    if hashlib.sha256(body).hexdigest() == sha256:
        return CheckResult(f"it leads to version {version}")
    versions = sorted({name.decode() for name in _VERSION_REFERENCE.findall(body)})
    difference = (
        f"it leads to version {join_some(versions)}" if versions and versions != [version] else "its bytes differ"
    )
    age = f"; it has been in a cache for {response.headers['age']} s" if "age" in response.headers else ""
    raise DestinationError(
        f"it is not the stored pointer to version {version}: {difference}{age}",
        hint="purge the cache; or correct --public-url, if it is the URL of another destination",
    )


def check_pointer_caching(response: HttpResponse, remedies: Remedies) -> CheckResult:
    """Check that the pointer is not cached for long."""
    cache_control = response.headers.get("cache-control", "")
    directives = _parse_directives(cache_control)
    age = directives.get("s-maxage") or directives.get("max-age")
    is_fresh = {"no-cache", "no-store"} & directives.keys() or (
        age is not None and age.isdecimal() and int(age) <= MAX_POINTER_CACHE_S
    )
    if is_fresh:
        return CheckResult(f"it is not cached for long: {cache_control}")
    hint = remedies.caching(POINTER, ObjectHeaders("application/json", None, REVALIDATE_CACHE_CONTROL))
    what = f"cached (Cache-Control is {cache_control})" if cache_control else "cached, since there is no Cache-Control"
    return CheckResult(f"it may be {what}: viewers show a new export late", CheckStatus.WARN, hint)


def _parse_directives(text: str) -> Mapping[str, str]:
    parts = (part.strip().partition("=") for part in text.lower().split(","))
    return {name.strip(): value.strip('" ') for name, _, value in parts if name}


# --- CORS ---


def check_cors(responses: Sequence[HttpResponse], viewer_page: ViewerPage, remedies: Remedies) -> CheckResult:
    """Check that pages of another origin may read each response."""
    refused = [response for response in responses if not _allows_origin(response, viewer_page.origin)]
    page = f"a page of {viewer_page.origin}" + (
        " (an example: give yours with --origin)" if viewer_page.any_origin else ""
    )
    if refused:
        allowed = refused[0].headers.get("access-control-allow-origin")
        reason = f"Access-Control-Allow-Origin is {allowed}" if allowed else "there is no Access-Control-Allow-Origin"
        raise DestinationError(
            f"{page} may not read {urlsplit(refused[0].url).path}: {reason}",
            hint=remedies.cors(viewer_page.allowed_origin),
        )
    parts = urlsplit(responses[0].url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and viewer_page.origin.startswith("https:"):
        return CheckResult(
            f"{page} may read it by CORS, but browsers block http content on https pages",
            CheckStatus.WARN,
            "serve the tiles with https too",
        )
    return CheckResult(f"{page} may read it")


def _allows_origin(response: HttpResponse, origin: str) -> bool:
    return response.headers.get("access-control-allow-origin") in {ANY_ORIGIN, origin}


def check_preflight(response: HttpResponse, viewer_page: ViewerPage, remedies: Remedies) -> CheckResult:
    """Check that a page of another origin may send Range.

    This is only a warning: few viewers send Range, and newer browsers send no preflight for it.
    """
    headers = {part.strip().lower() for part in response.headers.get("access-control-allow-headers", "").split(",")}
    allows_range = 200 <= response.status < 300 and bool(headers & {ANY_ORIGIN, "range"})
    allows_origin = _allows_origin(response, viewer_page.origin)
    if allows_range and allows_origin:
        return CheckResult("a viewer may send Range")
    problem = f"does not allow {viewer_page.origin}" if allows_range else "does not allow Range"
    return CheckResult(
        f"the answer to OPTIONS ({response.status}) {problem}: a viewer that reads parts of files may fail",
        CheckStatus.WARN,
        remedies.cors(viewer_page.allowed_origin) if allows_range else remedies.preflight(viewer_page.allowed_origin),
    )


# --- the files ---


def check_files(responses: Sequence[SampleResponses]) -> CheckResult:
    """Check that each file is served, byte for byte as stored."""
    missing = [f"{each.sample.path} ({each.full.status})" for each in responses if each.full.status != 200]
    if missing:
        raise DestinationError(
            f"not served: {join_some(missing)}",
            hint="the pointer is served, so check the server rules for these paths; `tilesync verify` shows"
            " whether the files are stored",
        )
    different = [each.sample.path for each in responses if not _matches_manifest(each)]
    if different:
        raise VerifyFailed(
            f"the bytes differ from the manifest: {join_some(different)}",
            hint="`tilesync verify` shows whether the stored files are damaged; if not, purge the cache",
        )
    return CheckResult(f"{len(responses)} sample files are served, with the SHA-256 of the manifest")


def _matches_manifest(responses: SampleResponses) -> bool:
    """Compare the digests. Files that the server decoded are skipped: only the stored bytes have a digest."""
    sample, body = responses.sample, responses.full.body
    is_decoded = sample.is_gzip and not _is_gzip(body)
    return is_decoded or sample.sha256 in {
        hashlib.sha256(data).digest() for data in (body, decode_body(responses.full))
    }


def check_quoted_name(responses: Sequence[SampleResponses], quoted_name: str | None) -> CheckResult:
    """Check that the file whose name must be percent-encoded in a URL is served."""
    if quoted_name is None:
        return CheckResult("no stored file has a name that must be percent-encoded", CheckStatus.SKIPPED)
    if any(each.sample.path == quoted_name and each.full.status == 200 for each in responses):
        return CheckResult(f"`{quoted_name}` is served")
    raise DestinationError(
        f"`{quoted_name}` is not served",
        hint="a rewrite rule or proxy changes percent-encoded characters (%20, %2B, %25), perhaps by decoding twice",
    )


def check_content_types(responses: Sequence[SampleResponses], remedies: Remedies) -> CheckResult:
    """Check the media type of each file."""
    wrong = [each for each in responses if not _has_expected_type(each)]
    if wrong:
        found = [f"{each.sample.path} is {each.full.headers.get('content-type') or 'without a type'}" for each in wrong]
        first = wrong[0].sample
        raise DestinationError(
            f"wrong types: {join_some(found)}, not {first.headers.content_type}",
            hint=remedies.content_type(first.path, _expected_headers(first)),
        )
    return CheckResult(join_some(sorted({each.sample.headers.content_type for each in responses}), 6))


def _expected_headers(sample: SampleFile) -> ObjectHeaders:
    return sample.headers if sample.is_gzip else sample.headers._replace(content_encoding=None)


def _has_expected_type(responses: SampleResponses) -> bool:
    found = responses.full.headers.get("content-type", "").split(";")[0].strip().lower()
    expected = responses.sample.headers.content_type.split(";")[0].strip().lower()
    if found == expected or ("json" in found and "json" in expected):
        return True
    if found in {"", _OCTET_STREAM}:
        return not responses.sample.path.lower().endswith(_TYPED_EXTENSIONS)
    return expected == _OCTET_STREAM and not found.startswith("text/")


def check_content_encodings(responses: Sequence[SampleResponses], remedies: Remedies) -> CheckResult:
    """Check that files stored as gzip, and no others, have Content-Encoding gzip."""
    undeclared = [each.sample for each in responses if _is_gzip(each.full.body) and not _declares_gzip(each.full)]
    if undeclared:
        gzip = [each.sample.path for each in responses if _is_gzip(each.full.body)]
        paths = join_some([sample.path for sample in undeclared])
        raise DestinationError(
            f"gzip without Content-Encoding, so no viewer can read it: {paths}",
            hint=remedies.content_encoding(
                [undeclared[0].path, *gzip], undeclared[0].headers._replace(content_encoding="gzip")
            ),
        )
    misdeclared = [each.sample for each in responses if _declares_gzip(each.full) and not _is_gzip(each.full.body)]
    if misdeclared:
        paths = join_some([sample.path for sample in misdeclared])
        raise DestinationError(
            f"Content-Encoding gzip without gzip content, so no viewer can read it: {paths}",
            hint="remove the Content-Encoding: it is for files that are stored as gzip",
        )
    gzip_count = sum(each.sample.is_gzip for each in responses)
    return CheckResult(
        f"{gzip_count} stored as gzip, with Content-Encoding gzip" if gzip_count else "stored and served without gzip"
    )


def check_ranges(responses: Sequence[SampleResponses], remedies: Remedies) -> CheckResult:
    """Check that a part of a file can be read."""
    parts = [
        (each.sample, each.first_byte) for each in responses if not _declares_gzip(each.full) or each.sample.is_gzip
    ]
    bad = [sample.path for sample, part in parts if part.status not in {200, 206} or not _is_valid_range(sample, part)]
    if bad:
        raise DestinationError(
            f"wrong answer to a request for the first byte: {join_some(bad)}",
            hint="a cache or a compression between server and client breaks byte ranges",
        )
    if any(part.status == 200 for _, part in parts):
        return CheckResult(
            "Range is ignored: downloads cannot resume; viewers of 3D Tiles work anyway",
            CheckStatus.WARN,
            "enable byte ranges in the server or CDN (nginx: `max_ranges` must not be 0)",
        )
    return CheckResult("the first byte of each file can be read alone")


def _is_valid_range(sample: SampleFile, response: HttpResponse) -> bool:
    if response.status == 200:
        return True
    return response.headers.get("content-range", "") == f"bytes 0-0/{sample.size}" and len(response.body) == 1


def check_caching(responses: Sequence[SampleResponses], remedies: Remedies) -> CheckResult:
    """Check that files of a version, which never change, may be cached for a long time."""
    short = [each for each in responses if not _is_long_lived(each.full.headers.get("cache-control", ""))]
    if not short:
        return CheckResult(responses[0].full.headers["cache-control"])
    found = short[0].full.headers.get("cache-control") or "missing"
    return CheckResult(
        f"files of a version never change, but are not cached (Cache-Control is {found}): {short[0].sample.path}",
        CheckStatus.WARN,
        remedies.caching(short[0].sample.path, short[0].sample.headers),
    )


def _is_long_lived(text: str) -> bool:
    directives = _parse_directives(text)
    age = directives.get("max-age", "")
    return not {"no-cache", "no-store"} & directives.keys() and age.isdecimal() and int(age) >= MIN_FILE_CACHE_S


def check_state_hidden(response: HttpResponse, remedies: Remedies) -> CheckResult:
    """Check that the state of a destination is not served."""
    if response.status < 300:
        raise DestinationError(f"the state is public: {response.url}", hint=remedies.hide_state())
    return CheckResult(f"the state is not served ({response.status})")


# --- bodies ---


def _is_gzip(body: bytes) -> bool:
    return body.startswith(GZIP_MAGIC + b"\x08")


def _declares_gzip(response: HttpResponse) -> bool:
    return response.headers.get("content-encoding", "").strip().lower() in {"gzip", "x-gzip"}


def decode_body(response: HttpResponse) -> bytes:
    """Return the body, decoded if it arrived as gzip."""
    if not (_declares_gzip(response) and _is_gzip(response.body)):
        return response.body
    try:
        return zlib.decompress(response.body, wbits=31)
    except zlib.error:
        return response.body
