"""Conversations, against real servers on loopback, and what both engines share: authorities and proxies."""

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
from tilesync.transport import api_client as http
from tilesync.transport.api_client import ApiRequest, ApiResponse, open_api_client
from tilesync.transport.retry_after import retry_after_seconds

# --- servers, for this file and test_bulk.py ---

Handle = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Runs `handle` on each request; `paths` holds what was asked for, `headers` how."""

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
        """A URL of this server."""
        return f"{self.scheme}://{host}:{self.server_address[1]}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        """Note the request, and let the test answer."""
        self.server.paths.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.handle(self)

    do_POST = do_PUT = do_CONNECT = do_GET  # noqa: N815 - the names that http.server looks for


@contextmanager
def serving(handle: Handle, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server as long as the context lasts."""
    server = Server(handle, tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def answer(body: bytes = b"hello", status: int = 200, **headers: str) -> Handle:
    """Answers always the same; underscores in names of headers stand for dashes."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return handle


def in_turn(*handles: Handle) -> Handle:
    """Each request gets the next answer, the last one again and again."""
    waiting = list(handles)

    def handle(request: BaseHTTPRequestHandler) -> None:
        (waiting.pop(0) if len(waiting) > 1 else waiting[0])(request)

    return handle


def cut(body: bytes, at: int) -> Handle:
    """Promises a body and breaks off after `at` bytes of it."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:at])
        request.wfile.flush()
        request.close_connection = True

    return handle


def hang(after: bytes, until: threading.Event) -> Handle:
    """Sends raw bytes and falls silent until the test is over."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(after)
        request.wfile.flush()
        until.wait(30)
        request.close_connection = True

    return handle


def tunnel(request: BaseHTTPRequestHandler) -> None:
    """A proxy's answer to CONNECT: bytes to and fro."""
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


BOTH = """
import asyncio, json, os, sys
from datetime import timedelta
from tilesync.errors import TilesyncError
from tilesync.transport.blob_client import open_blob_client
from tilesync.transport.api_client import ApiRequest, open_api_client
from tilesync.runtime.clock import WallClock

async def talk(url):
    async def make():
        return ApiRequest(url)
    async def accept(reply):
        return [reply.status, (await reply.read()).decode()]
    async with open_api_client(WallClock(), lambda event: None, budget=timedelta()) as conversation:
        return await conversation.request("it", make, accept)

async def bulk(url):
    async with open_blob_client() as pool:
        answer = await pool.get(url, {})
        body = await answer.read_error_body()
        await answer.aclose()
        return [answer.status, body.decode()]

async def said(work):
    try:
        return await work
    except TilesyncError as error:
        return [type(error).__name__, str(error)]

async def main():
    return {"talk": await said(talk(sys.argv[1])), "bulk": await said(bulk(sys.argv[1]))}

print(json.dumps(asyncio.run(main())), flush=True)
os._exit(0)  # pyreqwest 0.15.1 may abort an interpreter that ends right after its last request
"""


def fetch_by_both_clients(url: str, **environment: str) -> dict[str, list[Any]]:
    """What each engine gets, in a process of its own with no other settings than `environment`."""
    settings = {"SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    bare = {key: value for key, value in os.environ.items() if key.upper() not in settings}
    done = subprocess.run(
        [sys.executable, "-c", BOTH, url],
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


# --- conversations ---

HELLO = {"talk": [200, "hello"], "bulk": [200, "hello"]}


async def read_checked(reply: ApiResponse) -> tuple[int, bytes]:
    """Reads an answer as the adapters do: by its verdict."""
    raise_for_status(classify_api_status(reply.status), reply.status, retry_after_seconds(reply.header), "the server")
    return reply.status, await reply.read()


class RecordedApiClient:
    """One conversation on a fake clock; `clock.slept` holds its waits, `events` what it told."""

    def __init__(self, budget: float = 60.0) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.budget = timedelta(seconds=budget)
        self.attempts = 0

    def request(self, url: str, accept: Any = read_checked, *, form: bytes | None = None, **headers: str) -> Any:
        async def make() -> ApiRequest:
            self.attempts += 1
            return ApiRequest(url, {**headers, "X-Attempt": str(self.attempts)}, form)

        async def main() -> Any:
            async with open_api_client(self.clock, self.events.append, budget=self.budget) as talk:
                return await talk.request("the server", make, accept)

        return asyncio.run(main())


def request_once(handle: Handle, *, budget: float = 60.0) -> tuple[Any, RecordedApiClient, Server]:
    talk = RecordedApiClient(budget)
    with serving(handle) as server:
        return talk.request(server.url("/x?sig=SECRET")), talk, server


def request_failing(handle: Handle, *, budget: float = 2.0) -> tuple[Unavailable, RecordedApiClient, Server]:
    talk = RecordedApiClient(budget)
    with serving(handle) as server, pytest.raises(Unavailable) as error:
        talk.request(server.url("/x?sig=SECRET"))
    said = f"{error.value} {error.value.hint} {talk.events}"
    assert "SECRET" not in said
    assert "sig=" not in said
    return error.value, talk, server


# --- answers ---


def test_an_answer() -> None:
    """Status, body and the request's own headers pass, tilesync names itself, and nothing is tried twice."""
    (status, body), talk, server = request_once(answer())
    assert (status, body, talk.clock.sleeps_s, server.paths) == (200, b"hello", [], ["/x?sig=SECRET"])
    assert server.headers[0]["user-agent"].startswith("tilesync/")
    assert server.headers[0]["x-attempt"] == "1"


def test_a_form_is_posted() -> None:
    """A form goes as a POST with its bytes."""
    got = []

    def handle(request: Any) -> None:
        got.append((request.command, request.rfile.read(int(request.headers["content-length"]))))
        answer()(request)

    talk = RecordedApiClient()
    with serving(handle) as server:
        talk.request(server.url(), form=b"a=1&b=%20")
    assert got == [("POST", b"a=1&b=%20")]


def test_codings_of_a_conversation_are_undone() -> None:
    """A conversation speaks of meaning: a compressed answer is read as what it says."""
    (_, body), _, _ = request_once(answer(gzip.compress(b"hello", mtime=0), Content_Encoding="gzip"))
    assert body == b"hello"


def test_the_clock_of_the_server() -> None:
    """The server's time is its Date header, in UTC; without a readable one it is not known."""

    async def accept(reply: ApiResponse) -> datetime | None:
        return reply.server_time()

    def handle(date: str) -> Handle:
        def respond(request: Any) -> None:
            said = f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{date}\r\n"
            request.wfile.write(said.encode())

        return respond

    for date, expected in (
        ("Date: Sun, 01 Mar 2026 08:30:00 GMT\r\n", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
        ("Date: today\r\n", None),
        ("", None),
    ):
        with serving(handle(date)) as server:
            assert RecordedApiClient().request(server.url(), accept) == expected


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is an answer like others: the signature goes nowhere else."""

    async def accept(reply: ApiResponse) -> int:
        return reply.status

    with serving(answer()) as other, serving(answer(status=status, Location=other.url("/stolen"))) as server:
        assert RecordedApiClient().request(server.url("/x?sig=SECRET"), accept) == status
        assert other.paths == []


def test_errors_of_the_reader_end_it() -> None:
    """What the reader of an answer raises, but for Transient, comes out as it is, at once."""

    async def accept(reply: ApiResponse) -> None:
        raise UsageError("no")

    talk = RecordedApiClient()
    with serving(answer()) as server, pytest.raises(UsageError, match="no"):
        talk.request(server.url(), accept)
    assert (talk.attempts, talk.clock.sleeps_s) == (1, [])


# --- trying again ---


def test_failures_are_tried_again() -> None:
    """A failing server is asked again, each time with a request made anew, and each retry is told."""
    (status, _), talk, server = request_once(
        in_turn(answer(status=500), answer(status=503), cut(b"hello", 2), answer())
    )
    assert status == 200
    assert [headers["x-attempt"] for headers in server.headers] == ["1", "2", "3", "4"]
    told = [event for event in talk.events if isinstance(event, Retried)]
    assert [event.seconds for event in told] == talk.clock.sleeps_s
    assert [event.what for event in told] == ["the server"] * 3
    assert "SECRET" not in str(talk.events)


def test_waits_grow() -> None:
    """Waits between attempts grow from a quarter second on, with jitter."""
    _, talk, _ = request_once(in_turn(*[answer(status=500)] * 4, answer()))
    assert all(0.5 * step <= wait <= step for wait, step in zip(talk.clock.sleeps_s, (0.25, 0.5, 1, 2), strict=True))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_obeyed(status: int) -> None:
    """A server that says when to come back is not asked before, nor much later."""
    _, talk, _ = request_once(in_turn(answer(status=status, Retry_After="7"), answer()))
    (wait,) = talk.clock.sleeps_s
    assert 7 <= wait <= 7.7


@pytest.mark.parametrize("dated", [True, False])
def test_a_retry_after_that_is_a_date_is_obeyed(dated: bool) -> None:
    """A date is measured from the answer's own Date, whatever either clock says, and without one from ours."""

    def busy(request: BaseHTTPRequestHandler) -> None:
        now = datetime(2031, 1, 1, tzinfo=UTC) if dated else datetime.now(UTC)
        said = f"Date: {format_datetime(now, usegmt=True)}\r\n" if dated else ""
        until = format_datetime(now + timedelta(seconds=50), usegmt=True)
        head = f"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n{said}Retry-After: {until}\r\n\r\n"
        request.wfile.write(head.encode())

    _, talk, _ = request_once(in_turn(busy, answer()))
    (wait,) = talk.clock.sleeps_s
    assert 45 <= wait <= 55


def test_a_long_retry_after_is_obeyed_once() -> None:
    """A wait beyond the budget is granted once; a server that then asks again is given up, and its wish is told."""
    error, talk, _ = request_failing(answer(status=429, Retry_After="100"))
    assert len(talk.clock.sleeps_s) == 1
    assert talk.clock.sleeps_s[0] >= 100
    assert "429" in str(error)
    assert "asks to wait 100 s" in str(error)


def test_the_budget_ends_it() -> None:
    """A server that keeps failing is given up within the budget, with the last reason."""
    error, talk, server = request_failing(answer(status=500), budget=10.0)
    assert str(error) == "the server kept failing: the server answered 500"
    assert error.exit_code == 6
    assert 5 <= sum(talk.clock.sleeps_s) <= 10
    assert len(server.paths) == len(talk.clock.sleeps_s) + 1


def test_no_budget() -> None:
    """Without a budget one failure is the end."""
    _, talk, server = request_failing(answer(status=500), budget=0.0)
    assert (len(server.paths), talk.clock.sleeps_s) == (1, [])


# --- broken connections ---


def test_nobody_listens() -> None:
    """A refused connection is tried again, then told without the URL's query."""
    with serving(answer()) as server:
        url = server.url("/x?sig=SECRET")
    talk = RecordedApiClient(1.0)
    with pytest.raises(Unavailable, match="the connection failed") as error:
        talk.request(url)
    assert talk.attempts > 1
    assert "SECRET" not in str(error.value)


def test_a_name_that_nobody_knows() -> None:
    """A host that cannot be found is told without the URL's query."""
    with pytest.raises(Unavailable) as error:
        RecordedApiClient(0.0).request("https://no-such-host.invalid/x?sig=SECRET")
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b"nonsense\r\n\r\n"])
def test_a_connection_that_breaks(said: bytes) -> None:
    """A server that hangs up before or within its answer, or talks nonsense, is a failure like others."""

    def handle(request: Any) -> None:
        request.wfile.write(said)
        request.close_connection = True

    error, _, server = request_failing(handle, budget=1.0)
    assert "the connection failed" in str(error)
    assert len(server.paths) > 1


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"])
def test_a_server_that_hangs(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence before, within and behind the headers ends after the time for it, and is told as such."""
    monkeypatch.setattr(http, "API_READ_TIMEOUT", timedelta(seconds=0.2))
    over = threading.Event()
    try:
        error, _, _ = request_failing(hang(said, over), budget=0.0)
    finally:
        over.set()
    assert "no answer within" in str(error)


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


def test_a_connection_that_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not answer at all is told with the limit that connections have, not that of answers."""
    monkeypatch.setattr(http, "CONNECT_TIMEOUT", timedelta(seconds=1))
    with full_backlog() as url, pytest.raises(Unavailable, match="no connection within 1 s") as error:
        RecordedApiClient(0.0).request(url)
    assert "SECRET" not in str(error.value)


def test_a_damaged_coding() -> None:
    """A compressed answer that cannot be read is a failure like others."""
    error, _, _ = request_failing(answer(b"no gzip", Content_Encoding="gzip"), budget=0.0)
    assert "the connection failed" in str(error)


# --- what cannot be asked ---


@pytest.mark.parametrize(
    "url",
    ["http://example.invalid/?sig=SECRET", "ftp://127.0.0.1/?sig=SECRET", "https://[x/?sig=SECRET", "nonsense SECRET",
     "https://127.0.0.1:99999/?sig=SECRET", "https://127.0.0.1:port/?sig=SECRET", "http://127.0.0.1/\x01?sig=SECRET"],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    """What cannot, or must not, be asked is a usage error at once, and is not repeated."""
    talk = RecordedApiClient()
    with pytest.raises(UsageError) as error:
        talk.request(url)
    assert "SECRET" not in f"{error.value} {error.value.hint} {talk.events}"
    assert talk.clock.sleeps_s == []


@pytest.mark.parametrize("value", ["SECRET\nX: y", "SECRET\r", "SECRETÄ", "SECRET\0"])
def test_what_is_no_header(value: str) -> None:
    """A token that no header can carry is a usage error at once, which does not repeat it, and nothing is sent."""
    talk = RecordedApiClient()
    with serving(answer()) as server, pytest.raises(UsageError) as error:
        talk.request(server.url(), Authorization=f"Bearer {value}")
    assert "SECRET" not in f"{error.value} {error.value.hint} {talk.events}"
    assert (talk.clock.sleeps_s, server.paths) == ([], [])


def test_no_url_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """With logging turned up for everybody, no record holds the query of a URL."""
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
    """Both engines trust the authorities of SSL_CERT_FILE."""
    assert fetch_by_both_clients(secure.url("/?sig=SECRET"), SSL_CERT_FILE=bundle) == HELLO


def test_unknown_authorities_are_refused(secure: Server) -> None:
    """Without it both engines refuse a server of an authority that nobody knows, and nothing is asked of it."""
    found = fetch_by_both_clients(secure.url("/?sig=SECRET"))
    assert (found["talk"][0], found["bulk"][0]) == ("Unavailable", "Transient")
    assert "certificate" in found["talk"][1].lower()
    assert "certificate" in found["bulk"][1].lower() or "issuer" in found["bulk"][1].lower()
    assert secure.paths == []


def test_a_name_that_the_certificate_lacks(authority: trustme.CA, bundle: str) -> None:
    """Both engines refuse a certificate for another name, although its authority is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.invalid").configure_cert(context)
    with serving(answer(), context) as server:
        found = fetch_by_both_clients(server.url("/?sig=SECRET", "localhost"), SSL_CERT_FILE=bundle)
        assert (found["talk"][0], found["bulk"][0]) == ("Unavailable", "Transient")
        assert server.paths == []


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_https_proxy(secure: Server, bundle: str, variable: str) -> None:
    """Both engines go through the proxy of HTTPS_PROXY, and it sees the host alone."""
    with serving(tunnel) as proxy:
        environment = {"SSL_CERT_FILE": bundle, variable: proxy.url("")}
        assert fetch_by_both_clients(secure.url("/?sig=SECRET", "localhost"), **environment) == HELLO
        assert proxy.paths == [f"localhost:{secure.server_address[1]}"] * 2


@pytest.mark.parametrize("hosts", ["localhost", "other.net,localhost", "*"])
def test_no_proxy(secure: Server, bundle: str, hosts: str) -> None:
    """Both engines go around the proxy for the hosts of NO_PROXY."""
    with serving(tunnel) as proxy:
        url = secure.url("/?sig=SECRET", "localhost")
        assert fetch_by_both_clients(url, SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy.url(""), NO_PROXY=hosts) == HELLO
        assert proxy.paths == []


def test_no_proxy_for_others(secure: Server, bundle: str) -> None:
    """A host that NO_PROXY does not name goes through the proxy."""
    with serving(tunnel) as proxy:
        url = secure.url("/?sig=SECRET", "localhost")
        assert (
            fetch_by_both_clients(url, SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy.url(""), NO_PROXY="other.net") == HELLO
        )
        assert len(proxy.paths) == 2


def test_a_proxy_that_refuses(secure: Server, bundle: str) -> None:
    """A proxy that wants a login ends both engines at once, told without the URL, and nothing goes around it."""
    with serving(answer(status=407)) as proxy:
        url = secure.url("/?sig=SECRET", "localhost")
        found = fetch_by_both_clients(url, SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy.url(""))
        told = ["Unavailable", "a proxy wants a user name and a password (407)"]
        assert found == {"talk": told, "bulk": told}
        assert len(proxy.paths) == 2
        assert secure.paths == []


def test_a_name_that_does_not_resolve() -> None:
    """Both engines name a host that nobody knows; an attempt that is made again is made within seconds."""
    found = fetch_by_both_clients("https://nobody.invalid/?sig=SECRET")
    assert (found["talk"][0], found["bulk"][0]) == ("Unavailable", "UnknownHost")
    assert all("the name nobody.invalid does not resolve" in told for _, told in found.values())


def test_the_password_of_a_proxy_is_not_told(secure: Server, bundle: str) -> None:
    """A proxy that cannot be reached is told without the password that its URL holds."""
    with serving(answer()) as gone:
        proxy = gone.url("").replace("://", "://user:SECRET@")
    found = fetch_by_both_clients(secure.url("/", "localhost"), SSL_CERT_FILE=bundle, HTTPS_PROXY=proxy)
    assert (found["talk"][0], found["bulk"][0]) == ("Unavailable", "Transient")


def test_transient_is_what_readers_raise() -> None:
    """A reader that finds an answer torn has it asked for again."""
    seen = []

    async def accept(reply: ApiResponse) -> bytes:
        seen.append(await reply.read())
        if len(seen) < 3:
            raise Transient("torn")
        return seen[-1]

    with serving(answer()) as server:
        assert RecordedApiClient().request(server.url(), accept) == b"hello"
    assert len(seen) == 3
