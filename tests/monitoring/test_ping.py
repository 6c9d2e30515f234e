"""Pings, received by real servers on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from tests.support.http_server import Handle, RecordingServer, answer, hang, in_turn, serving
from tilesync.errors import UsageError
from tilesync.monitoring.ping import MAX_BODY_BYTES, Pinger, check_ping_url, encode_body, make_ping_url

REDIRECTED = "HTTP 302: redirects are not followed; give the URL that it leads to"
SHORT = timedelta(seconds=1)


class PingServer:
    """Server of pings that records each path and body. `handle` responds."""

    def __init__(self, server: RecordingServer, bodies: list[bytes]) -> None:
        self.server, self.bodies = server, bodies

    @property
    def paths(self) -> list[str]:
        """Return the paths of the requests so far."""
        return self.server.paths

    def pinger(self, path: str = "/s3cret-uuid", time_limit: timedelta = timedelta(seconds=10)) -> Pinger:
        """Make a pinger of this server."""
        return Pinger(self.server.url(path), time_limit=time_limit)

    def respond(self, handle: Handle) -> None:
        """Respond so from now on."""
        self.server.handle = self.recording(handle)

    def recording(self, handle: Handle) -> Handle:
        """Record the body, then respond."""

        def record(request: BaseHTTPRequestHandler) -> None:
            self.bodies.append(request.rfile.read(int(request.headers["Content-Length"])))
            handle(request)

        return record


@pytest.fixture
def server() -> Iterator[PingServer]:
    """Start a server of pings that takes all of them."""
    with serving(answer()) as recording:
        server = PingServer(recording, [])
        server.respond(answer(b"OK"))
        yield server


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Make an event that is set at the end of the test, for servers that hang."""
    event = threading.Event()
    yield event
    event.set()


def test_a_good_run_pings_start_and_end(server: PingServer) -> None:
    """The start goes to URL/start, the end to URL; each is a POST with a text."""
    pinger = server.pinger()
    pinger.start("mirroring office")
    assert pinger.finish("office: ended well in 3 s\nGebäude", is_success=True) == []
    assert server.paths == ["/s3cret-uuid/start", "/s3cret-uuid"]
    assert server.bodies == [b"mirroring office", "office: ended well in 3 s\nGebäude".encode()]
    assert {headers["content-type"] for headers in server.server.headers} == {"text/plain; charset=utf-8"}


def test_a_failed_run_pings_fail(server: PingServer) -> None:
    """The end of a failed run goes to URL/fail, even if there was no ping of the start."""
    assert server.pinger().finish("office: failed", is_success=False) == []
    assert server.paths == ["/s3cret-uuid/fail"]


@pytest.mark.parametrize(
    ("url", "start", "success"),
    [
        ("https://h/u", "https://h/u/start", "https://h/u"),
        ("https://h/u/", "https://h/u/start", "https://h/u/"),
        ("https://h/u?rid=1&create=1", "https://h/u/start?rid=1&create=1", "https://h/u?rid=1&create=1"),
        ("https://h:8443", "https://h:8443/start", "https://h:8443"),
        ("https://h/u#part", "https://h/u/start", "https://h/u"),
    ],
)
def test_the_suffix_goes_behind_the_path(url: str, start: str, success: str) -> None:
    """A query stays, a slash is not doubled, a fragment is not sent."""
    assert (make_ping_url(url, "start"), make_ping_url(url)) == (start, success)


def test_a_long_body_is_cut_between_letters() -> None:
    """A body has at most 100 kB and is valid UTF-8; what is no text is replaced."""
    for text in ("€" * 50_000, "x" + "€" * 50_000, "xx" + "€" * 50_000, "🏗" * 30_000):
        body = encode_body(text)
        assert MAX_BODY_BYTES - 4 < len(body) <= MAX_BODY_BYTES
        assert text.startswith(body.decode())
    assert encode_body("\udcff") == b"?"
    assert encode_body("short") == b"short"


def test_a_failing_service_is_tried_again(server: PingServer) -> None:
    """After two errors the third attempt arrives, with the same body."""
    server.respond(in_turn(answer(status=500), answer(status=429), answer()))
    assert server.pinger().finish("office: ended well", is_success=True) == []
    assert server.bodies == [b"office: ended well"] * 3


def test_a_service_that_keeps_failing_is_a_warning(server: PingServer) -> None:
    """The warning names the host and the status, not the path, and comes within the limit."""
    server.respond(answer(status=503))
    begun = time.monotonic()
    (warning,) = server.pinger(time_limit=timedelta(seconds=2)).finish("office: ended well", is_success=True)
    assert time.monotonic() - begun < 4
    assert warning.startswith("the ping to 127.0.0.1 kept failing: HTTP 503")
    assert "s3cret" not in warning


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (answer(status=404), "HTTP 404: check the URL of --ping"),
        (
            answer(status=302, Location="/elsewhere"),
            "HTTP 302: redirects are not followed; give the URL that it leads to",
        ),
    ],
)
def test_a_refusal_is_a_warning_at_once(server: PingServer, handle: Handle, reason: str) -> None:
    """A refusal and a redirect are not tried again, and no redirect is followed."""
    server.respond(handle)
    pinger = server.pinger()
    pinger.start()
    assert pinger.finish("", is_success=True) == [f"the ping to 127.0.0.1 failed: {reason}"] * 2
    assert server.paths == ["/s3cret-uuid/start", "/s3cret-uuid"]


def test_a_closed_port_is_a_warning() -> None:
    """A service that is down delays the end by the limit at most, and is named."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/s3cret-uuid"
        pinger = Pinger(url, time_limit=SHORT)
        begun = time.monotonic()
        pinger.start()
        assert time.monotonic() - begun < 1.5
        warnings = pinger.finish("", is_success=True)
    assert time.monotonic() - begun < 8
    assert len(warnings) == 2
    assert all(warning.startswith("the ping to 127.0.0.1 ") and "s3cret" not in warning for warning in warnings)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_hanging_service_delays_the_end_by_the_limit(server: PingServer, over: threading.Event, sent: bytes) -> None:
    """A service that never answers delays the start not at all, and the end by no more than its limit."""
    server.respond(hang(sent, over))
    pinger = server.pinger(time_limit=timedelta(seconds=2))
    begun = time.monotonic()
    pinger.start()
    assert time.monotonic() - begun < 1.5
    warnings = pinger.finish("office: ended well", is_success=True)
    assert 0.5 < time.monotonic() - begun < 8
    assert len(warnings) == 2
    assert "was given up" in warnings[0]
    assert "s3cret" not in "".join(warnings)


def test_the_start_arrives_before_the_end(server: PingServer) -> None:
    """The ping of the end waits for that of the start: after it, the start of a run would look like another run."""

    def respond_slowly(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        answer()(request)

    server.respond(in_turn(respond_slowly, answer()))
    pinger = server.pinger()
    pinger.start()
    assert pinger.finish("", is_success=True) == []
    assert server.paths == ["/s3cret-uuid/start", "/s3cret-uuid"]


def test_a_start_that_hangs_does_not_keep_the_end_from_arriving(server: PingServer, over: threading.Event) -> None:
    """The ping of the end is sent even if that of the start hangs."""
    server.respond(in_turn(hang(b"", over), answer()))
    pinger = server.pinger(time_limit=timedelta(seconds=2))
    pinger.start()
    assert pinger.finish("end", is_success=True) == [
        "the ping to 127.0.0.1 was given up: it had no answer when the run ended"
    ]
    assert server.paths == ["/s3cret-uuid/start", "/s3cret-uuid"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://hc.example/s3cret", "plain http is accepted on this machine only"),
        ("ftp://hc.example/s3cret", "must begin with https://"),
        ("hc.example/s3cret", "must begin with https://"),
        ("https:///s3cret", "is not valid"),
        ("https://hc.example:port/s3cret", "not a valid URL"),
        ("https://hc.example/s3cret uuid", "is not valid"),
        ("https://user:s3cret@hc.example/uuid", "has a user before its host"),
    ],
)
def test_a_url_that_cannot_be_pinged_is_refused(url: str, message: str) -> None:
    """Plain http to another machine and invalid URLs are usage errors, which do not show the path."""
    with pytest.raises(UsageError, match=message) as caught:
        check_ping_url(url)
    assert "s3cret" not in str(caught.value) + caught.value.hint
    check_ping_url("https://hc-ping.com/uuid")
    check_ping_url("http://localhost:8000/ping/uuid")
