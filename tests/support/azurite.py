"""Azurite, a real Azure Blob service for the tests: containers, SAS links, and a proxy that can inject faults.

Azurite is looked for in the variable AZURITE (the program's path), in `.azurite/` of the checkout (`make test` puts it
there) and on the PATH.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from azure.storage.blob import (
    AccessPolicy,
    BlobBlock,
    BlobServiceClient,
    ContainerClient,
    ContentSettings,
    CorsRule,
    generate_container_sas,
)

from tests.support.http_server import LoopbackHttpServer, QuietHandler
from tilesync.azure.sas import parse_sas_link
from tilesync.model import SasUrl

ACCOUNT = "devstoreaccount1"
KEY = base64.b64encode(b"a key of these tests, 64 bytes long as those of real accounts are").decode()
PROGRAM = "azurite-blob"
INSTALLED_PROGRAM = Path(__file__).resolve().parents[2] / ".azurite" / "node_modules" / ".bin" / PROGRAM
AZURITE_OPTIONS = ("--disableTelemetry", "--skipApiVersionCheck", "--silent", "--loose", "--inMemoryPersistence")
LISTENING_PREFIX = "successfully listens on "
START_TIMEOUT = timedelta(seconds=60)


@dataclass(frozen=True)
class BlobContent:
    """A blob to upload: stored bytes and headers. With `blocks` the service computes no MD5."""

    data: bytes
    content_type: str = "application/octet-stream"
    content_encoding: str | None = None
    blocks: bool = False


def find_azurite() -> str | None:
    """Return the path of Azurite's blob service; None if it is not installed."""
    given = os.environ.get("AZURITE")
    return given or (
        str(INSTALLED_PROGRAM) if INSTALLED_PROGRAM.exists() and shutil.which("node") else shutil.which(PROGRAM)
    )


class Azurite:
    """Running blob service at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.service = BlobServiceClient(f"{url}/{ACCOUNT}", credential={"account_name": ACCOUNT, "account_key": KEY})

    def create_container(self, container: str, blobs: Mapping[str, BlobContent]) -> ContainerClient:
        """Make a container with `blobs`."""
        client = self.service.create_container(container)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: put_blob(client, *item), blobs.items()))
        return client

    def make_sas_link(
        self, container: str, *, life: timedelta | None = None, policy: str | None = None, url: str | None = None
    ) -> str:
        """Make a container SAS link that may read and list; `url` replaces the address of this service.

        It lives for `life`, cut to whole seconds, or as long as the container has the access policy `policy`.
        """
        end = {"permission": "rl", "expiry": datetime.now(UTC) + life} if life is not None else {"policy_id": policy}
        query = generate_container_sas(ACCOUNT, container, KEY, protocol="https,http", **end)
        return f"{url or self.url}/{ACCOUNT}/{container}?{query}"

    def allow_cors(self) -> None:
        """Allow web pages of any origin to read public blobs (CORS)."""
        rule = CorsRule(["*"], ["GET", "HEAD", "OPTIONS"], allowed_headers=["*"], exposed_headers=["*"])
        self.service.set_service_properties(cors=[rule])

    def close(self) -> None:
        """Close the connections of the client."""
        self.service.close()


def put_blob(container: ContainerClient, name: str, upload: BlobContent) -> None:
    """Write one blob; replace an existing one."""
    settings = ContentSettings(content_type=upload.content_type, content_encoding=upload.content_encoding)
    blob = container.get_blob_client(name)
    if upload.blocks:
        blob.stage_block("MDAwMA==", upload.data)
        blob.commit_block_list([BlobBlock("MDAwMA==")], content_settings=settings)
    else:
        blob.upload_blob(upload.data, overwrite=True, content_settings=settings)


def set_access_policy(container: ContainerClient, policy: str) -> None:
    """Set `policy` as the only access policy of the container: read and list, for an hour."""
    end = datetime.now(UTC) + timedelta(hours=1)
    container.set_container_access_policy({policy: AccessPolicy("rl", expiry=end)})


@contextmanager
def start_azurite(program: str, *options: str) -> Iterator[Azurite]:
    """Run Azurite in memory on a free loopback port, until the context ends."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                [program, "--blobHost", "127.0.0.1", "--blobPort", "0", *AZURITE_OPTIONS, *options],
                cwd=folder,
                env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            azurite = Azurite(_wait_until_listening(process, log))
            try:
                yield azurite
            finally:
                azurite.close()
        finally:
            _stop(process)


def _wait_until_listening(process: subprocess.Popen[bytes], log: Path) -> str:
    """Read the address that the server prints. Raises RuntimeError with its output if it does not start."""
    deadline = time.monotonic() + START_TIMEOUT.total_seconds()
    while process.poll() is None and time.monotonic() < deadline:
        log_text = log.read_text(errors="replace")
        if LISTENING_PREFIX in log_text and log_text.endswith("\n"):
            return log_text.rpartition(LISTENING_PREFIX)[2].split()[0]
        time.sleep(0.02)
    raise RuntimeError(f"Azurite did not start: {log.read_text(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- containers to write to ---


def new_container(azurite: Azurite) -> str:
    """Make an empty container; return its URL without a signature."""
    name = f"d{uuid.uuid4()}"
    azurite.create_container(name, {})
    return f"{azurite.url}/{ACCOUNT}/{name}"


def signed_link(url: str, *, life: timedelta = timedelta(hours=1), permission: str = "racwdl") -> SasUrl:
    """Make a SAS link that may write to a container."""
    end = datetime.now(UTC) + life
    query = generate_container_sas(
        ACCOUNT, url.rpartition("/")[2], KEY, protocol="https,http", permission=permission, expiry=end
    )
    return parse_sas_link(f"{url}?{query}")


# --- the proxy ---


@dataclass(frozen=True)
class ProxiedRequest:
    """A request to Azurite; `blob` is empty for a listing, `number` counts the requests for blobs from 1."""

    blob: str
    blob_request_number: int
    query: dict[str, str]
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def link_ends(self) -> datetime:
        """Return the expiry of the link that signs the request."""
        return datetime.fromisoformat(self.query["se"])


@dataclass(frozen=True)
class RefusedResponse:
    """Response that is sent instead of Azurite's."""

    status: int
    code: str


ProxyInterceptor = Callable[[ProxiedRequest], RefusedResponse | None]


class AzureProxy:
    """Reverse proxy on loopback in front of Azurite; requests pass unchanged.

    `intercept` is called with each request before it is forwarded; it may wait, or refuse the request. A delay slows
    each response for a blob down, smaller listing pages can be requested, and the body of a blob can be cut
    once. The proxy records the requests, and (blob, status) of each response.
    """

    def __init__(self, azurite: Azurite, *, delay: float = 0.0, page_size: int | None = None) -> None:
        self.target = urlsplit(azurite.url)
        self.delay_s = delay
        self.page_size = page_size
        self.intercept: ProxyInterceptor = lambda passing: None
        self.truncations: dict[str, int] = {}
        self.answered: list[tuple[str, int]] = []
        self.requests: list[ProxiedRequest] = []
        self.emulates_copy_from_url = False
        """True if the proxy does copies from URLs itself: Azure supports them, Azurite does not."""
        self._blob_request_count = 0
        self._lock = threading.Lock()
        self._server: LoopbackHttpServer | None = None

    @property
    def url(self) -> str:
        """Base URL of the proxy."""
        assert self._server is not None
        return self._server.url("")

    def statuses(self, blob: str) -> list[int]:
        """Return the statuses that Azurite sent for one blob, in order."""
        return [status for name, status in self.answered if name == blob]

    def record_request(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> ProxiedRequest:
        """Parse a request."""
        parts = urlsplit(path)
        name = "/".join(unquote(parts.path).split("/")[3:])
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            self._blob_request_count += bool(name)
            passing = ProxiedRequest(name, self._blob_request_count, query, method, headers or {})
            self.requests.append(passing)
            return passing

    def __enter__(self) -> AzureProxy:
        handler = type("Handler", (_AzureProxyHandler,), {"proxy": self})
        self._server = LoopbackHttpServer(handler).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.__exit__()


class _AzureProxyHandler(QuietHandler):
    proxy: AzureProxy

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        """Forward one request, and its response."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        passing = self.proxy.record_request(self.path, self.command, headers)
        sent = self.rfile.read(int(headers.get("content-length") or 0))
        if (refusal := self.proxy.intercept(passing)) is not None:
            self.proxy.answered.append((passing.blob, refusal.status))
            no = f"HTTP/1.1 {refusal.status} No\r\nx-ms-error-code: {refusal.code}\r\nContent-Length: 0\r\n\r\n"
            self.wfile.write(no.encode())
            return
        if passing.blob:
            time.sleep(self.proxy.delay_s)
        if self.proxy.emulates_copy_from_url and "x-ms-copy-source" in headers and "x-ms-requires-sync" not in headers:
            sent, headers = self._fetch_copy_source(headers)
            if not headers:
                self.wfile.write(sent)
                return
        lists = passing.query.get("comp") == "list"
        more = f"&maxresults={self.proxy.page_size}" if self.proxy.page_size and lists else ""
        onward = {name: value for name, value in headers.items() if name not in {"host", "connection"}}
        # A new connection each time: Azurite closes an idle one after 5 s, also when a request is on its way.
        with closing(http.client.HTTPConnection(self.proxy.target.netloc, timeout=30)) as connection:
            connection.request(self.command, self.path + more, body=sent or None, headers=onward)
            answer = connection.getresponse()
            body = answer.read()
        self.proxy.answered.append((passing.blob, answer.status))
        fields = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP_HEADERS]
        length = answer.getheader("content-length") if self.command == "HEAD" else str(len(body))
        lines = [f"{name}: {value}" for name, value in [*fields, ("Content-Length", length or "0")]]
        head = "\r\n".join([f"HTTP/1.1 {answer.status} {answer.reason}", *lines, "", ""])
        cut = self.proxy.truncations.pop(passing.blob, None)
        self.wfile.write(head.encode("latin-1") + body[:cut])
        if cut is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _fetch_copy_source(self, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
        """Fetch the source of a copy: its bytes and the headers for the upload; or an error response and none."""
        source = urlsplit(headers.pop("x-ms-copy-source"))
        connection = http.client.HTTPConnection(str(source.hostname), source.port, timeout=30)
        asked = {"If-Match": etag} if (etag := headers.pop("x-ms-source-if-match", None)) else {}
        if piece := headers.pop("x-ms-source-range", None):
            asked["Range"] = piece
        connection.request("GET", f"{source.path}?{source.query}", headers=asked)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        md5 = headers.pop("x-ms-source-content-md5", None)
        headers.pop("x-ms-copy-source-blob-properties", None)
        wrong = md5 is not None and base64.b64encode(hashlib.md5(data).digest()).decode() != md5
        if answer.status >= 300 or wrong:
            code = "Md5Mismatch" if wrong else "CannotVerifyCopySource"
            no = f"HTTP/1.1 {400 if wrong else 403} No\r\nx-ms-error-code: {code}\r\nContent-Length: 0\r\n\r\n"
            return no.encode(), {}
        return data, {**headers, "content-length": str(len(data))}

    do_PUT = do_HEAD = do_DELETE = do_POST = do_GET  # noqa: N815 - names of http.server


_HOP_BY_HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length"}
