"""Test mirrors from a real blob service, Azurite: real containers, SAS links and command lines."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.azurite import AzureProxy, Azurite, BlobContent, ProxiedRequest, put_blob, set_access_policy
from tests.support.builders import IMODEL, glb, tileset
from tests.support.fork_server import run_forked
from tilesync.demo.city import build_city
from tilesync.demo.fake_service import FakeBackend

CONTENT_TYPES = {"json": "application/json", "glb": "model/gltf-binary", "png": "image/png"}
ODD_NAMES = ("a+b", "a b", "100%", "%41%2F", "Zürich–日本", "q?x#y&z=1;w", "~tilde'(quote)!", "A", "deep/er/a")
MAX_LOST_WORK_S = 0.25
"""Seconds of work that may be lost by a kill."""


@pytest.fixture(scope="session")
def town(azurite: Azurite) -> dict[str, BlobContent]:
    """Fill the container `town` with the demo city and blobs with unusual names or content; never changed."""
    blobs = {name: BlobContent(data, CONTENT_TYPES[name.rpartition(".")[2]]) for name, data in build_city().items()}
    for name in ODD_NAMES:
        blobs[f"odd/{name}.bin"] = BlobContent(name.encode())
    packed = gzip.compress(b'{"packed": true}', mtime=0)
    blobs["odd/packed.json"] = BlobContent(packed, "application/json", content_encoding="gzip")
    blobs["odd/packed.glb"] = BlobContent(
        gzip.compress(glb(b"packed"), mtime=0), CONTENT_TYPES["glb"], content_encoding="gzip"
    )
    blobs["odd/empty.bin"] = BlobContent(b"")
    blobs["odd/no-md5.glb"] = BlobContent(glb(bytes(300_000)), CONTENT_TYPES["glb"], blocks=True)
    azurite.create_container("town", blobs)
    return blobs


def small_export(tiles: int = 40) -> dict[str, BlobContent]:
    """Build a small export."""
    names = [f"tiles/{number:03}.glb" for number in range(tiles)]
    blobs = {name: BlobContent(glb(name.encode()), CONTENT_TYPES["glb"]) for name in names}
    return {"tileset.json": BlobContent(tileset(*names), CONTENT_TYPES["json"]), **blobs}


class AzuriteService(FakeBackend):
    """Mesh Export API in front of real containers: `links` makes a fresh link to one."""

    def __init__(self, links: Callable[[str], str], *containers: str) -> None:
        super().__init__()
        self._links = links
        for container in containers:
            self.add_export(container, IMODEL, {})

    def create_link(self, container: str) -> str:
        return self._links(container)


@dataclass
class ProgramRun:
    """Result of a program: exit code, last JSON line and output."""

    exit_code: int
    last_line: dict[str, Any]
    output: str


def environment(service: AzuriteService | None) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    api = {"TILESYNC_API_URL": service.url, "TILESYNC_TOKEN": service.token} if service is not None else {}
    return {**inherited, **api, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def mirror_command(source: str, dest: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tilesync", "mirror", source, str(dest), "--json", "-v", *options]


def run_mirror(
    source: str, dest: Path, *options: str, service: AzuriteService | None = None, stdin: str = ""
) -> ProgramRun:
    """Run the program; assert that its output has no signature."""
    done = run_forked(["mirror", source, str(dest), "--json", "-v", *options], environment(service), stdin=stdin)
    output = done.stdout + done.stderr
    assert "sig=" not in output
    return ProgramRun(done.returncode, json.loads(done.stdout.splitlines()[-1]), output)


def assert_whole(dest: Path, blobs: Mapping[str, BlobContent]) -> None:
    """Assert that exactly the stored bytes of `blobs` are published, and no file has a signature."""
    version = json.loads((dest / "latest.json").read_text())["version"]
    root = dest / "versions" / version
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert files == {name: upload.data for name, upload in blobs.items()}
    pointer = json.loads((dest / "tileset.json").read_bytes())
    assert pointer["asset"] == json.loads(blobs["tileset.json"].data)["asset"]
    state = [path.read_bytes() for path in (dest / ".tilesync").rglob("*") if path.is_file()]
    manifest = (dest / "manifests" / f"{version}.jsonl").read_bytes()
    assert not [data for data in [manifest, *state] if b"sig=" in data]


def read_manifest(dest: Path) -> dict[str, dict[str, Any]]:
    """Read the manifest lines by name."""
    version = json.loads((dest / "latest.json").read_text())["version"]
    _, *lines = (dest / "manifests" / f"{version}.jsonl").read_text().splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


def long_lived_links(azurite: Azurite, proxy: AzureProxy | None = None) -> Callable[[str], str]:
    """Return a factory of links that outlive the test."""
    return lambda container: azurite.make_sas_link(container, life=timedelta(hours=1), url=proxy.url if proxy else None)


def delay_until_link_expiry(number: int) -> Callable[[ProxiedRequest], None]:
    """Make an interceptor that delays one blob request until its link has expired."""
    once = threading.Lock()

    def hold(passing: ProxiedRequest) -> None:
        if passing.blob and passing.blob_request_number >= number and once.acquire(blocking=False):
            time.sleep(max(0.0, (passing.link_ends - datetime.now(UTC)).total_seconds()) + 0.05)

    return hold


def new_container_name() -> str:
    """Return a container name that no other test uses."""
    return str(uuid.uuid4())


# --- whole ---


def test_a_real_container_is_mirrored_whole(azurite: Azurite, town: dict[str, BlobContent], tmp_path: Path) -> None:
    """Every blob arrives with its name, stored bytes, type and encoding; a second run requests no blob."""
    with AzureProxy(azurite) as proxy, AzuriteService(long_lived_links(azurite, proxy), "town") as service:
        run = run_mirror(IMODEL, tmp_path, service=service)
        assert (run.exit_code, run.last_line["kind"]) == (0, "finished"), run.output
        assert {run.last_line[count] for count in ("listed", "fetched", "verified")} == {len(town)}
        assert run.last_line["bytes"] == sum(len(upload.data) for upload in town.values())
        assert_whole(tmp_path, town)
        rows = read_manifest(tmp_path)
        assert {name: row["content_encoding"] for name, row in rows.items()} == {
            name: upload.content_encoding for name, upload in town.items()
        }
        assert {name: row["content_type"] for name, row in rows.items()} == {
            name: upload.content_type for name, upload in town.items()
        }
        assert rows["odd/no-md5.glb"]["md5"] is None
    # Through a proxy of its own: the other one may still answer requests that the first run gave up.
    with AzureProxy(azurite) as proxy, AzuriteService(long_lived_links(azurite, proxy), "town") as service:
        again = run_mirror(IMODEL, tmp_path, service=service)
        assert (again.exit_code, again.last_line["kept"], again.last_line["fetched"]) == (0, len(town), 0)
        assert proxy.answered == []


def test_a_listing_of_many_pages_is_complete(azurite: Azurite, town: dict[str, BlobContent], tmp_path: Path) -> None:
    """Azurite's markers lead through all pages; no blob is lost or listed twice."""
    with (
        AzureProxy(azurite, page_size=50) as proxy,
        AzuriteService(long_lived_links(azurite, proxy), "town") as service,
    ):
        run = run_mirror(IMODEL, tmp_path, service=service)
    assert (run.exit_code, run.last_line["listed"]) == (0, len(town)), run.output
    assert len(proxy.statuses("")) == -(-len(town) // 50)
    assert_whole(tmp_path, town)


# --- links ---


def test_a_link_is_renewed_before_it_ends(azurite: Azurite, town: dict[str, BlobContent], tmp_path: Path) -> None:
    """A run that takes longer than a link lives renews it, and finishes."""

    def short(container: str) -> str:
        return azurite.make_sas_link(container, life=timedelta(seconds=3), url=proxy.url)

    with AzureProxy(azurite, delay=0.02) as proxy, AzuriteService(short, "town") as service:
        run = run_mirror(IMODEL, tmp_path, "--transfers", "2", service=service)
    assert run.exit_code == 0, run.output
    assert run.last_line["seconds"] > 3
    assert run.last_line["renewals"] > 0
    assert_whole(tmp_path, town)


def test_a_link_that_expires_before_its_request_is_renewed(azurite: Azurite, tmp_path: Path) -> None:
    """A request with an expired link is refused by the container, and repeated with a fresh link."""
    name, blobs = new_container_name(), small_export()
    azurite.create_container(name, blobs)

    def short(container: str) -> str:
        return azurite.make_sas_link(container, life=timedelta(seconds=2), url=proxy.url)

    with AzureProxy(azurite) as proxy, AzuriteService(short, name) as service:
        proxy.intercept = delay_until_link_expiry(20)
        run = run_mirror(IMODEL, tmp_path, "--transfers", "1", service=service)
    assert run.exit_code == 0, run.output
    assert [proxy.statuses(blob) for blob, status in proxy.answered if status == 403] == [[403, 200]]
    assert run.last_line["renewals"] > 0
    assert_whole(tmp_path, blobs)


def test_a_revoked_link_is_renewed(azurite: Azurite, tmp_path: Path) -> None:
    """A link whose access policy is removed during a run is refused at once, and replaced by a valid one."""
    name, blobs = new_container_name(), small_export()
    container = azurite.create_container(name, blobs)
    policies = ["first"]
    set_access_policy(container, policies[-1])

    def revoke(passing: ProxiedRequest) -> None:
        if passing.blob_request_number == 20 and len(policies) == 1:
            policies.append("second")
            set_access_policy(container, policies[-1])

    def newest(container: str) -> str:
        return azurite.make_sas_link(container, policy=policies[-1], url=proxy.url)

    with AzureProxy(azurite) as proxy, AzuriteService(newest, name) as service:
        proxy.intercept = revoke
        run = run_mirror(IMODEL, tmp_path, "--transfers", "1", service=service)
    assert run.exit_code == 0, run.output
    assert [status for _, status in proxy.answered].count(403) == 1
    assert run.last_line["renewals"] == 1
    assert_whole(tmp_path, blobs)


def test_a_link_revoked_for_good_is_not_authorised(azurite: Azurite, tmp_path: Path) -> None:
    """If a fresh link is refused too, the run ends with 5 after one renewal, and publishes nothing."""
    name = new_container_name()
    container = azurite.create_container(name, small_export())
    set_access_policy(container, "first")

    def revoke(passing: ProxiedRequest) -> None:
        if passing.blob_request_number == 20:
            set_access_policy(container, "another")

    with (
        AzureProxy(azurite) as proxy,
        AzuriteService(lambda _: azurite.make_sas_link(name, policy="first", url=proxy.url), name) as service,
    ):
        proxy.intercept = revoke
        run = run_mirror(IMODEL, tmp_path, "--transfers", "1", service=service)
    assert (run.exit_code, run.last_line["error"], run.last_line["renewals"]) == (5, "NotAuthorised", 1), run.output
    assert not (tmp_path / "tileset.json").exists()


def test_a_link_alone_is_a_source(azurite: Azurite, tmp_path: Path) -> None:
    """A container link on standard input, with or without the name of the root, needs no service."""
    name, blobs = new_container_name(), small_export()
    azurite.create_container(name, blobs)
    link = long_lived_links(azurite)(name)
    run = run_mirror("-", tmp_path / "one", stdin=link)
    assert (run.exit_code, run.last_line["export"]) == (0, name), run.output
    assert_whole(tmp_path / "one", blobs)
    run = run_mirror("-", tmp_path / "two", stdin=link.replace("?", "/tileset.json?") + "\n")
    assert run.exit_code == 0, run.output
    assert_whole(tmp_path / "two", blobs)


def test_an_expired_link_alone_is_not_authorised(azurite: Azurite, tmp_path: Path) -> None:
    """An expired link that cannot be renewed: exit 5 with a hint, and nothing is published."""
    name = new_container_name()
    azurite.create_container(name, small_export(1))
    run = run_mirror("-", tmp_path, stdin=azurite.make_sas_link(name, life=timedelta(minutes=-5)))
    assert (run.exit_code, run.last_line["exit"], run.last_line["error"]) == (5, 5, "NotAuthorised"), run.output
    assert "--link-command" in run.last_line["hint"]
    assert not (tmp_path / "tileset.json").exists()


def test_a_link_alone_that_ends_in_mid_run_can_be_followed_by_another(azurite: Azurite, tmp_path: Path) -> None:
    """If a bare link expires during a run, it ends with 5; the next run with a fresh link continues."""
    name, blobs = new_container_name(), small_export()
    azurite.create_container(name, blobs)
    with AzureProxy(azurite) as proxy:
        proxy.intercept = delay_until_link_expiry(20)
        stale = azurite.make_sas_link(name, life=timedelta(seconds=4), url=proxy.url)
        run = run_mirror("-", tmp_path, "--transfers", "1", stdin=stale)
        assert (run.exit_code, run.last_line["error"]) == (5, "NotAuthorised"), run.output
        assert not (tmp_path / "tileset.json").exists()
        run = run_mirror("-", tmp_path, stdin=long_lived_links(azurite, proxy)(name))
    assert (run.exit_code, run.last_line["kept"]) == (0, 19), run.output
    assert_whole(tmp_path, blobs)


def test_an_expired_link_is_renewed_by_a_command(azurite: Azurite, tmp_path: Path) -> None:
    """`--link-command` brings the fresh link that an expired one needs."""
    name, blobs = new_container_name(), small_export()
    azurite.create_container(name, blobs)
    fresh = tmp_path / "link"
    fresh.write_text(long_lived_links(azurite)(name))
    stale = azurite.make_sas_link(name, life=timedelta(minutes=-5))
    run = run_mirror("-", tmp_path / "dest", "--link-command", f"cat '{fresh}'", stdin=stale)
    assert (run.exit_code, run.last_line.get("renewals")) == (0, 1), run.output
    assert_whole(tmp_path / "dest", blobs)


# --- what happens under a run ---


def test_a_blob_overwritten_under_the_run_is_planned_again(azurite: Azurite, tmp_path: Path) -> None:
    """A blob that changes between listing and fetch is refused (412), and mirrored after the next listing."""
    name, blobs = new_container_name(), small_export()
    container = azurite.create_container(name, blobs)
    now = {**blobs, "tiles/020.glb": BlobContent(glb(b"written anew"), CONTENT_TYPES["glb"])}

    def overwrite(passing: ProxiedRequest) -> None:
        if passing.blob == "tiles/020.glb" and not proxy.statuses(passing.blob):
            put_blob(container, passing.blob, now[passing.blob])

    with AzureProxy(azurite) as proxy, AzuriteService(long_lived_links(azurite, proxy), name) as service:
        proxy.intercept = overwrite
        run = run_mirror(IMODEL, tmp_path, service=service)
    assert run.exit_code == 0, run.output
    assert proxy.statuses("tiles/020.glb") == [412, 200]
    assert len(proxy.statuses("")) == 2
    assert_whole(tmp_path, now)


def test_an_overwritten_blob_ends_a_run_with_a_bare_link(azurite: Azurite, tmp_path: Path) -> None:
    """With a bare link a changed blob ends the run with 7 at once; the next run mirrors the new content."""
    name, blobs = new_container_name(), small_export()
    container = azurite.create_container(name, blobs)
    now = {**blobs, "tiles/020.glb": BlobContent(glb(b"written anew"), CONTENT_TYPES["glb"])}

    def overwrite(passing: ProxiedRequest) -> None:
        if passing.blob == "tiles/020.glb" and not proxy.statuses(passing.blob):
            put_blob(container, passing.blob, now[passing.blob])

    with AzureProxy(azurite) as proxy:
        proxy.intercept = overwrite
        link = long_lived_links(azurite, proxy)(name)
        run = run_mirror("-", tmp_path, stdin=link)
        assert (run.exit_code, run.last_line["error"]) == (7, "ExportReplaced"), run.output
        assert not (tmp_path / "tileset.json").exists()
        run = run_mirror("-", tmp_path, stdin=link)
        assert run.exit_code == 0, run.output
    assert_whole(tmp_path, now)


def test_only_the_rest_of_a_broken_body_is_requested_again(azurite: Azurite, tmp_path: Path) -> None:
    """Only the rest of a broken body is requested again, and that range completes the blob."""
    name, big = new_container_name(), glb(Random(1).randbytes(3_000_000))
    blobs = {
        **small_export(3),
        "big.glb": BlobContent(big, CONTENT_TYPES["glb"]),
        "unsummed.glb": BlobContent(big, CONTENT_TYPES["glb"], blocks=True),
    }
    azurite.create_container(name, blobs)
    with AzureProxy(azurite) as proxy, AzuriteService(long_lived_links(azurite, proxy), name) as service:
        proxy.truncations = {"big.glb": 1_000_000, "unsummed.glb": 2_500_000}
        run = run_mirror(IMODEL, tmp_path, service=service)
    assert run.exit_code == 0, run.output
    assert (proxy.statuses("big.glb"), proxy.statuses("unsummed.glb")) == ([200, 206], [200, 206])
    assert run.last_line["retries"] == 2
    assert_whole(tmp_path, blobs)


def test_a_blob_deleted_during_the_run_is_missing(azurite: Azurite, tmp_path: Path) -> None:
    """A blob that is deleted between listing and fetch (412) is not listed again, and is reported as missing."""
    name, blobs = new_container_name(), small_export()
    container = azurite.create_container(name, blobs)
    last = "tiles/039.glb"

    def delete(passing: ProxiedRequest) -> None:
        if passing.blob == last:
            container.delete_blob(last)

    now = {blob: upload for blob, upload in blobs.items() if blob != last}
    with AzureProxy(azurite) as proxy, AzuriteService(long_lived_links(azurite, proxy), name) as service:
        proxy.intercept = delete
        run = run_mirror(IMODEL, tmp_path, service=service)
        assert (run.exit_code, run.last_line["listed"], run.last_line["missing"]) == (3, len(now), 1), run.output
        assert not (tmp_path / "tileset.json").exists()
        assert proxy.statuses(last) == [412]
        run = run_mirror(IMODEL, tmp_path, "--allow-missing", service=service)
    assert (run.exit_code, run.last_line["missing"], run.last_line["fetched"]) == (0, 1, 0), run.output
    assert_whole(tmp_path, now)


@pytest.mark.parametrize("listed", [True, False], ids=["still-listed", "unlisted"])
def test_a_container_deleted_under_the_run_ends_it(azurite: Azurite, tmp_path: Path, listed: bool) -> None:
    """A container that is deleted during a run ends it with 7, whether the service still lists the export or not."""
    name = new_container_name()
    container = azurite.create_container(name, small_export())
    gone = threading.Lock()

    def delete(passing: ProxiedRequest) -> None:
        if passing.blob_request_number >= 20 and gone.acquire(blocking=False):
            container.delete_container()
            if not listed:
                service.exports.clear()

    with AzureProxy(azurite) as proxy, AzuriteService(long_lived_links(azurite, proxy), name) as service:
        proxy.intercept = delete
        run = run_mirror(IMODEL, tmp_path, "--transfers", "1", service=service)
    assert (run.exit_code, run.last_line["error"]) == (7, "ExportReplaced"), run.output
    assert 404 in {status for _, status in proxy.answered}
    assert not (tmp_path / "tileset.json").exists()


def test_a_killed_run_is_continued(azurite: Azurite, town: dict[str, BlobContent], tmp_path: Path) -> None:
    """After a kill -9 nothing is published, and the next run fetches only files of the last quarter second again."""
    reached, opened = threading.Event(), threading.Event()
    third = len(town) // 3

    def close(passing: ProxiedRequest) -> None:
        if passing.blob_request_number > third and not opened.is_set():
            reached.set()
            opened.wait(60)

    with AzureProxy(azurite) as proxy, AzuriteService(long_lived_links(azurite, proxy), "town") as service:
        proxy.intercept = close
        run = subprocess.Popen(
            mirror_command(IMODEL, tmp_path, "--transfers", "4"),
            env=environment(service),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert reached.wait(30)
            time.sleep(4 * MAX_LOST_WORK_S)  # nothing moves any more, and what moved has had its entry in the journal
        finally:
            run.kill()
            run.wait()
            opened.set()
        assert not (tmp_path / "tileset.json").exists()
        again = run_mirror(IMODEL, tmp_path, service=service)
    assert again.exit_code == 0, again.output
    assert again.last_line["kept"] >= third - 4
    assert again.last_line["fetched"] == len(town) - again.last_line["kept"]
    assert_whole(tmp_path, town)
