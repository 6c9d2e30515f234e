"""Test an S3 destination end to end, and copies between stores."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_proxy import kill_at_random_times
from tests.support.azurite import ACCOUNT, KEY, Azurite, new_container
from tests.support.builders import export, glb, read_tree
from tests.support.commandline import run_tilesync
from tests.support.s3 import BucketFixture, BucketServer, S3Proxy, S3Request
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator


@pytest.fixture
def place(bucket_server: BucketServer, tmp_path: Path) -> BucketFixture:
    return BucketFixture(bucket_server, tmp_path / "state")


def test_an_export_is_published_in_a_bucket(place: BucketFixture, sim: Simulator) -> None:
    """Files, manifest and pointer are stored with their types; a second run has nothing to do; verify succeeds."""
    files = sim.offer_export({**export(40), "tiles/big.glb": glb(random.Random(1).randbytes(20_000_000))})
    run = place.mirror(sim)
    assert (run.exit_code, run.last_line["fetched"], run.last_line["published"]) == (0, len(files), True), run.stderr
    place.assert_published(EXPORT, files)
    about: dict[str, Any] = place.server.client.head_object(
        Bucket=place.name, Key=f"{place.prefix}versions/{EXPORT}/tiles/big.glb"
    )
    assert (about["ContentType"], about["CacheControl"]) == (
        "model/gltf-binary",
        "public, max-age=31536000, immutable",
    )
    pointer = place.server.client.head_object(Bucket=place.name, Key=f"{place.prefix}tileset.json")
    assert (pointer["ContentType"], pointer["CacheControl"]) == ("application/json", "no-cache")
    again = place.mirror(sim)
    assert (again.exit_code, again.last_line["kept"]) == (0, len(files)), again.stderr
    assert place.run_command("verify", place.url).exit_code == 0
    assert place.run_command("versions", place.url).exit_code == 0
    assert place.server.unfinished_uploads(place.name) == []


def test_the_status_of_a_bucket(place: BucketFixture, sim: Simulator) -> None:
    """Runs are in the local state, what is held in the bucket; with another state it is known what is held."""
    sim.offer_export()
    assert place.mirror(sim).exit_code == 0
    done = run_tilesync("status", place.url, "--json", sim=None, **place.env)
    (line,) = done.lines_of_kind("status")
    assert (done.exit_code, line["health"], line["dest"], line["export"]) == (0, "fresh", place.url, EXPORT)
    assert [run["published"] for run in done.lines_of_kind("run")] == [True]
    done = run_tilesync(
        "status", place.url, "--json", "--state-dir", place.state.with_name("other"), sim=None, **place.env
    )
    (line,) = done.lines_of_kind("status")
    assert (done.exit_code, line["health"], line["export"], line["last_run"]) == (0, "fresh", EXPORT, None)
    assert "its last runs are unknown" in done.lines_of_kind("warning")[0]["message"]


def test_a_second_export_shares_files_and_a_lost_state_is_rebuilt(place: BucketFixture, sim: Simulator) -> None:
    """Unchanged files are copied inside the bucket; the state is rebuilt from a listing, also of multipart uploads."""
    big = {"tiles/big.glb": glb(random.Random(1).randbytes(9_000_000))}
    sim.offer_export({**export(20), **big})
    assert place.mirror(sim).exit_code == 0
    files = sim.offer_export({**export(22), **big}, export_id=OTHER_EXPORT)
    run = place.mirror(sim)
    assert run.exit_code == 0, run.stderr
    assert run.last_line["reused"] >= 20
    place.assert_published(OTHER_EXPORT, files)
    run = place.mirror(sim, XDG_STATE_HOME=str(place.state.with_name("elsewhere")))
    assert (run.exit_code, run.last_line["kept"], run.last_line["fetched"], run.last_line["bytes"]) == (
        0,
        len(files),
        0,
        0,
    ), run.stderr


@pytest.mark.parametrize("seed", [1, 2])
def test_runs_killed_at_random_moments_end_complete(place: BucketFixture, sim: Simulator, seed: int) -> None:
    """After kills, each run takes its own lock over at once, and the bucket is complete in the end."""
    dice = random.Random(seed)
    files = sim.offer_export({**export(100, seed=seed), "tiles/big.glb": glb(dice.randbytes(20_000_000))})
    kill_at_random_times(place, sim, dice)
    place.assert_published(EXPORT, files)


def test_versions_are_rolled_back_and_retired(place: BucketFixture, sim: Simulator) -> None:
    """Versions are rolled back to, followed again, and retired."""
    first = sim.offer_export(export(5))
    assert place.mirror(sim).exit_code == 0
    second = sim.offer_export(export(6), export_id=OTHER_EXPORT)
    assert place.mirror(sim).exit_code == 0
    assert place.run_command("rollback", place.url).exit_code == 0
    place.assert_published(EXPORT, first)
    assert place.run_command("rollback", place.url, "--latest").exit_code == 0
    place.assert_published(OTHER_EXPORT, second)
    run = place.mirror(sim, "--keep-versions", "1", "--keep-for", "0s")
    assert (run.exit_code, run.last_line["retired"]) == (0, 1), run.stderr
    assert [name for name in place.list_names() if name.startswith("manifests/")] == [f"manifests/{OTHER_EXPORT}.jsonl"]


def archive_version(place: BucketFixture, version: str) -> None:
    """Move the tiles of a version to Glacier, as a lifecycle rule does."""
    lead = f"{place.prefix}versions/{version}/tiles/"
    for key in place.server.keys(place.name):
        if key.startswith(lead):
            source = {"Bucket": place.name, "Key": key}
            place.server.client.copy_object(Bucket=place.name, Key=key, CopySource=source, StorageClass="GLACIER")


def test_archived_files_are_fetched_again(place: BucketFixture, sim: Simulator) -> None:
    """Archived tiles are fetched again, with one diagnostic; `verify --all` reports each of them in the old version."""
    sim.offer_export(export(8))
    assert place.mirror(sim).exit_code == 0
    archive_version(place, EXPORT)
    files = sim.offer_export(export(9), export_id=OTHER_EXPORT)
    run = place.mirror(sim)
    assert run.exit_code == 0, run.stderr
    assert run.last_line["fetched"] >= 9
    assert run.stderr.count("archived") == 1, run.stderr
    place.assert_published(OTHER_EXPORT, files)
    assert place.run_command("verify", place.url).exit_code == 0
    audit = place.run_command("verify", place.url, "--all")
    assert audit.exit_code == 10, audit.stderr
    assert audit.stderr.count("is archived, and cannot be read before it is restored") == 9, audit.stderr


def test_archived_files_of_a_source_fail_one_by_one(place: BucketFixture, sim: Simulator, tmp_path: Path) -> None:
    """Archived files of a mirror as SOURCE fail one by one, with the reason."""
    sim.offer_export(export(4))
    assert place.mirror(sim).exit_code == 0
    archive_version(place, EXPORT)
    run = place.run_command("mirror", place.url, str(tmp_path / "d"))
    assert (run.exit_code, run.last_line["failed"]) == (3, 5), run.stderr
    assert "came twice" not in run.stderr
    assert "is archived, and cannot be read before it is restored" in run.stderr


@pytest.mark.parametrize(
    ("env", "exit_code"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 5),
        ({"TILESYNC_ENDPOINT_URL": "http://host.invalid"}, 2),
        ({"TILESYNC_ENDPOINT_URL": "http://127.0.0.1:1", "TILESYNC_RETRY_FOR": "1s"}, 6),
    ],
)
def test_configuration_errors_have_an_exit_code_and_a_hint(
    place: BucketFixture, sim: Simulator, env: dict[str, str], exit_code: int
) -> None:
    """Missing credentials, a plain-http address, an unreachable server: each has its exit code and a hint."""
    sim.offer_export(export(2))
    run = place.mirror(sim, **env)
    assert run.exit_code == exit_code, run.stderr
    assert run.last_line["hint"]


def test_a_missing_bucket_is_a_destination_error(place: BucketFixture, sim: Simulator) -> None:
    """A missing bucket is an error of the destination."""
    sim.offer_export(export(2))
    run = sim.mirror_program(f"{place.url.replace(place.name, place.name[:-1] + 'x')}", env=place.env)
    assert (run.exit_code, run.last_line["error"]) == (8, "DestinationError"), run.stderr


@pytest.mark.long
def test_a_mirror_is_copied_to_each_store_and_back(
    place: BucketFixture, sim: Simulator, azurite: Azurite, tmp_path: Path
) -> None:
    """A mirror is copied from a folder to a container, a bucket and back: the same bytes, versions and manifests
    all the way, and the service is not asked again.
    """
    files = sim.offer_export({**export(30), "tiles/big.glb": glb(random.Random(1).randbytes(9_000_000))})
    folder, back = tmp_path / "folder", tmp_path / "back"
    assert sim.mirror_program(folder).exit_code == 0
    sim.clear_requests()
    url = new_container(azurite)
    container = f"az://{ACCOUNT}/{url.rpartition('/')[2]}/a b"
    azure = {"AZURE_STORAGE_KEY": KEY, "TILESYNC_AZURE_ENDPOINT": f"{azurite.url}/{ACCOUNT}"}
    for source, dest in ((str(folder), container), (container, place.url), (place.url, str(back))):
        run = place.run_command("mirror", source, dest, **azure)
        assert (run.exit_code, run.last_line["fetched"], run.last_line["version"]) == (0, len(files), EXPORT), (
            run.stderr
        )
        again = place.run_command("mirror", source, dest, **azure)
        assert (again.exit_code, again.last_line["fetched"], again.last_line["kept"]) == (0, 0, len(files)), (
            again.stderr
        )
    assert read_tree(back / "versions" / EXPORT) == files
    assert sim.requests == []
    lines = [json.loads(line) for line in (folder / "manifests" / f"{EXPORT}.jsonl").read_text().splitlines()]
    ours = [json.loads(line) for line in (back / "manifests" / f"{EXPORT}.jsonl").read_text().splitlines()]
    assert lines[1:] == ours[1:]
    assert {key: value for key, value in lines[0].items() if key != "finished"} == {
        key: value for key, value in ours[0].items() if key != "finished"
    }
    for store in (container, place.url):
        assert place.run_command("verify", store, **azure).exit_code == 0
    same = place.run_command("mirror", container, container + "/", **azure)
    assert (same.exit_code, same.last_line["error"]) == (2, "UsageError")


def test_a_damaged_object_of_a_source_is_not_published(place: BucketFixture, sim: Simulator, tmp_path: Path) -> None:
    """A changed object of a mirror as SOURCE fails by its SHA-256, and nothing is published."""
    sim.offer_export(export(10))
    assert place.mirror(sim).exit_code == 0
    key = f"{place.prefix}versions/{EXPORT}/tiles/003.glb"
    place.server.client.put_object(Bucket=place.name, Key=key, Body=glb(b"another one"))
    run = place.run_command("mirror", place.url, str(tmp_path / "d"))
    assert (run.exit_code, run.last_line["failed"]) == (3, 1), run.stderr
    assert not (tmp_path / "d" / "tileset.json").exists()


def test_a_dry_run_warns_of_names_that_servers_misread(place: BucketFixture, sim: Simulator) -> None:
    """A dry run into a new bucket warns of names that viewers may not find; it writes nothing."""
    sim.offer_export({**export(2), "tiles/a+b.glb": glb(b"1")})
    run = place.mirror(sim, "--dry-run")
    assert run.exit_code == 0, run.stderr
    assert "tiles/a+b.glb" in run.stderr
    assert place.list_names() == []
    assert not place.state.exists()


def test_workers_upload_small_files(bucket_server: BucketServer, tmp_path: Path, sim: Simulator) -> None:
    """Of many small files most are uploaded by worker processes; each object is whole."""
    files = sim.offer_export(export(900))
    with S3Proxy(bucket_server) as proxy:
        place = BucketFixture(BucketServer(proxy.url), tmp_path / "state")
        run = place.mirror(sim)
        assert (run.exit_code, run.last_line["fetched"]) == (0, len(files)), run.stderr
        uploads = [each for each in proxy.requests if each.method == "PUT" and "/versions/" in each.target]
        assert len({each.target for each in uploads}) == len(files)  # a slow one may be sent twice
        assert sum(map(is_sent_by_pool, uploads)) > 450
    place.assert_published(EXPORT, files)


def is_sent_by_pool(request: S3Request) -> bool:
    """Match requests of worker processes: their client sends the Host header first."""
    return next(iter(request.headers)).lower() == "host"
