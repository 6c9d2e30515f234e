"""API client against real servers on loopback, and the TLS and proxy settings that both clients share."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.clock import FakeClock
from tilesync.core.http_status import raise_for_status
from tilesync.errors import Transient, Unavailable, UsageError
from tilesync.events import Event, Retried
from tilesync.itwin.responses import classify_api_status
from tilesync.transport import api_client
from tilesync.transport.api_client import ApiRequest, ApiResponse, open_api_client
from tilesync.transport.retry import retry_after_seconds

# --- servers, for this file and the other tests of transport ---

Handle = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """HTTP server that runs `handle` on each request, and records its path and headers."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, handle: Handle, tls: ssl.SSLContext | None = None) -> None:
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.handle = handle
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return a URL of this server."""
        return f"{self.scheme}://{host}:{self.server_address[1]}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: a client may disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """Record the request, and let the test respond."""
        self.server.paths.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.handle(self)

    do_POST = do_PUT = do_CONNECT = do_GET  # noqa: N815 - the names that http.server looks for


@contextmanager
def serving(handle: Handle, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server within the context."""
    server = Server(handle, tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def answer(body: bytes = b"hello", status: int = 200, **headers: str) -> Handle:
    """Always send the same response; underscores in header names stand for dashes."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return handle


def in_turn(*handles: Handle) -> Handle:
    """Give each request the next response, and repeat the last one."""
    waiting = list(handles)

    def handle(request: BaseHTTPRequestHandler) -> None:
        (waiting.pop(0) if len(waiting) > 1 else waiting[0])(request)

    return handle


def cut(body: bytes, at: int) -> Handle:
    """Announce a body, and disconnect after `at` bytes of it."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:at])
        request.wfile.flush()
        request.close_connection = True

    return handle


def hang(after: bytes, until: threading.Event) -> Handle:
    """Send raw bytes, then nothing until the test is over."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(after)
        request.wfile.flush()
        until.wait(30)
        request.close_connection = True

    return handle


def tunnel(request: BaseHTTPRequestHandler) -> None:
    """Respond to CONNECT as a proxy: forward bytes in both directions."""
    host, _, port = request.path.rpartition(":")
    with socket.create_connection((host, int(port))) as far:
        request.send_response(200)
        request.end_headers()
        near = request.connection
        while True:
            for one in select.select([near, far], [], [])[0]:
                data = one.recv(65536)
                if not data:
                    request.close_connection = True
                    return
                (far if one is near else near).sendall(data)


BOTH_CLIENTS_PROGRAM = """
import asyncio, json, os, sys
from datetime import timedelta
from tilesync.errors import TilesyncError
from tilesync.transport.blob_client import open_blob_client
from tilesync.transport.api_client import ApiRequest, open_api_client
from tilesync.runtime.clock import WallClock

async def api(url):
    async def build_request():
        return ApiRequest(url)
    async def read_response(response):
        return [response.status, (await response.read()).decode()]
    async with open_api_client(WallClock(), lambda event: None, budget=timedelta()) as api_client:
        return await api_client.request("it", build_request, read_response)

async def blob(url):
    async with open_blob_client() as blob_client:
        response = await blob_client.get(url, {})
        body = await response.read_error_body()
        await response.aclose()
        return [response.status, body.decode()]

async def outcome(work):
    try:
        return await work
    except TilesyncError as error:
        return [type(error).__name__, str(error)]

async def main():
    return {"api": await outcome(api(sys.argv[1])), "blob": await outcome(blob(sys.argv[1]))}

print(json.dumps(asyncio.run(main())), flush=True)
os._exit(0)  # pyreqwest 0.15.1 may abort an interpreter that ends right after its last request
"""


def fetch_by_both_clients(url: str, **environment: str) -> dict[str, list[Any]]:
    """Fetch a URL with both clients, in a separate process with only the settings of `environment`."""
    settings = {"SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    bare = {key: value for key, value in os.environ.items() if key.upper() not in settings}
    done = subprocess.run(
        [sys.executable, "-c", BOTH_CLIENTS_PROGRAM, url],
        env=bare | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "SECRET" not in done.stdout + done.stderr
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


# --- API client ---

HELLO = {"api": [200, "hello"], "blob": [200, "hello"]}


async def read_checked(response: ApiResponse) -> tuple[int, bytes]:
    """Read a response by its status verdict, as the callers do."""
    raise_for_status(
        classify_api_status(response.status), response.status, retry_after_seconds(response.header), "the server"
    )
    return response.status, await response.read()


class RecordedApiClient:
    """API client on a fake clock; `clock.sleeps_s` holds its delays, `events` its events."""

    def __init__(self, budget: float = 60.0) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.budget = timedelta(seconds=budget)
        self.attempts = 0

    def request(self, url: str, read_response: Any = read_checked, *, form: bytes | None = None, **headers: str) -> Any:
        async def build_request() -> ApiRequest:
            self.attempts += 1
            return ApiRequest(url, {**headers, "X-Attempt": str(self.attempts)}, form)

        async def main() -> Any:
            async with open_api_client(self.clock, self.events.append, budget=self.budget) as client:
                return await client.request("the server", build_request, read_response)

        return asyncio.run(main())


def request_once(handle: Handle, *, budget: float = 60.0) -> tuple[Any, RecordedApiClient, Server]:
    client = RecordedApiClient(budget)
    with serving(handle) as server:
        return client.request(server.url("/x?sig=SECRET")), client, server


def request_failing(handle: Handle, *, budget: float = 2.0) -> tuple[Unavailable, RecordedApiClient, Server]:
    client = RecordedApiClient(budget)
    with serving(handle) as server, pytest.raises(Unavailable) as error:
        client.request(server.url("/x?sig=SECRET"))
    text = f"{error.value} {error.value.hint} {client.events}"
    assert "SECRET" not in text
    assert "sig=" not in text
    return error.value, client, server


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


@contextmanager
def full_backlog() -> Iterator[str]:
    """The URL of a host that lets no connection be made: those who listen there have no room for one more."""
    with socket.socket() as listening, ExitStack() as closing:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(8):
            waiting = closing.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}/x?sig=SECRET"


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


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


@pytest.fixture
def secure(tls: ssl.SSLContext) -> Iterator[Server]:
    with serving(answer(), tls) as server:
        yield server


def test_ssl_cert_file(secure: Server, bundle: str) -> None:
    """Both clients trust the authorities of SSL_CERT_FILE."""
    assert fetch_by_both_clients(secure.url("/?sig=SECRET"), SSL_CERT_FILE=bundle) == HELLO


def test_unknown_authorities_are_refused(secure: Server) -> None:
    """Without SSL_CERT_FILE both clients refuse a server of an unknown authority, and send it no request."""
    found = fetch_by_both_clients(secure.url("/?sig=SECRET"))
    assert (found["api"][0], found["blob"][0]) == ("Unavailable", "Transient")
    assert "certificate" in found["api"][1].lower()
    assert "certificate" in found["blob"][1].lower() or "issuer" in found["blob"][1].lower()
    assert secure.paths == []


def test_certificate_for_another_name(authority: trustme.CA, bundle: str) -> None:
    """Both clients refuse a certificate for another name, although its authority is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.invalid").configure_cert(context)
    with serving(answer(), context) as server:
        found = fetch_by_both_clients(server.url("/?sig=SECRET", "localhost"), SSL_CERT_FILE=bundle)
        assert (found["api"][0], found["blob"][0]) == ("Unavailable", "Transient")
        assert server.paths == []


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_https_proxy(secure: Server, bundle: str, variable: str) -> None:
    """Both clients use the proxy of HTTPS_PROXY, which sees only the host."""
    with serving(tunnel) as proxy:
        environment = {"SSL_CERT_FILE": bundle, variable: proxy.url("")}
        assert fetch_by_both_clients(secure.url("/?sig=SECRET", "localhost"), **environment) == HELLO
        assert proxy.paths == [f"localhost:{secure.server_address[1]}"] * 2


@pytest.mark.parametrize("hosts", ["localhost", "other.net,localhost", "*"])
def test_no_proxy(secure: Server, bundle: str, hosts: str) -> None:
    """Both clients bypass the proxy for the hosts of NO_PROXY."""
    with serving(tunnel) as proxy:
        url = secure.url("/?sig=SECRET", "localhost")
        assert fetch_by_both_clients(url, SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy.url(""), NO_PROXY=hosts) == HELLO
        assert proxy.paths == []


def test_no_proxy_for_others(secure: Server, bundle: str) -> None:
    """A host that is not in NO_PROXY is reached through the proxy."""
    with serving(tunnel) as proxy:
        url = secure.url("/?sig=SECRET", "localhost")
        assert (
            fetch_by_both_clients(url, SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy.url(""), NO_PROXY="other.net") == HELLO
        )
        assert len(proxy.paths) == 2


def test_proxy_that_wants_a_login(secure: Server, bundle: str) -> None:
    """A proxy that wants a login ends both clients at once, without the URL in the message; nothing bypasses it."""
    with serving(answer(status=407)) as proxy:
        url = secure.url("/?sig=SECRET", "localhost")
        found = fetch_by_both_clients(url, SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy.url(""))
        retries = ["Unavailable", "a proxy wants a user name and a password (407)"]
        assert found == {"api": retries, "blob": retries}
        assert len(proxy.paths) == 2
        assert secure.paths == []


def test_unknown_host_of_both_clients() -> None:
    """Both clients name a host that does not resolve; a retry takes seconds at most."""
    found = fetch_by_both_clients("https://nobody.invalid/?sig=SECRET")
    assert (found["api"][0], found["blob"][0]) == ("Unavailable", "UnknownHost")
    assert all("the name nobody.invalid does not resolve" in retries for _, retries in found.values())


def test_proxy_password_is_not_reported(secure: Server, bundle: str) -> None:
    """An unreachable proxy is reported without the password in its URL."""
    with serving(answer()) as gone:
        proxy = gone.url("").replace("://", "://user:SECRET@")
    found = fetch_by_both_clients(secure.url("/", "localhost"), SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy)
    assert (found["api"][0], found["blob"][0]) == ("Unavailable", "Transient")


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
