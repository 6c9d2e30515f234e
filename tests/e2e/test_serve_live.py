"""Test live exports as a viewer meets them: real processes, links that die while clients read, newer exports."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.builders import IMODEL, export, glb, tileset
from tests.support.city_editions import small_city
from tests.support.commandline import run_tilesync
from tests.support.faults import error_response, is_api
from tests.support.reading_threads import ReadingThreads
from tests.support.sample_secrets import SIG
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator
from tests.support.tile_server import ServerProcess, server_process
from tests.support.viewers import CAMERA_PATH, Browser, CameraPose, mean_difference, pixels, view_url
from tilesync.azure.sas import parse_sas_link

CLIENTS = 4


class ReadingClients(ReadingThreads):
    """Clients that read all files again and again, until they are stopped; `statuses` of all answers."""

    def __init__(self, served: ServerProcess, files: Mapping[str, bytes], *, prefix: str = "") -> None:
        self.statuses: Counter[object] = Counter()
        self._digests = {prefix + name: hashlib.sha256(data).digest() for name, data in files.items()}
        self._served = served
        super().__init__(CLIENTS)

    def read_more(self) -> None:
        """Wait until they have read as many files as there are once more."""
        before = self.statuses.total()
        wait_until(lambda: self.statuses.total() >= before + len(self._digests))

    def read(self, number: int) -> None:
        names = sorted(self._digests)
        first = number * len(names) // CLIENTS
        with httpx.Client(timeout=30, trust_env=False, base_url=self._served.url) as client:
            while not self.stopped.is_set():
                for name in names[first:] + names[:first]:
                    if self.stopped.is_set():
                        break
                    try:
                        answer = client.send(client.build_request("GET", quote(name)), stream=True)
                        content = b"".join(answer.iter_raw())
                        answer.close()
                    except httpx.HTTPError as error:
                        self.statuses[repr(error)] += 1
                        continue
                    is_right = hashlib.sha256(content).digest() == self._digests[name]
                    self.statuses[answer.status_code if is_right else f"{answer.status_code}: other bytes"] += 1


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for at most 30 s."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.scale
def test_links_that_die_while_clients_read() -> None:
    """Clients read more than the cache holds while each link lives 1 s: all answers are right, with few API calls."""
    dice = random.Random(1)
    tiles = {f"tiles/{number}.glb": glb(dice.randbytes(100_000)) for number in range(250)}
    files = {"tileset.json": tileset(*tiles), **tiles}
    with Simulator(link_lifetime=timedelta(seconds=1)) as sim:
        sim.offer_export(files)
        with server_process(IMODEL, "--cache-size", "16Mi", sim=sim) as served:
            with ReadingClients(served, files) as clients:
                wait_until(lambda: len(sim.api_requests) >= 4)
                clients.read_more()
            root = served.get("tileset.json", Accept_Encoding="identity")
            assert root.headers["etag"] == f'"{sim.blob("tileset.json").etag}"'
            assert served.get("tileset.json", If_None_Match=root.headers["etag"]).status_code == 304
            part = served.get("tileset.json", Range="bytes=10-19")
            assert (part.status_code, part.content) == (206, files["tileset.json"][10:20])
            assert served.get("none.glb").status_code == 404
        assert set(clients.statuses) == {200}
        assert len(sim.api_requests) < clients.statuses[200] / 20


@pytest.mark.scale
def test_newer_export_while_clients_read() -> None:
    """A newer export finishes while clients read the old one: no request fails, and the root leads to the new one."""
    old, new = export(30), export(30, seed=7)
    with Simulator(link_lifetime=timedelta(seconds=2)) as sim:
        sim.offer_export(old)
        with server_process(IMODEL, "--follow", "--poll", "0.2s", sim=sim) as served:
            with ReadingClients(served, old, prefix=f"versions/{EXPORT}/") as clients:
                clients.read_more()
                sim.offer_export(new, export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z", status="InProgress")
                wait_until(lambda: any("is InProgress: it is taken up" in line for line in served.lines))
                assert f"versions/{EXPORT}/".encode() in served.get("tileset.json").content
                sim.exports[0]["status"] = "Complete"
                wait_until(lambda: f"versions/{OTHER_EXPORT}/".encode() in served.get("tileset.json").content)
                clients.read_more()
            assert set(clients.statuses) == {200}
            for name, data in new.items():
                assert served.get(f"versions/{OTHER_EXPORT}/{name}").content == data
            entry = served.read_json("_tilesync/site.json")["tilesets"][0]
            assert (entry["kind"], entry["current"], entry["follow"]) == ("live", OTHER_EXPORT, True)
            assert [each["name"] for each in entry["versions"]] == [OTHER_EXPORT, EXPORT]
            found = served.read_json(f"_tilesync/file.json?version={OTHER_EXPORT}&name=tiles/000.glb")
            assert found["sha256"] == hashlib.sha256(new["tiles/000.glb"]).hexdigest()
        assert any(f"export {OTHER_EXPORT}" in line and "is served from now on" in line for line in served.lines)


def test_container_that_is_deleted() -> None:
    """Without --follow the answers for a deleted export are 410 with a sentence that says what to do."""
    with Simulator() as sim:
        sim.offer_export()
        with server_process(IMODEL, sim=sim) as served:
            sim.delete()
            answer = served.get("tiles/001.glb")
            assert answer.status_code == 410
            assert "--follow" in answer.text


@pytest.mark.scale
def test_service_that_goes_down_and_comes_back() -> None:
    """While the service is down answers are 503 with Retry-After, files in memory are served, and then all are."""
    with Simulator() as sim:
        files = sim.offer_export()
        with server_process(IMODEL, "--retry-for", "1s", sim=sim) as served:
            assert served.get("tiles/000.glb").status_code == 200
            fault = sim.add_fault(is_api, error_response(503, "ServerBusy"), times=None)
            sim.revoke_links()
            down = served.get("tiles/001.glb")
            assert (down.status_code, down.headers["retry-after"].isdecimal()) == (503, True)
            assert served.get("tiles/000.glb").content == files["tiles/000.glb"]
            fault.times = fault.hits
            assert served.get("tiles/001.glb").content == files["tiles/001.glb"]
        assert any("503" in line for line in served.lines)


def test_link_command(tmp_path: Path) -> None:
    """A link from a variable is renewed by --link-command."""
    with Simulator() as sim:
        files = sim.offer_export()
        first = sim.create_link(EXPORT)
        sim.link_lifetime = timedelta(hours=5)
        (tmp_path / "link").write_text(sim.create_link(EXPORT))
        command = shlex.join(["cat", str(tmp_path / "link")])
        with server_process("--link-command", command, sim=sim, env={"TILESYNC_SOURCE": first}) as served:
            sim.clock_offset = timedelta(hours=2)
            for name, data in files.items():
                assert served.get(name).content == data


def test_bare_link_that_dies() -> None:
    """A link that nothing renews: the answer and the terminal say so, and the server goes on with what it has."""
    with Simulator() as sim:
        files = sim.offer_export()
        link = sim.create_link(EXPORT)
        with server_process(sim=sim, env={"TILESYNC_SOURCE": link}) as served:
            assert served.get("tiles/000.glb").status_code == 200
            sim.clock_offset = timedelta(hours=2)
            dead = served.get("tiles/001.glb")
            assert dead.status_code == 502
            assert "cannot be renewed" in dead.text
            assert "--link-command" in dead.text
            assert served.get("tiles/000.glb").content == files["tiles/000.glb"]
        output = "".join(served.lines)
        assert output.count("cannot be renewed") == 1
        assert "sig=" not in output + dead.text


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """No signature, token or link is in the output, the log, the answers or the documents of the site."""
    with Simulator() as sim:
        sim.token = SIG
        sim.offer_export()
        log = tmp_path / "log.jsonl"
        link = sim.create_link(EXPORT)
        signature = link.partition("sig=")[2]
        for source, words in ((link, ()), (IMODEL, ("--follow", "--poll", "2s"))):
            words = (*words, "-v", "--json", "--log-file", log, "--token", "auto")
            with server_process(*words, sim=sim, env={"TILESYNC_SOURCE": source}) as served:
                page = next(re.search(r"token=(\S+)", line) for line in served.lines if "token=" in line)
                assert page is not None
                token = {"Authorization": f"Bearer {page[1]}"}
                texts = []
                for path in ("tileset.json", "none", "_tilesync/site.json", "tiles/000.glb"):
                    texts.append(httpx.get(served.url + path, headers=token, trust_env=False).text)
                texts.append(httpx.get(f"{served.url}tileset.json?token={page[1]}", trust_env=False).text)
                sim.revoke_links()
                sim.add_fault(is_api, error_response(401), times=None, optional=True)
                texts.append(httpx.get(served.url + "tiles/001.glb", headers=token, trust_env=False).text)
                sim.faults.clear()
            everything = "".join([*texts, *served.lines, *served.output, log.read_text()])
            for secret in (SIG, quote(SIG, safe=""), signature, link):
                assert secret not in everything
            assert page[1] not in log.read_text() + "".join(served.output)
            assert json.loads(texts[2])["tilesets"][0]["kind"] == "live"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((IMODEL, "--follow", "--export-id", EXPORT), "--follow and --export-id contradict"),
        ((IMODEL, "--link-command", "true"), "--link-command needs a container link to serve"),
        ((IMODEL, "--cache-size", "1M"), "--cache-size must be at least 16 MB"),
        (("nothing",), "is not an iModel id"),
        ((IMODEL, "--export-id", "none", "--wait", "0s"), "the service lists no export none"),
    ],
)
def test_wrong_words(words: tuple[str, ...], message: str) -> None:
    """Options that contradict, and sources that are none, end with a sentence before anything is served."""
    with Simulator() as sim:
        sim.offer_export()
        result = run_tilesync("serve", *words, "--port", 0, sim=sim)
        assert result.exit_code in {2, 4}
        assert message in result.stderr


SAME_PICTURE = 0.05
"""Maximum mean difference of the samples of equal pictures: tiles are drawn in the order in which they arrive, which
changes a few pixels where they touch (0.009). A missing tile changes hundreds.
"""


def test_a_viewer_draws_the_same(browser: Browser, tmp_path: Path) -> None:
    """A viewer draws the same picture through the server, while its link dies, as through the service's own link."""
    view = CAMERA_PATH[0]
    with Simulator() as sim:
        sim.extra_headers = {"Access-Control-Allow-Origin": "*"}
        sim.offer_export(small_city())
        link = parse_sas_link(sim.create_link(EXPORT)).viewer_url()
        direct = view_url(browser, "three?signed", link, [view])
        sim.clear_requests()

        def let_links_die(_: CameraPose) -> None:
            sim.clock_offset = timedelta(hours=2)

        with server_process(IMODEL, sim=sim) as served:
            live = view_url(browser, "three", f"{served.url}tileset.json", [view], before_view=let_links_die)
        assert len(sim.api_requests) > 1
    assert (direct.errors, live.errors) == ([], [])
    assert live.loaded == direct.loaded > 4
    (tmp_path / "live.png").write_bytes(live.screenshots[view.name])
    pictures = [pixels(flight.screenshots[view.name]) for flight in (direct, live)]
    assert mean_difference(*pictures) < SAME_PICTURE
    assert all(0.1 < share < 1 for share in live.drawn_shares())
