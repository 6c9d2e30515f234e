"""What can go wrong with an answer: which requests it befalls, how often, and what it does to them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from tilesync.demo.fake_service import FakeRequest, FakeResponse, storage_error

RequestMatcher = Callable[[FakeRequest], bool]
Effect = Callable[[FakeRequest, Callable[[], FakeResponse]], FakeResponse]
"""Gets the request and a way to the answer that would have been given; gives the answer that is sent."""


@dataclass
class Fault:
    """Befalls the `times` first requests that `when` means, after `skip` of them; None: all.

    Unless `optional`, a fault that was never hit fails the test. `hits` counts.
    """

    matches: RequestMatcher
    effect: Effect
    times: int | None = 1
    skip: int = 0
    optional: bool = False
    hits: int = 0
    seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def should_apply(self, request: FakeRequest) -> bool:
        """Whether this request is befallen."""
        if not self.matches(request):
            return False
        with self.lock:
            self.seen += 1
            struck = self.seen > self.skip and (self.times is None or self.hits < self.times)
            self.hits += struck
        return struck


# --- which requests ---


def blob_name(request: FakeRequest) -> str | None:
    """The blob that a request asks for; None when it asks for something else."""
    if request.is_api or request.is_listing or request.path == "/connect/token":
        return None
    return unquote(request.path.lstrip("/")).partition("/")[2]


def is_api(request: FakeRequest) -> bool:
    """Requests to the Mesh Export API."""
    return request.is_api


def is_listing(request: FakeRequest) -> bool:
    """Requests for a page of a container."""
    return request.is_listing


def is_blob(request: FakeRequest) -> bool:
    """Requests for a blob."""
    return blob_name(request) is not None


def is_storage(request: FakeRequest) -> bool:
    """Requests for a blob or a page."""
    return request.is_listing or is_blob(request)


def is_blob_named(*names: str) -> RequestMatcher:
    """Requests for these blobs."""
    return lambda request: blob_name(request) in names


def is_range_request(request: FakeRequest) -> bool:
    """Requests for a blob from some byte on."""
    return is_blob(request) and request.headers.get("range") is not None


# --- what happens to them ---


def error_response(status: int, code: str = "", *, body: bytes = b"", **headers: str) -> Effect:
    """An error as the storage words it, or with a body of one's own."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}

    def effect(_: FakeRequest, __: Callable[[], FakeResponse]) -> FakeResponse:
        answer = FakeResponse(status, body) if body or not code else storage_error(status, code, "a fault of the test")
        return replace(answer, headers={**answer.headers, **said})

    return effect


def truncate_body(at: int) -> Effect:
    """The body breaks off behind so many bytes; negative counts from its end."""

    def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        answer = proceed()
        return replace(answer, sent_bytes=max(0, at if at >= 0 else len(answer.body) + at))

    return effect


def ignore_range(request: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
    """The Range header is taken for nothing: the whole blob comes."""
    asked = request.headers.get("range")
    del request.headers["range"]
    try:
        return proceed()
    finally:
        if asked is not None:
            request.headers["range"] = asked


def halve_body(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
    """The body is shorter than it should be, and says so itself: Content-Length is that of the half."""
    answer = proceed()
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def flip_last_bit(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
    """One bit of the last byte is another one."""
    answer = proceed()
    return replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1])) if answer.body else answer


def omit_content_length(at: int | None = None) -> Effect:
    """No header states the length of the body, which ends with the connection, behind `at` bytes of it."""

    def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        answer = proceed()
        return replace(answer, body=answer.body[:at], has_content_length=False)

    return effect


def replace_headers(**headers: str | None) -> Effect:
    """The answer states other things of its bytes; None: not this one."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}

    def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        answer = proceed()
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in said}
        more = {name: value for name, value in said.items() if value is not None}
        return replace(answer, headers={**kept, **more})

    return effect


def call_before(*things: Callable[[], object]) -> Effect:
    """Some things happen, one after another, just before the answer is made."""

    def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        for do in things:
            do()
        return proceed()

    return effect


def wait_for(event: threading.Event, *, at_most: float = 10.0) -> Effect:
    """The answer waits until the gate opens."""
    return call_before(lambda: event.wait(at_most))


def delay(seconds: float) -> Effect:
    """The answer is slow."""
    return call_before(lambda: threading.Event().wait(seconds))


def redirect(location: str) -> Effect:
    """The answer sends elsewhere."""
    return error_response(302, body=b"elsewhere", Location=location)
