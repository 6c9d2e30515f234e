"""The whole program into a real S3 server, and from one store into another."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_proxy import killed_at_random
from tests.support.azurite import ACCOUNT, KEY, Azurite, new_container
from tests.support.builders import IMODEL, export, glb, tree
from tests.support.s3 import ENVIRONMENT, BucketServer
from tests.support.simulator import EXPORT, Ended, Simulator, command

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"


class Bucket:
    """A bucket that a program mirrors to."""

    def __init__(self, server: BucketServer, state: Path) -> None:
        self.server = server
        self.name = server.new_bucket()
        self.place = f"s3://{self.name}/tiles of a bridge+"
        self.lead = "tiles of a bridge+/"
        self.state = state
        self.env = {
            **ENVIRONMENT,
            "XDG_STATE_HOME": str(state),
            "TILESYNC_ENDPOINT_URL": server.url,
            "TILESYNC_RETRY_FOR": "10s",
        }

    def mirror(self, sim: Simulator, *options: str, **env: str) -> Ended:
        """Run the main job."""
        return sim.command(self.place, *options, env={**self.env, **env})

    def run(self, *words: str, **env: str) -> Ended:
        """Run another command."""
        return command(*words, env={**self.env, **env})

    def start(self, sim: Simulator, *options: str) -> subprocess.Popen[bytes]:
        """Start the main job."""
        env = {**self.env, "TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token, "PATH": "/usr/bin:/bin"}
        words = [sys.executable, "-m", "tilesync", "mirror", IMODEL, self.place, "--json", *options]
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def names(self) -> list[str]:
        """What lies there, by names within the place."""
        return [key.removeprefix(self.lead) for key in self.server.keys(self.name)]

    def read(self, name: str) -> bytes:
        """One object."""
        data: bytes = self.server.client.get_object(Bucket=self.name, Key=self.lead + name)["Body"].read()
        return data

    def files(self, version: str) -> dict[str, bytes]:
        """The files of a version."""
        lead = f"versions/{version}/"
        return {name[len(lead) :]: self.read(name) for name in self.names() if name.startswith(lead)}

    def holds(self, version: str, files: dict[str, bytes]) -> None:
        """The pointer leads to this version, which has these files and no others."""
        assert json.loads(self.read("latest.json"))["version"] == version
        assert self.files(version) == files


@pytest.fixture
def place(bucket_server: BucketServer, tmp_path: Path) -> Bucket:
    return Bucket(bucket_server, tmp_path / "state")


def test_an_export_is_published_in_a_bucket(place: Bucket, sim: Simulator) -> None:
    """Files, manifest, pointer; served as what they are; nothing to do the second time; audited whole."""
    files = sim.hold({**export(40), "tiles/big.glb": glb(random.Random(1).randbytes(20_000_000))})
    run = place.mirror(sim)
    assert (run.exit, run.last["fetched"], run.last["published"]) == (0, len(files), True), run.said
    place.holds(EXPORT, files)
    about: dict[str, Any] = place.server.client.head_object(
        Bucket=place.name, Key=f"{place.lead}versions/{EXPORT}/tiles/big.glb"
    )
    assert (about["ContentType"], about["CacheControl"]) == (
        "model/gltf-binary",
        "public, max-age=31536000, immutable",
    )
    pointer = place.server.client.head_object(Bucket=place.name, Key=f"{place.lead}tileset.json")
    assert (pointer["ContentType"], pointer["CacheControl"]) == ("application/json", "no-cache")
    again = place.mirror(sim)
    assert (again.exit, again.last["kept"]) == (0, len(files)), again.said
    assert place.run("verify", place.place).exit == 0
    assert place.run("versions", place.place).exit == 0
    assert place.server.uploads(place.name) == []


def test_a_second_export_shares_and_a_lost_state_is_told_again(place: Bucket, sim: Simulator) -> None:
    """What is unchanged is copied within the bucket; the state is rebuilt by a listing, also of what came in parts."""
    big = {"tiles/big.glb": glb(random.Random(1).randbytes(9_000_000))}
    sim.hold({**export(20), **big})
    assert place.mirror(sim).exit == 0
    files = sim.hold({**export(22), **big}, export_id=OTHER)
    run = place.mirror(sim)
    assert run.exit == 0, run.said
    assert run.last["reused"] >= 20
    place.holds(OTHER, files)
    run = place.mirror(sim, XDG_STATE_HOME=str(place.state.with_name("elsewhere")))
    assert (run.exit, run.last["kept"], run.last["fetched"], run.last["bytes"]) == (0, len(files), 0, 0), run.said


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_it_ends_whole(place: Bucket, sim: Simulator, seed: int) -> None:
    """Each next run takes its own lock up at once, and the bucket is whole in the end."""
    dice = random.Random(seed)
    files = sim.hold({**export(100, seed=seed), "tiles/big.glb": glb(dice.randbytes(20_000_000))})
    killed_at_random(place, sim, dice)
    place.holds(EXPORT, files)


def test_versions_come_and_go(place: Bucket, sim: Simulator) -> None:
    """Rolled back to, followed again, and retired."""
    first = sim.hold(export(5))
    assert place.mirror(sim).exit == 0
    second = sim.hold(export(6), export_id=OTHER)
    assert place.mirror(sim).exit == 0
    assert place.run("rollback", place.place).exit == 0
    place.holds(EXPORT, first)
    assert place.run("rollback", place.place, "--latest").exit == 0
    place.holds(OTHER, second)
    run = place.mirror(sim, "--keep-versions", "1", "--keep-for", "0s")
    assert (run.exit, run.last["retired"]) == (0, 1), run.said
    assert [name for name in place.names() if name.startswith("manifests/")] == [f"manifests/{OTHER}.jsonl"]


def archive(place: Bucket, version: str) -> None:
    """What a lifecycle rule does: the tiles of a version lie in Glacier from now on."""
    lead = f"{place.lead}versions/{version}/tiles/"
    for key in place.server.keys(place.name):
        if key.startswith(lead):
            source = {"Bucket": place.name, "Key": key}
            place.server.client.copy_object(Bucket=place.name, Key=key, CopySource=source, StorageClass="GLACIER")


def test_what_was_archived_is_fetched_again(place: Bucket, sim: Simulator) -> None:
    """Tiles of an older version that cannot be read any more are fetched, with one remark for all of them; the audit of
    that version says of each that it is archived, and of the new one nothing.
    """
    sim.hold(export(8))
    assert place.mirror(sim).exit == 0
    archive(place, EXPORT)
    files = sim.hold(export(9), export_id=OTHER)
    run = place.mirror(sim)
    assert run.exit == 0, run.said
    assert run.last["fetched"] >= 9
    assert run.said.count("archived") == 1, run.said
    place.holds(OTHER, files)
    assert place.run("verify", place.place).exit == 0
    audit = place.run("verify", place.place, "--all")
    assert audit.exit == 10, audit.said
    assert audit.said.count("is archived, and cannot be read before it is restored") == 9, audit.said


def test_an_archived_source_is_told(place: Bucket, sim: Simulator, tmp_path: Path) -> None:
    """Files of a held SOURCE that lie in an archive fail by themselves, and it is said why."""
    sim.hold(export(4))
    assert place.mirror(sim).exit == 0
    archive(place, EXPORT)
    run = place.run("mirror", place.place, str(tmp_path / "d"))
    assert (run.exit, run.last["failed"]) == (3, 5), run.said
    assert "came twice" not in run.said
    assert "is archived, and cannot be read before it is restored" in run.said


@pytest.mark.parametrize(
    ("env", "exit_code"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 5),
        ({"TILESYNC_ENDPOINT_URL": "http://host.invalid"}, 2),
        ({"TILESYNC_ENDPOINT_URL": "http://127.0.0.1:1", "TILESYNC_RETRY_FOR": "1s"}, 6),
    ],
)
def test_what_stands_in_the_way_is_told(place: Bucket, sim: Simulator, env: dict[str, str], exit_code: int) -> None:
    """Nobody named, an address in clear, a server that is not there: each has its exit code and says what to do."""
    sim.hold(export(2))
    run = place.mirror(sim, **env)
    assert run.exit == exit_code, run.said
    assert run.last["hint"]


def test_a_missing_bucket_is_told(place: Bucket, sim: Simulator) -> None:
    """It is an error of the destination."""
    sim.hold(export(2))
    run = sim.command(f"{place.place.replace(place.name, place.name[:-1] + 'x')}", env=place.env)
    assert (run.exit, run.last["error"]) == (8, "DestinationError"), run.said


# --- from one store to another ---


def test_one_download_many_publications(place: Bucket, sim: Simulator, azurite: Azurite, tmp_path: Path) -> None:
    """A folder goes to a container, that to a bucket, and that back to a folder: the same bytes, versions and manifests
    all the way, and the service is not asked again.
    """
    files = sim.hold({**export(30), "tiles/big.glb": glb(random.Random(1).randbytes(9_000_000))})
    folder, back = tmp_path / "folder", tmp_path / "back"
    assert sim.command(folder).exit == 0
    sim.forget()
    url = new_container(azurite)
    container = f"az://{ACCOUNT}/{url.rpartition('/')[2]}/a b"
    azure = {"AZURE_STORAGE_KEY": KEY, "TILESYNC_AZURE_ENDPOINT": f"{azurite.url}/{ACCOUNT}"}
    for source, dest in ((str(folder), container), (container, place.place), (place.place, str(back))):
        run = place.run("mirror", source, dest, **azure)
        assert (run.exit, run.last["fetched"], run.last["version"]) == (0, len(files), EXPORT), run.said
        again = place.run("mirror", source, dest, **azure)
        assert (again.exit, again.last["fetched"], again.last["kept"]) == (0, 0, len(files)), again.said
    assert tree(back / "versions" / EXPORT) == files
    assert sim.requests == []
    lines = [json.loads(line) for line in (folder / "manifests" / f"{EXPORT}.jsonl").read_text().splitlines()]
    ours = [json.loads(line) for line in (back / "manifests" / f"{EXPORT}.jsonl").read_text().splitlines()]
    assert lines[1:] == ours[1:]
    assert {key: value for key, value in lines[0].items() if key != "finished"} == {
        key: value for key, value in ours[0].items() if key != "finished"
    }
    for store in (container, place.place):
        assert place.run("verify", store, **azure).exit == 0
    same = place.run("mirror", container, container + "/", **azure)
    assert (same.exit, same.last["error"]) == (2, "UsageError")


def test_what_is_damaged_in_a_store_is_not_spread(place: Bucket, sim: Simulator, tmp_path: Path) -> None:
    """A held object that someone changed fails, by its SHA-256, and nothing is published."""
    sim.hold(export(10))
    assert place.mirror(sim).exit == 0
    key = f"{place.lead}versions/{EXPORT}/tiles/003.glb"
    place.server.client.put_object(Bucket=place.name, Key=key, Body=glb(b"another one"))
    run = place.run("mirror", place.place, str(tmp_path / "d"))
    assert (run.exit, run.last["failed"]) == (3, 1), run.said
    assert not (tmp_path / "d" / "tileset.json").exists()


def test_the_plan_names_what_a_server_may_read_as_something_else(place: Bucket, sim: Simulator) -> None:
    """A dry run into a bucket that was not tried yet says which names viewers may not find; it writes nothing."""
    sim.hold({**export(2), "tiles/a+b.glb": glb(b"1")})
    run = place.mirror(sim, "--dry-run")
    assert run.exit == 0, run.said
    assert "tiles/a+b.glb" in run.said
    assert place.names() == []
    assert not place.state.exists()
