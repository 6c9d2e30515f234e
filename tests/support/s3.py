"""moto, a real S3 server for the tests, in its own process; and a proxy that can inject faults."""

from __future__ import annotations

import functools
import http.client
import importlib.util
import json
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest

from tests.support.builders import IMODEL
from tests.support.http_server import LoopbackHttpServer, QuietHandler
from tests.support.simulator import ProgramResult, Simulator, run_program
from tilesync.events import Event
from tilesync.model.storage import ObjectHeaders
from tilesync.stores.s3.client import S3Objects
from tilesync.stores.s3.multipart import PART_BYTES
from tilesync.stores.s3.session import open_bucket

KEY, SECRET, REGION = "AKIAOFTHESETESTS", "the-secret-of-these-tests", "eu-central-1"
START_TIMEOUT = timedelta(seconds=60)
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}
"""Environment with the test credentials, which hides other credentials of this machine."""


def is_missing() -> bool:
    """Return whether the server or its client library is missing."""
    return not all(importlib.util.find_spec(name) for name in ("moto", "flask", "boto3", "obstore"))


class BucketServer:
    """Running server at `url`, with an independent client (boto3) to check the content."""

    def __init__(self, url: str) -> None:
        import boto3
        from botocore.config import Config

        self.url = url
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def new_bucket(self) -> str:
        """Make an empty bucket; return its name."""
        name = f"d{uuid.uuid4()}"
        self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return name

    def keys(self, bucket: str) -> list[str]:
        """Return the objects of a bucket."""
        return sorted(each["Key"] for each in self.client.list_objects_v2(Bucket=bucket).get("Contents", []))

    def unfinished_uploads(self, bucket: str) -> list[str]:
        """Return the names of the open multipart uploads."""
        uploads = self.client.list_multipart_uploads(Bucket=bucket)
        return [each["Key"] for each in uploads.get("Uploads", [])]


@contextmanager
def cached_service_models() -> Iterator[None]:
    """Parse each service model of botocore once, not once a client."""
    from botocore.loaders import JSONFileLoader

    with pytest.MonkeyPatch.context() as patch:
        load_file = functools.cache(JSONFileLoader().load_file)
        patch.setattr(JSONFileLoader, "load_file", lambda self, path: load_file(path))
        yield


@contextmanager
def start_bucket_server() -> Iterator[BucketServer]:
    """Run the server in memory on a free loopback port, until the context ends."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", "import moto.server; moto.server.main()", "-H", "127.0.0.1", "-p", "0"],
                cwd=folder,
                env={**os.environ, **ENVIRONMENT, "MOTO_ENABLE_ISO_REGIONS": "false"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            server = BucketServer(_wait_until_listening(process, log))
            yield server
            server.client.close()
        finally:
            process.terminate()
            process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT.total_seconds()
    while process.poll() is None and time.monotonic() < deadline:
        result = re.search(r"Running on (http://127\.0\.0\.1:\d+)\s", log.read_text(errors="replace"))
        if result:
            return result[1]
        time.sleep(0.02)
    raise RuntimeError(f"moto did not start: {log.read_text(errors='replace')}")


def ignore_event(event: Event) -> None:
    """Ignore an event."""


@contextmanager
def bucket_objects(
    url: str,
    bucket: str,
    *,
    prefix: str = "",
    observe: Callable[[Event], None] = ignore_event,
    budget: timedelta = timedelta(seconds=20),
    term: timedelta = timedelta(seconds=15),
) -> Iterator[S3Objects]:
    """Make the objects of a bucket."""
    with open_bucket(bucket, prefix, observe, endpoint_url=url, retry_budget=budget, term=term) as objects:
        yield objects


# --- the proxy ---


@dataclass
class S3Request:
    """A request; `target` is path and query as sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> str:
        return urlsplit(self.target).query


@dataclass
class S3Fault:
    """Fault for the first `times` requests that match `when`, after `skip` of them; at most one per request.

    `answer`: respond with this status and body instead. `lost`: forward the request, but drop the response. `cut`: send
    so many bytes of the body, then break the connection. `removed_headers`: drop these headers of the request. `etag`:
    add this ETag to the response.
    """

    matches: Callable[[S3Request], bool]
    answer: tuple[int, str] | None = None
    lost: bool = False
    cut: int | None = None
    removed_headers: tuple[str, ...] = ()
    etag: str | None = None
    max_hits: int = 1
    skip_first: int = 0
    hits: int = 0
    seen: int = 0

    def should_apply(self, request: S3Request) -> bool:
        """Return whether the fault applies to this request, and count it."""
        if not self.matches(request):
            return False
        self.seen += 1
        struck = self.seen > self.skip_first and self.hits < self.max_hits
        self.hits += struck
        return struck


def error_response(status: int, code: str) -> tuple[int, str]:
    """Build an error response in the format of S3."""
    return status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>of the test, {SECRET}</Message></Error>"


class HasUrl(Protocol):
    """Run a server."""

    url: str


class S3Proxy:
    """Reverse proxy on loopback in front of a server. It records the requests. A fault that was never hit fails the
    test; `rewrite` changes the target of requests.
    """

    def __init__(self, server: HasUrl, *faults: S3Fault, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.target_host = urlsplit(server.url).netloc
        self.faults = faults
        self.rewrite: Callable[[str], str] = lambda target: target
        self.requests: list[S3Request] = []
        self.lock = threading.Lock()

    def __enter__(self) -> S3Proxy:
        handler = type("Handler", (_S3ProxyHandler,), {"proxy": self})
        self._server = LoopbackHttpServer(handler, self.tls).__enter__()
        self.url = self._server.url("")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._server.__exit__()
        assert kind is not None or all(fault.hits for fault in self.faults), "a fault was never hit"

    def match_fault(self, request: S3Request) -> S3Fault | None:
        """Return the fault that applies to a request."""
        with self.lock:
            self.requests.append(request)
            return next((fault for fault in self.faults if fault.should_apply(request)), None)


class _S3ProxyHandler(QuietHandler):
    proxy: S3Proxy

    def forward(self) -> None:
        """Forward one request, and its response."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = S3Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        fault = self.proxy.match_fault(request)
        if fault is not None and fault.answer is not None:
            status, text = fault.answer
            self.respond(status, [], b"" if self.command == "HEAD" else text.encode())
            return
        strip = {"connection", *(fault.removed_headers if fault is not None else ())}
        onward = http.client.HTTPConnection(self.proxy.target_host, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in strip}
            onward.request(self.command, self.proxy.rewrite(self.path), body=body, headers=headers)
            answer = onward.getresponse()
            data = answer.read()
        finally:
            onward.close()
        if fault is not None and fault.lost:
            self.drop_connection()
            return
        lines = [*answer.getheaders(), *([("ETag", fault.etag)] if fault is not None and fault.etag else [])]
        self.respond(answer.status, lines, data, cut=fault.cut if fault is not None else None)

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: int | None = None) -> None:
        """Send a response."""
        fields = {name.lower(): value for name, value in headers}
        fields = {name: value for name, value in fields.items() if name not in {"connection", "transfer-encoding"}}
        if self.command != "HEAD" or "content-length" not in fields:
            fields["content-length"] = str(len(body))
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        self.wfile.write("\r\n".join(lines).encode("latin-1") + body[:cut])
        if cut is not None:
            self.drop_connection()

    def drop_connection(self) -> None:
        """Break the connection in the middle of a body."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


for verb in ("GET", "HEAD", "PUT", "POST", "DELETE"):
    setattr(_S3ProxyHandler, f"do_{verb}", _S3ProxyHandler.forward)


PLAIN = ObjectHeaders("application/octet-stream")


BIG = random.Random(1).randbytes(2 * PART_BYTES + 12_345)


class BucketFixture:
    """Bucket that programs mirror to."""

    def __init__(self, server: BucketServer, state: Path) -> None:
        self.server = server
        self.name = server.new_bucket()
        self.url = f"s3://{self.name}/tiles of a bridge+"
        self.prefix = "tiles of a bridge+/"
        self.state = state
        self.env = {
            **ENVIRONMENT,
            "XDG_STATE_HOME": str(state),
            "TILESYNC_ENDPOINT_URL": server.url,
            "TILESYNC_RETRY_FOR": "10s",
        }

    def mirror(self, sim: Simulator, *options: str, **env: str) -> ProgramResult:
        """Run the main job."""
        return sim.mirror_program(self.url, *options, env={**self.env, **env})

    def run_command(self, *words: str, **env: str) -> ProgramResult:
        """Run another command."""
        return run_program(*words, env={**self.env, **env})

    def start_mirror(self, sim: Simulator, *options: str) -> subprocess.Popen[bytes]:
        """Start the main job."""
        env = {**self.env, "TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token, "PATH": "/usr/bin:/bin"}
        words = [sys.executable, "-m", "tilesync", "mirror", IMODEL, self.url, "--json", *options]
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def list_names(self) -> list[str]:
        """What lies there, by names within the place."""
        return [key.removeprefix(self.prefix) for key in self.server.keys(self.name)]

    def read(self, name: str) -> bytes:
        """One object."""
        data: bytes = self.server.client.get_object(Bucket=self.name, Key=self.prefix + name)["Body"].read()
        return data

    def files(self, version: str) -> dict[str, bytes]:
        """The files of a version."""
        lead = f"versions/{version}/"
        return {name[len(lead) :]: self.read(name) for name in self.list_names() if name.startswith(lead)}

    def assert_published(self, version: str, files: dict[str, bytes]) -> None:
        """The pointer leads to this version, which has these files and no others."""
        assert json.loads(self.read("latest.json"))["version"] == version
        assert self.files(version) == files
