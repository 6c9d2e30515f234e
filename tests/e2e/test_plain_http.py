"""Test stores over plain http: refused, unless allowed by an option."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.azurite import ACCOUNT, KEY, Azurite, new_container, signed_link
from tests.support.builders import IMODEL, export, read_tree
from tests.support.commandline import run_tilesync
from tests.support.s3 import ENVIRONMENT, BucketServer, S3Fault, S3Proxy
from tests.support.simulator import EXPORT, ProgramResult, Simulator, run_program

STORE_HOST = "store.example.invalid:9000"
"""A host name that only the proxy of these tests knows."""


class ProxiedStore:
    """A store that is reached by another host name through a proxy; `env` names the proxy."""

    def __init__(self, proxy: S3Proxy, place: str, env: dict[str, str]) -> None:
        self.proxy = proxy
        self.url = place
        self.env = {**env, "http_proxy": proxy.url, "NO_PROXY": "127.0.0.1", "TILESYNC_RETRY_FOR": "10s"}

    def run(self, *words: str, **env: str) -> ProgramResult:
        return run_program(*words, env={**self.env, **env})


def proxy_to(server: BucketServer | Azurite) -> S3Proxy:
    """Proxy that forwards all requests to one server, whatever their host."""
    proxy = S3Proxy(server, S3Fault(lambda request: True, removed_headers=("host",), max_hits=1 << 30))
    proxy.rewrite = lambda target: urlsplit(target)._replace(scheme="", netloc="").geturl()
    return proxy


@pytest.fixture
def bucket(bucket_server: BucketServer, tmp_path: Path) -> Iterator[ProxiedStore]:
    env = {**ENVIRONMENT, "XDG_STATE_HOME": str(tmp_path / "state"), "AWS_ENDPOINT_URL": f"http://{STORE_HOST}"}
    del env["no_proxy"]
    with proxy_to(bucket_server) as proxy:
        yield ProxiedStore(proxy, f"s3://{bucket_server.new_bucket()}/bridge", env)
        proxy.faults = ()


@pytest.fixture
def container(azurite: Azurite, tmp_path: Path) -> Iterator[ProxiedStore]:
    env = {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "AZURE_STORAGE_KEY": KEY,
        "TILESYNC_AZURE_ENDPOINT": f"http://{STORE_HOST}/{ACCOUNT}",
    }
    with proxy_to(azurite) as proxy:
        yield ProxiedStore(proxy, f"az://{ACCOUNT}/{new_container(azurite).rpartition('/')[2]}/bridge", env)
        proxy.faults = ()


@pytest.fixture(params=["bucket", "container"])
def lan(request: pytest.FixtureRequest) -> ProxiedStore:
    result: ProxiedStore = request.getfixturevalue(request.param)
    return result


def warns_about_plain_http(ended: ProgramResult) -> bool:
    """Return whether one warning says what is sent unencrypted, and to which host."""
    return (
        ended.stderr.count("over plain http, as --allow-http allows") == 1
        and f"{STORE_HOST} unencrypted" in ended.stderr
    )


def test_plain_http_is_refused_with_a_hint_to_the_option(lan: ProxiedStore, tmp_path: Path) -> None:
    """Plain http is refused before anything is sent; the hint names the option."""
    for words in (
        ("mirror", IMODEL, lan.url),
        ("mirror", lan.url, str(tmp_path / "d")),
        ("verify", lan.url),
        ("versions", lan.url),
    ):
        ended = lan.run(*words, TILESYNC_TOKEN="t", TILESYNC_API_URL="http://127.0.0.1:9")
        assert (ended.exit_code, ended.last_line["error"]) == (2, "UsageError"), ended.stderr
        assert "--allow-http" in ended.stderr
    assert lan.proxy.requests == []


def test_plain_http_on_request_gives_a_warning_in_each_run(lan: ProxiedStore, sim: Simulator, tmp_path: Path) -> None:
    """With the option all commands work, also for a copy; each run prints a warning, also with -q."""
    files = sim.offer_export(export(6))
    env = {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    first = lan.run("mirror", IMODEL, lan.url, "--allow-http", "-q", **env)
    assert (first.exit_code, first.last_line["published"]) == (0, True), first.stderr
    assert warns_about_plain_http(first)
    again = lan.run("mirror", IMODEL, lan.url, TILESYNC_ALLOW_HTTP="1", **env)
    assert (again.exit_code, again.last_line["fetched"]) == (0, 0), again.stderr
    assert warns_about_plain_http(again)
    for words in (("verify", lan.url), ("versions", lan.url), ("mirror", lan.url, str(tmp_path / "d"))):
        ended = lan.run(*words, "--allow-http")
        assert ended.exit_code == 0, ended.stderr
        assert warns_about_plain_http(ended), words
    assert read_tree(tmp_path / "d" / "versions" / EXPORT) == files


def test_doctor_names_the_option_too(bucket: ProxiedStore) -> None:
    """`doctor` reports a refused plain-http DEST; with the option it is read, with a warning."""
    env: dict[str, Any] = dict(bucket.env)
    refused = run_tilesync("doctor", bucket.url, "--json", "--retry-for", "0s", **env)
    assert (refused.exit_code, refused.checks["held"]["result"]) == (2, "fail")
    assert "--allow-http" in refused.checks["held"]["hint"]
    assert {request.headers.get("authorization") for request in bucket.proxy.requests} == {None}
    allowed = run_tilesync("doctor", bucket.url, "--allow-http", "--json", "--retry-for", "0s", **env)
    assert "nothing is published" in allowed.checks["held"]["message"]
    assert "over plain http, as --allow-http allows" in allowed.stderr
    assert f"http://{STORE_HOST}/" in allowed.checks["public"]["message"]


def test_a_plain_http_link_needs_the_option_too(container: ProxiedStore, sim: Simulator, azurite: Azurite) -> None:
    """A plain-http link is refused or allowed like an address; its signature is not printed."""
    sim.offer_export(export(3))
    link = signed_link(f"{azurite.url}/{container.url.removeprefix('az://').removesuffix('/bridge')}")
    place = f"http://{STORE_HOST}/{urlsplit(link.base).path.lstrip('/')}?{link.query}"
    env = {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token, "TILESYNC_DEST": place, "AZURE_STORAGE_KEY": ""}
    refused = container.run("mirror", IMODEL, **env)
    assert (refused.exit_code, "--allow-http" in refused.stderr) == (2, True), refused.stderr
    allowed = container.run("mirror", IMODEL, "--allow-http", **env)
    assert allowed.exit_code == 0, allowed.stderr
    assert warns_about_plain_http(allowed)
    assert "sig=" not in refused.stderr + allowed.stderr


def test_the_service_always_needs_https(lan: ProxiedStore) -> None:
    """API, token endpoint and export links need https, whatever is allowed for a store."""
    for env in ({"TILESYNC_API_URL": f"http://{STORE_HOST}"}, {"TILESYNC_SOURCE": f"http://{STORE_HOST}/c?sig=SECRET"}):
        words = ("mirror", "--allow-http", *(() if "TILESYNC_SOURCE" in env else (IMODEL,)))
        ended = lan.run(*words, **({"TILESYNC_DEST": lan.url, "TILESYNC_TOKEN": "t"} | env))
        assert ended.exit_code == 2, ended.stderr
        assert "plain http is accepted on this machine only" in ended.last_line["message"]
        assert "SECRET" not in ended.stderr


def test_server_copy_over_plain_http_is_refused(container: ProxiedStore, sim: Simulator) -> None:
    """--server-copy over plain http is refused before any request: it would send the export link to the store."""
    sim.offer_export(export(3))
    env = {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    ended = container.run("mirror", IMODEL, container.url, "--allow-http", "--server-copy", **env)
    assert (ended.exit_code, "--server-copy" in ended.last_line["message"]) == (2, True), ended.stderr
    assert (sim.requests, container.proxy.requests) == ([], [])
