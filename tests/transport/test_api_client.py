"""API client against real servers on loopback, and the TLS and proxy settings that both clients share."""

from __future__ import annotations

import gzip
import logging
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.support.api_requests import RecordedApiClient, request_failing, request_once
from tests.support.both_clients import fetch_by_both_clients
from tests.support.http_server import Handle, answer, cut, full_backlog, hang, in_turn, serving
from tilesync.errors import Transient, Unavailable, UsageError
from tilesync.events import Retried
from tilesync.transport import api_client
from tilesync.transport.api_client import ApiResponse

# --- responses ---


def test_response() -> None:
    """Status, body and request headers pass, the User-Agent is tilesync's, and nothing is retried."""
    (status, body), client, server = request_once(answer())
    assert (status, body, client.clock.sleeps_s, server.paths) == (200, b"hello", [], ["/x?sig=SECRET"])
    assert server.headers[0]["user-agent"].startswith("tilesync/")
    assert server.headers[0]["x-attempt"] == "1"


def test_a_form_is_posted() -> None:
    """A form is sent as a POST with its bytes."""
    got = []

    def handle(request: Any) -> None:
        got.append((request.command, request.rfile.read(int(request.headers["content-length"]))))
        answer()(request)

    client = RecordedApiClient()
    with serving(handle) as server:
        client.request(server.url(), form=b"a=1&b=%20")
    assert got == [("POST", b"a=1&b=%20")]


def test_content_codings_are_decoded() -> None:
    """A compressed response is decoded."""
    (_, body), _, _ = request_once(answer(gzip.compress(b"hello", mtime=0), Content_Encoding="gzip"))
    assert body == b"hello"


def test_server_time() -> None:
    """The server's time is its Date header, in UTC; None without a valid one."""

    async def read_response(response: ApiResponse) -> datetime | None:
        return response.server_time()

    def handle(date: str) -> Handle:
        def respond(request: Any) -> None:
            text = f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{date}\r\n"
            request.wfile.write(text.encode())

        return respond

    for date, expected in (
        ("Date: Sun, 01 Mar 2026 08:30:00 GMT\r\n", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
        ("Date: today\r\n", None),
        ("", None),
    ):
        with serving(handle(date)) as server:
            assert RecordedApiClient().request(server.url(), read_response) == expected


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is returned like any other response: the signature reaches no other host."""

    async def read_response(response: ApiResponse) -> int:
        return response.status

    with serving(answer()) as other, serving(answer(status=status, Location=other.url("/stolen"))) as server:
        assert RecordedApiClient().request(server.url("/x?sig=SECRET"), read_response) == status
        assert other.paths == []


def test_errors_of_the_reader_are_not_retried() -> None:
    """An error of the reader, except Transient, is raised unchanged and at once."""

    async def read_response(response: ApiResponse) -> None:
        raise UsageError("no")

    client = RecordedApiClient()
    with serving(answer()) as server, pytest.raises(UsageError, match="no"):
        client.request(server.url(), read_response)
    assert (client.attempts, client.clock.sleeps_s) == (1, [])


# --- retries ---


def test_failures_are_retried() -> None:
    """A failing server is retried, each time with a newly built request and a Retried event."""
    (status, _), client, server = request_once(
        in_turn(answer(status=500), answer(status=503), cut(b"hello", 2), answer())
    )
    assert status == 200
    assert [headers["x-attempt"] for headers in server.headers] == ["1", "2", "3", "4"]
    retries = [event for event in client.events if isinstance(event, Retried)]
    assert [event.seconds for event in retries] == client.clock.sleeps_s
    assert [event.what for event in retries] == ["the server"] * 3
    assert "SECRET" not in str(client.events)


def test_delays_grow() -> None:
    """Delays between attempts grow from a quarter of a second, with jitter."""
    _, client, _ = request_once(in_turn(*[answer(status=500)] * 4, answer()))
    assert all(0.5 * step <= wait <= step for wait, step in zip(client.clock.sleeps_s, (0.25, 0.5, 1, 2), strict=True))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_obeyed(status: int) -> None:
    """A server with Retry-After is not asked earlier, nor much later."""
    _, client, _ = request_once(in_turn(answer(status=status, Retry_After="7"), answer()))
    (wait,) = client.clock.sleeps_s
    assert 7 <= wait <= 7.7


@pytest.mark.parametrize("dated", [True, False])
def test_retry_after_date_is_obeyed(dated: bool) -> None:
    """A date is measured from the response's Date, whatever either clock says; without Date, from our clock."""

    def busy(request: BaseHTTPRequestHandler) -> None:
        now = datetime(2031, 1, 1, tzinfo=UTC) if dated else datetime.now(UTC)
        text = f"Date: {format_datetime(now, usegmt=True)}\r\n" if dated else ""
        until = format_datetime(now + timedelta(seconds=50), usegmt=True)
        head = f"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n{text}Retry-After: {until}\r\n\r\n"
        request.wfile.write(head.encode())

    _, client, _ = request_once(in_turn(busy, answer()))
    (wait,) = client.clock.sleeps_s
    assert 45 <= wait <= 55


def test_a_long_retry_after_is_obeyed_once() -> None:
    """A wait beyond the budget is granted once; at the second one the request fails, and its wait is reported."""
    error, client, _ = request_failing(answer(status=429, Retry_After="100"))
    assert len(client.clock.sleeps_s) == 1
    assert client.clock.sleeps_s[0] >= 100
    assert "429" in str(error)
    assert "asks to wait 100 s" in str(error)


def test_budget_ends_retries() -> None:
    """A server that keeps failing is given up within the budget, with the last reason."""
    error, client, server = request_failing(answer(status=500), budget=10.0)
    assert str(error) == "the server kept failing: the server answered 500"
    assert error.exit_code == 6
    assert 5 <= sum(client.clock.sleeps_s) <= 10
    assert len(server.paths) == len(client.clock.sleeps_s) + 1


def test_no_budget() -> None:
    """Without a budget one failure is final."""
    _, client, server = request_failing(answer(status=500), budget=0.0)
    assert (len(server.paths), client.clock.sleeps_s) == (1, [])


# --- broken connections ---


def test_refused_connection() -> None:
    """A refused connection is retried, then reported without the query of the URL."""
    with serving(answer()) as server:
        url = server.url("/x?sig=SECRET")
    client = RecordedApiClient(1.0)
    with pytest.raises(Unavailable, match="the connection failed") as error:
        client.request(url)
    assert client.attempts > 1
    assert "SECRET" not in str(error.value)


def test_unknown_host() -> None:
    """A host name that does not resolve is reported without the query of the URL."""
    with pytest.raises(Unavailable) as error:
        RecordedApiClient(0.0).request("https://no-such-host.invalid/x?sig=SECRET")
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b"nonsense\r\n\r\n"])
def test_broken_connection(text: bytes) -> None:
    """A server that disconnects before or within its response, or sends no HTTP, is retried."""

    def handle(request: Any) -> None:
        request.wfile.write(text)
        request.close_connection = True

    error, _, server = request_failing(handle, budget=1.0)
    assert "the connection failed" in str(error)
    assert len(server.paths) > 1


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"])
def test_silent_server(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence before, within and after the headers ends after the read timeout, which the message states."""
    monkeypatch.setattr(api_client, "API_READ_TIMEOUT", timedelta(seconds=0.2))
    over = threading.Event()
    try:
        error, _, _ = request_failing(hang(text, over), budget=0.0)
    finally:
        over.set()
    assert "no response within" in str(error)


def test_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that accepts no connection is reported with the connect timeout, not the read timeout."""
    monkeypatch.setattr(api_client, "CONNECT_TIMEOUT", timedelta(seconds=1))
    with full_backlog() as url, pytest.raises(Unavailable, match="no connection within 1 s") as error:
        RecordedApiClient(0.0).request(url)
    assert "SECRET" not in str(error.value)


def test_damaged_content_coding() -> None:
    """A compressed response that cannot be decoded is retried."""
    error, _, _ = request_failing(answer(b"no gzip", Content_Encoding="gzip"), budget=0.0)
    assert "the connection failed" in str(error)


# --- what cannot be asked ---


@pytest.mark.parametrize(
    "url",
    ["http://example.invalid/?sig=SECRET", "ftp://127.0.0.1/?sig=SECRET", "https://[x/?sig=SECRET", "nonsense SECRET",
     "https://127.0.0.1:99999/?sig=SECRET", "https://127.0.0.1:port/?sig=SECRET", "http://127.0.0.1/\x01?sig=SECRET"],
)  # fmt: skip
def test_invalid_url(url: str) -> None:
    """A URL that cannot or must not be requested is a usage error at once, which does not repeat it."""
    client = RecordedApiClient()
    with pytest.raises(UsageError) as error:
        client.request(url)
    assert "SECRET" not in f"{error.value} {error.value.hint} {client.events}"
    assert client.clock.sleeps_s == []


@pytest.mark.parametrize("value", ["SECRET\nX: y", "SECRET\r", "SECRETÄ", "SECRET\0"])
def test_invalid_header(value: str) -> None:
    """A token that is no valid header is a usage error at once, which does not repeat it; nothing is sent."""
    client = RecordedApiClient()
    with serving(answer()) as server, pytest.raises(UsageError) as error:
        client.request(server.url(), Authorization=f"Bearer {value}")
    assert "SECRET" not in f"{error.value} {error.value.hint} {client.events}"
    assert (client.clock.sleeps_s, server.paths) == ([], [])


def test_no_url_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """With all loggers enabled no record contains the query of a URL."""
    with caplog.at_level(logging.DEBUG):
        request_once(in_turn(answer(status=500), answer()))
    assert "SECRET" not in caplog.text


# --- authorities and proxies, for both engines ---


def test_unknown_host_of_both_clients() -> None:
    """Both clients name a host that does not resolve; a retry takes seconds at most."""
    result = fetch_by_both_clients("https://nobody.invalid/?sig=SECRET")
    assert (result["api"][0], result["blob"][0]) == ("Unavailable", "UnknownHost")
    assert all("the name nobody.invalid does not resolve" in retries for _, retries in result.values())


def test_reader_may_raise_transient() -> None:
    """A reader that raises Transient, here for a truncated response, makes the request repeat."""
    seen = []

    async def read_response(response: ApiResponse) -> bytes:
        seen.append(await response.read())
        if len(seen) < 3:
            raise Transient("torn")
        return seen[-1]

    with serving(answer()) as server:
        assert RecordedApiClient().request(server.url(), read_response) == b"hello"
    assert len(seen) == 3
