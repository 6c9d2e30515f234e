"""Matchers and effects for faults of the fake service."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote

from tilesync.demo.fake_service import storage_error
from tilesync.demo.faults import Effect, RequestMatcher
from tilesync.demo.loopback_server import FakeRequest, FakeResponse

# --- which requests ---


def blob_name(request: FakeRequest) -> str | None:
    """Return the blob name of a request; None if it is no request for a blob."""
    if request.is_api or request.is_listing or request.path == "/connect/token":
        return None
    return unquote(request.path.lstrip("/")).partition("/")[2]


def is_api(request: FakeRequest) -> bool:
    """Match requests to the Mesh Export API."""
    return request.is_api


def is_listing(request: FakeRequest) -> bool:
    """Match requests for a page of a container."""
    return request.is_listing


def is_blob(request: FakeRequest) -> bool:
    """Match requests for a blob."""
    return blob_name(request) is not None


def first_request_of_each_blob() -> RequestMatcher:
    """Make a matcher of the first request for each blob, so that no blob meets a fault twice."""
    requested = set[str | None]()

    def matches(request: FakeRequest) -> bool:
        name = blob_name(request)
        is_first = name is not None and name not in requested
        requested.add(name)
        return is_first

    return matches


def is_storage(request: FakeRequest) -> bool:
    """Match requests for a blob or a page."""
    return request.is_listing or is_blob(request)


def is_blob_named(*names: str) -> RequestMatcher:
    """Match requests for these blobs."""
    return lambda request: blob_name(request) in names


def is_range_request(request: FakeRequest) -> bool:
    """Match range requests for a blob."""
    return is_blob(request) and request.headers.get("range") is not None


# --- what happens to them ---


def error_response(status: int, code: str = "", *, body: bytes = b"", **headers: str) -> Effect:
    """Respond with an error in the format of the storage, or with another body."""
    changes = {name.replace("_", "-"): value for name, value in headers.items()}

    def effect(_: FakeRequest, __: Callable[[], FakeResponse]) -> FakeResponse:
        answer = FakeResponse(status, body) if body or not code else storage_error(status, code, "a fault of the test")
        return replace(answer, headers={**answer.headers, **changes})

    return effect


def truncate_body(at: int) -> Effect:
    """Break the body off after `at` bytes; a negative number counts from the end."""

    def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        answer = proceed()
        return replace(answer, sent_bytes=max(0, at if at >= 0 else len(answer.body) + at))

    return effect


def ignore_range(request: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
    """Ignore the Range header and send the whole blob."""
    asked = request.headers.get("range")
    del request.headers["range"]
    try:
        return proceed()
    finally:
        if asked is not None:
            request.headers["range"] = asked


def halve_body(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
    """Send half of the body, with the Content-Length of that half."""
    answer = proceed()
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def flip_last_bit(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
    """Flip one bit of the last byte."""
    answer = proceed()
    return replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1])) if answer.body else answer


def omit_content_length(at: int | None = None) -> Effect:
    """Send the body without a length; the connection ends after `at` bytes of it."""

    def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        answer = proceed()
        return replace(answer, body=answer.body[:at], has_content_length=False)

    return effect


def replace_headers(**headers: str | None) -> Effect:
    """Change headers of the response; None removes a header."""
    changes = {name.replace("_", "-"): value for name, value in headers.items()}

    def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        answer = proceed()
        others = {name: value for name, value in answer.headers.items() if name.lower() not in changes}
        more = {name: value for name, value in changes.items() if value is not None}
        return replace(answer, headers={**others, **more})

    return effect


def call_before(*things: Callable[[], object]) -> Effect:
    """Call functions one after another, just before the response is made."""

    def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        for do in things:
            do()
        return proceed()

    return effect


def wait_for(event: threading.Event, *, at_most: float = 10.0) -> Effect:
    """Delay the response until the event is set."""
    return call_before(lambda: event.wait(at_most))


def delay(seconds: float) -> Effect:
    """Delay the response."""
    return call_before(lambda: threading.Event().wait(seconds))


def redirect(location: str) -> Effect:
    """Redirect to another URL."""
    return error_response(302, body=b"elsewhere", Location=location)
