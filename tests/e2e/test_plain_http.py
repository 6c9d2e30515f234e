"""Stores in a network of one's own, over plain http: refused, unless somebody says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.azurite import ACCOUNT, KEY, Azurite, new_container, signed
from tests.support.builders import IMODEL, export, tree
from tests.support.commandline import tilesync
from tests.support.s3 import ENVIRONMENT, BucketRoad, BucketServer, Mishap
from tests.support.simulator import EXPORT, Ended, Simulator, command

STORE = "store.example.invalid:9000"
"""Another machine, which only the proxy of these tests knows."""


class Lan:
    """A store that answers at another machine's name, by way of a proxy; `env` names it."""

    def __init__(self, road: BucketRoad, place: str, env: dict[str, str]) -> None:
        self.road = road
        self.place = place
        self.env = {**env, "http_proxy": road.url, "NO_PROXY": "127.0.0.1", "TILESYNC_RETRY_FOR": "10s"}

    def run(self, *words: str, **env: str) -> Ended:
        return command(*words, env={**self.env, **env})


def road_to(server: BucketServer | Azurite) -> BucketRoad:
    """A proxy that leads everything to one server, as if that was the host that is asked for."""
    road = BucketRoad(server, Mishap(lambda request: True, strip=("host",), times=1 << 30))
    road.rewrite = lambda target: urlsplit(target)._replace(scheme="", netloc="").geturl()
    return road


@pytest.fixture
def bucket(bucket_server: BucketServer, tmp_path: Path) -> Iterator[Lan]:
    env = {**ENVIRONMENT, "XDG_STATE_HOME": str(tmp_path / "state"), "AWS_ENDPOINT_URL": f"http://{STORE}"}
    del env["no_proxy"]
    with road_to(bucket_server) as road:
        yield Lan(road, f"s3://{bucket_server.new_bucket()}/bridge", env)
        road.mishaps = ()


@pytest.fixture
def container(azurite: Azurite, tmp_path: Path) -> Iterator[Lan]:
    env = {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "AZURE_STORAGE_KEY": KEY,
        "TILESYNC_AZURE_ENDPOINT": f"http://{STORE}/{ACCOUNT}",
    }
    with road_to(azurite) as road:
        yield Lan(road, f"az://{ACCOUNT}/{new_container(azurite).rpartition('/')[2]}/bridge", env)
        road.mishaps = ()


@pytest.fixture(params=["bucket", "container"])
def lan(request: pytest.FixtureRequest) -> Lan:
    found: Lan = request.getfixturevalue(request.param)
    return found


def is_loud(ended: Ended) -> bool:
    """Whether it is said, once, what goes in the clear, and where to."""
    return ended.said.count("over plain http, as --allow-http says") == 1 and f"{STORE} in the clear" in ended.said


def test_it_is_refused_with_the_option_named(lan: Lan, tmp_path: Path) -> None:
    """Nothing is sent; the sentence names the option."""
    for words in (
        ("mirror", IMODEL, lan.place),
        ("mirror", lan.place, str(tmp_path / "d")),
        ("verify", lan.place),
        ("versions", lan.place),
    ):
        ended = lan.run(*words, TILESYNC_TOKEN="t", TILESYNC_API_URL="http://127.0.0.1:9")
        assert (ended.exit, ended.last["error"]) == (2, "UsageError"), ended.said
        assert "--allow-http" in ended.said
    assert lan.road.passed == []


def test_it_is_allowed_and_said_each_time(lan: Lan, sim: Simulator, tmp_path: Path) -> None:
    """The whole life of a destination, and of a copy made of it; a warning each run, also with -q."""
    files = sim.hold(export(6))
    env = {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    first = lan.run("mirror", IMODEL, lan.place, "--allow-http", "-q", **env)
    assert (first.exit, first.last["published"]) == (0, True), first.said
    assert is_loud(first)
    again = lan.run("mirror", IMODEL, lan.place, TILESYNC_ALLOW_HTTP="1", **env)
    assert (again.exit, again.last["fetched"]) == (0, 0), again.said
    assert is_loud(again)
    for words in (("verify", lan.place), ("versions", lan.place), ("mirror", lan.place, str(tmp_path / "d"))):
        ended = lan.run(*words, "--allow-http")
        assert ended.exit == 0, ended.said
        assert is_loud(ended), words
    assert tree(tmp_path / "d" / "versions" / EXPORT) == files


def test_doctor_names_the_option_too(bucket: Lan) -> None:
    """What may not be read from inside is said beside its check; with the option it is read, and that is loud."""
    env: dict[str, Any] = dict(bucket.env)
    refused = tilesync("doctor", bucket.place, "--json", "--retry-for", "0s", **env)
    assert (refused.exit, refused.checks["held"]["result"]) == (2, "fail")
    assert "--allow-http" in refused.checks["held"]["hint"]
    assert {request.headers.get("authorization") for request in bucket.road.passed} == {None}
    allowed = tilesync("doctor", bucket.place, "--allow-http", "--json", "--retry-for", "0s", **env)
    assert "nothing is published" in allowed.checks["held"]["message"]
    assert "over plain http, as --allow-http says" in allowed.err
    assert f"http://{STORE}/" in allowed.checks["public"]["message"]


def test_a_link_to_such_a_container(container: Lan, sim: Simulator, azurite: Azurite) -> None:
    """It is refused, and allowed, as an address is; its signature is not told."""
    sim.hold(export(3))
    link = signed(f"{azurite.url}/{container.place.removeprefix('az://').removesuffix('/bridge')}")
    place = f"http://{STORE}/{urlsplit(link.base).path.lstrip('/')}?{link.query}"
    env = {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token, "TILESYNC_DEST": place, "AZURE_STORAGE_KEY": ""}
    refused = container.run("mirror", IMODEL, **env)
    assert (refused.exit, "--allow-http" in refused.said) == (2, True), refused.said
    allowed = container.run("mirror", IMODEL, "--allow-http", **env)
    assert allowed.exit == 0, allowed.said
    assert is_loud(allowed)
    assert "sig=" not in refused.said + allowed.said


def test_the_service_is_never_asked_so(lan: Lan) -> None:
    """API, token and the links of exports keep to https, whatever is allowed for a store."""
    for env in ({"TILESYNC_API_URL": f"http://{STORE}"}, {"TILESYNC_SOURCE": f"http://{STORE}/c?sig=SECRET"}):
        words = ("mirror", "--allow-http", *(() if "TILESYNC_SOURCE" in env else (IMODEL,)))
        ended = lan.run(*words, **({"TILESYNC_DEST": lan.place, "TILESYNC_TOKEN": "t"} | env))
        assert ended.exit == 2, ended.said
        assert "plain http is accepted on this machine only" in ended.last["message"]
        assert "SECRET" not in ended.said


def test_no_link_of_an_export_goes_in_the_clear(container: Lan, sim: Simulator) -> None:
    """--server-copy would tell the store the link of the export: refused before anything is asked."""
    sim.hold(export(3))
    env = {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    ended = container.run("mirror", IMODEL, container.place, "--allow-http", "--server-copy", **env)
    assert (ended.exit, "--server-copy" in ended.last["message"]) == (2, True), ended.said
    assert (sim.requests, container.road.passed) == ([], [])
