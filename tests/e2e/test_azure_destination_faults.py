"""Test faults of an Azure destination: other machines, lost responses, outages, signals."""

from __future__ import annotations

import http.client
import json
import random
import shlex
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from azure.storage.blob import BlobServiceClient

from tests.support.azure_proxy import AzureFixture
from tests.support.azurite import (
    ACCOUNT,
    KEY,
    AzureProxy,
    Azurite,
    ProxiedRequest,
    RefusedResponse,
    new_container,
    signed_link,
)
from tests.support.builders import IMODEL, export, glb, tileset
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, run_program

THIRD = "cccccccc-0000-4000-8000-000000000003"
BIG_EXPORT = {"tileset.json": tileset("big.glb"), "big.glb": glb(random.Random(3).randbytes(9_500_000))}


def other_state_folder(azure_store: AzureFixture, name: str) -> str:
    """Return the state folder of another machine."""
    return str(azure_store.state.with_name(name))


def test_a_version_published_elsewhere_is_not_overwritten(azure_store: AzureFixture, sim: Simulator) -> None:
    """A version that was started here and published from elsewhere is taken over; a changed export makes a new one."""
    first = sim.offer_export(export(60))
    count = [0]

    def jam(passing: ProxiedRequest) -> RefusedResponse | None:
        count[0] += passing.method == "PUT" and "versions/" in passing.blob
        full = count[0] > 30 and passing.method == "PUT" and "versions/" in passing.blob
        return RefusedResponse(403, "AuthorizationPermissionMismatch") if full else None

    azure_store.proxy.intercept = jam
    assert azure_store.mirror(sim, "--transfers", "4").exit_code == 5
    azure_store.proxy.intercept = lambda passing: None
    assert azure_store.mirror(sim, XDG_STATE_HOME=other_state_folder(azure_store, "other")).exit_code == 0
    azure_store.assert_published(EXPORT, first)
    second = export(60, seed=2)
    sim.regenerate(second)
    count[0] = 0
    azure_store.proxy.intercept = jam
    assert azure_store.mirror(sim, "--transfers", "4").exit_code == 5
    azure_store.proxy.intercept = lambda passing: None
    azure_store.assert_published(EXPORT, first)
    assert azure_store.run("verify", azure_store.destination_url).exit_code == 0
    run = azure_store.mirror(sim)
    assert (run.exit_code, run.last_line["version"]) == (0, f"{EXPORT}-2"), run.stderr
    azure_store.assert_published(f"{EXPORT}-2", second)
    assert azure_store.blobs(f"versions/{EXPORT}/") == first


def test_a_version_retired_elsewhere_stays_retired(azure_store: AzureFixture, sim: Simulator) -> None:
    """An old state does not restore a version that is in the trash."""
    sim.offer_export(export(5))
    assert azure_store.mirror(sim).exit_code == 0
    sim.offer_export(export(6), export_id=OTHER_EXPORT)
    other = other_state_folder(azure_store, "other")
    assert (
        azure_store.mirror(sim, "--keep-versions", "1", "--keep-for", "0s", XDG_STATE_HOME=other).last_line["retired"]
        == 1
    )
    run = azure_store.mirror(sim)
    assert run.exit_code == 0, run.stderr
    assert list(azure_store.blobs("manifests/")) == [f"{OTHER_EXPORT}.jsonl"]


def test_the_recorded_copy_source_is_never_a_writable_link(azure_store: AzureFixture, sim: Simulator) -> None:
    """The copy source in the properties of a blob is no link, or one that can only read."""
    sim.offer_export(export(10))
    assert azure_store.mirror(sim).exit_code == 0
    sim.offer_export(export(12), export_id=OTHER_EXPORT)
    assert azure_store.mirror(sim).last_line["reused"] >= 10
    azure_store.client.set_container_access_policy({}, public_access="blob")
    connection = http.client.HTTPConnection(urlsplit(azure_store.proxy.url).netloc)
    connection.request("HEAD", f"/{ACCOUNT}/{azure_store.container}/versions/{OTHER_EXPORT}/tiles/000.glb")
    answer = connection.getresponse()
    assert answer.status == 200
    copy_source = answer.getheader("x-ms-copy-source") or ""
    assert "sig=" not in copy_source or "sp=r&" in f"{copy_source}&"
    connection.close()


def test_files_are_fetched_if_a_copy_would_reveal_a_given_link(azure_store: AzureFixture, sim: Simulator) -> None:
    """If only a given link could sign the source of a copy, the files are fetched again."""
    link = signed_link(azure_store.url)
    dest = f"{azure_store.proxy.url}/{ACCOUNT}/{azure_store.container}?{link.query}"
    sim.offer_export(export(10))
    assert azure_store.mirror(sim, dest=dest).exit_code == 0
    files = sim.offer_export(export(12), export_id=OTHER_EXPORT)
    run = azure_store.mirror(sim, dest=dest)
    assert (run.exit_code, run.last_line["reused"]) == (0, 0), run.stderr
    azure_store.assert_published(OTHER_EXPORT, files)
    assert not [blob for blob in azure_store.client.list_blobs() if "sig=" in str(blob.copy.source)]


@pytest.mark.parametrize("by_link", [True, False])
def test_a_refused_copy_source_is_not_a_refused_destination(
    azure_store: AzureFixture, sim: Simulator, *, by_link: bool
) -> None:
    """A refused copy source (a signature for other addresses, a firewall) is no refusal of the destination."""
    azure_store.proxy.emulates_copy_from_url = True
    dest = (
        f"{azure_store.proxy.url}/{ACCOUNT}/{azure_store.container}?{signed_link(azure_store.url).query}"
        if by_link
        else None
    )
    sim.offer_export(export(60))
    assert azure_store.mirror(sim, dest=dest).exit_code == 0
    files = sim.offer_export(export(64), export_id=OTHER_EXPORT)
    azure_store.proxy.intercept = lambda passing: (
        RefusedResponse(403, "CannotVerifyCopySource") if "x-ms-copy-source" in passing.headers else None
    )
    azure_store.clear_requests()
    run = azure_store.mirror(sim, "--keep-versions", "1", "--keep-for", "0s", dest=dest)
    assert (run.exit_code, run.last_line["reused"], run.last_line["retired"]) == (0, 0, 1), run.stderr
    azure_store.assert_published(OTHER_EXPORT, files)
    asked = [each for each in azure_store.proxy.requests if "x-ms-copy-source" in each.headers]
    assert 1 <= len(asked) <= 33
    (trashed,) = azure_store.blobs(".tilesync/trash/").values()
    assert len(trashed.splitlines()) == 1 + run.last_line["listed"] - 4


@pytest.mark.parametrize("by_link", [True, False])
def test_each_unchanged_file_costs_one_request(azure_store: AzureFixture, sim: Simulator, *, by_link: bool) -> None:
    """An unchanged file costs one copy and no other request; those of the night itself are few, however many files."""
    azure_store.proxy.emulates_copy_from_url = True
    link = f"{azure_store.proxy.url}/{ACCOUNT}/{azure_store.container}?{signed_link(azure_store.url).query}"
    dest = link if by_link else None
    copies, others = list[str](), list[str]()

    def record(passing: ProxiedRequest) -> None:
        is_ours = "x-ms-version" in passing.headers  # else the proxy itself reads the source of a copy
        if is_ours and passing.blob != ".tilesync/lock":  # a slow run renews it
            (copies if "x-ms-copy-source" in passing.headers else others).append(passing.blob)

    counts = list[int]()
    for number, count in enumerate((40, 90)):
        sim.offer_export(export(count), export_id=f"{number}{EXPORT[1:]}")
        assert azure_store.mirror(sim, dest=dest).exit_code == 0
        files = sim.offer_export({**export(count), "new.json": b"{}"}, export_id=f"{number + 2}{EXPORT[1:]}")
        copies.clear()
        others.clear()
        azure_store.proxy.intercept = record
        run = azure_store.mirror(sim, dest=dest)
        azure_store.proxy.intercept = lambda passing: None
        assert (run.exit_code, run.last_line["reused"] >= count) == (0, True), run.stderr
        azure_store.assert_published(f"{number + 2}{EXPORT[1:]}", files)
        assert len(set(copies)) == len(copies) == run.last_line["reused"]
        counts.append(len(others))
    assert counts[0] == counts[1]


def test_a_failed_copy_is_retried(azure_store: AzureFixture, sim: Simulator) -> None:
    """An internal error of the service is retried; it does not mean that copies are unsupported."""
    azure_store.proxy.emulates_copy_from_url = True
    link = f"{azure_store.proxy.url}/{ACCOUNT}/{azure_store.container}?{signed_link(azure_store.url).query}"
    sim.offer_export(export(40))
    assert azure_store.mirror(sim, dest=link).exit_code == 0
    files = sim.offer_export(export(44), export_id=OTHER_EXPORT)
    failed = threading.Event()

    def once(passing: ProxiedRequest) -> RefusedResponse | None:
        if "x-ms-copy-source" not in passing.headers or failed.is_set():
            return None
        failed.set()
        return RefusedResponse(500, "InternalError")

    azure_store.proxy.intercept = once
    run = azure_store.mirror(sim, dest=link)
    assert (run.exit_code, run.last_line["reused"] >= 40) == (0, True), run.stderr
    azure_store.assert_published(OTHER_EXPORT, files)


@pytest.mark.parametrize("kind", ["block", "blocklist"])
def test_a_block_that_is_refused_for_good_fails_its_file(azure_store: AzureFixture, sim: Simulator, kind: str) -> None:
    """A storage that keeps failing ends the run with its exit code, never as a bug."""
    sim.offer_export(BIG_EXPORT)
    azure_store.proxy.intercept = lambda passing: (
        RefusedResponse(503, "ServerBusy") if passing.query.get("comp") == kind else None
    )
    run = azure_store.mirror(sim, TILESYNC_RETRY_FOR="2s")
    assert run.exit_code in {3, 6}, run.stderr
    assert run.last_line["error"] in {"Incomplete", "Unavailable"}
    assert run.last_line["hint"]
    assert run.last_line["retries"] < 20


@pytest.mark.parametrize("phase", ["opening", "block"])
def test_a_signal_ends_a_run_promptly(azure_store: AzureFixture, sim: Simulator, phase: str) -> None:
    """SIGTERM ends a run with 143 within seconds, while the store does not respond or refuses everything."""
    sim.offer_export(BIG_EXPORT)
    seen, over = threading.Event(), threading.Event()

    def intercept(passing: ProxiedRequest) -> RefusedResponse | None:
        if phase == "opening":
            seen.set()
            return RefusedResponse(503, "ServerBusy")
        if passing.query.get("comp") == "block":
            seen.set()
            over.wait(60)
        return None

    azure_store.proxy.intercept = intercept
    azure_store.env["TILESYNC_RETRY_FOR"] = "40s"
    running = azure_store.start_mirror(sim)
    assert seen.wait(30)
    time.sleep(1)
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=60)
    over.set()
    assert (running.returncode, json.loads(out.splitlines()[-1])["error"]) == (143, "Terminated")
    assert time.monotonic() - began < 10


def test_a_lost_response_does_not_change_the_result(azure_store: AzureFixture, sim: Simulator) -> None:
    """One lost response of each kind of request does not change the result of a run."""
    files = sim.offer_export({**export(20), **BIG_EXPORT, "tileset.json": export(20)["tileset.json"]})
    here, seen = threading.local(), set[tuple[object, ...]]()

    class Cuts(dict[str, int]):
        """Breaks the connection behind the first request of each kind."""

        def pop(self, key: str, default: int | None = None) -> int | None:  # type: ignore[override]  # the one use that a proxy makes of it
            passing: ProxiedRequest = here.passing
            about = passing.blob if passing.blob in {"tileset.json", "latest.json"} else passing.blob.partition("/")[0]
            lease = passing.headers.get("x-ms-lease-action")
            kind = (passing.method, passing.query.get("comp"), about, lease)
            if kind in seen:
                return default
            seen.add(kind)
            raise ConnectionResetError

    def intercept(passing: ProxiedRequest) -> None:
        here.passing = passing

    azure_store.proxy.intercept, azure_store.proxy.truncations = intercept, Cuts()
    run = azure_store.mirror(sim, TILESYNC_RETRY_FOR="20s")
    assert run.exit_code == 0, run.stderr
    assert ("PUT", None, "tileset.json", None) in seen
    azure_store.proxy.truncations = {}
    azure_store.assert_published(EXPORT, files)
    assert azure_store.run("verify", azure_store.destination_url).exit_code == 0


def test_only_a_run_that_writes_creates_a_container(azure_store: AzureFixture, sim: Simulator, tmp_path: Path) -> None:
    """--create-container applies only to the DEST of a run that writes."""
    sim.offer_export(export(3))
    missing = f"az://{ACCOUNT}/{azure_store.container}x"
    assert azure_store.mirror(sim, "--create-container", "--dry-run", dest=missing).exit_code != 0
    assert azure_store.run("mirror", missing, str(tmp_path / "d"), "--create-container").exit_code != 0
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    with BlobServiceClient(f"{azure_store.proxy.url}/{ACCOUNT}", credential=credential) as account:
        assert not account.get_container_client(f"{azure_store.container}x").exists()


def test_a_hook_is_not_lost_with_the_process(azure_store: AzureFixture, sim: Simulator, tmp_path: Path) -> None:
    """After a kill between pointer and --on-publish command, the next run runs the command."""
    sim.offer_export(export(3))
    hook_file = tmp_path / "hook"
    script = tmp_path / "hook.py"
    script.write_text(f"import sys; open({str(hook_file)!r}, 'a').write(sys.stdin.read())")
    words = ("--on-publish", f"{sys.executable} {script}")
    stuck, over = threading.Event(), threading.Event()

    def intercept(passing: ProxiedRequest) -> None:
        if passing.blob == "latest.json" and passing.method == "PUT":
            stuck.set()
            over.wait(30)

    azure_store.proxy.intercept = intercept
    running = azure_store.start_mirror(sim, *words)
    assert stuck.wait(30)
    running.kill()
    running.communicate()
    over.set()
    azure_store.proxy.intercept = lambda passing: None
    assert not hook_file.exists()
    assert azure_store.mirror(sim, *words).exit_code == 0
    assert json.loads(hook_file.read_text())["pointer"] == EXPORT


def test_the_hook_does_not_run_for_a_refused_pointer(azure_store: AzureFixture, sim: Simulator, tmp_path: Path) -> None:
    """A refused pointer is no publication; a run without the command leaves it to a later run that has one."""
    sim.offer_export(export(3))
    hook_file = tmp_path / "hook"
    hook = ("--on-publish", f"{sys.executable} -c \"import sys; open('{hook_file}', 'a').write(sys.stdin.read())\"")

    def intercept(passing: ProxiedRequest) -> RefusedResponse | None:
        is_pointer = passing.method == "PUT" and passing.blob == "tileset.json"
        return RefusedResponse(403, "AuthorizationPermissionMismatch") if is_pointer else None

    azure_store.proxy.intercept = intercept
    assert azure_store.mirror(sim, *hook).exit_code == 5
    assert not hook_file.exists()
    azure_store.proxy.intercept = lambda passing: None
    assert azure_store.mirror(sim).last_line["published"] is True
    assert not hook_file.exists()
    assert azure_store.mirror(sim, *hook).exit_code == 0
    event = json.loads(hook_file.read_text())
    assert (event["kind"], event["pointer"]) == ("finished", EXPORT)


def test_a_pin_applies_to_every_machine(azure_store: AzureFixture, sim: Simulator) -> None:
    """A pin from another machine keeps the pointer in all runs of this one, until any machine releases it."""
    for which in (EXPORT, OTHER_EXPORT):
        sim.offer_export(export(4, seed=len(which)), export_id=which)
        assert azure_store.mirror(sim).exit_code == 0
    there = {"XDG_STATE_HOME": other_state_folder(azure_store, "laptop")}
    assert run_program("rollback", azure_store.destination_url, env={**azure_store.env, **there}).exit_code == 0
    sim.offer_export(export(4, seed=9), export_id=THIRD)
    run = azure_store.mirror(sim)
    assert (run.exit_code, run.last_line["published"]) == (0, False), run.stderr
    assert (azure_store.read_json("latest.json")["version"], azure_store.read_json("latest.json")["pinned"]) == (
        EXPORT,
        True,
    )
    assert "pinned" in azure_store.mirror(sim, "--dry-run").stderr
    assert azure_store.run("rollback", azure_store.destination_url, "--latest").exit_code == 0
    assert azure_store.read_json("latest.json")["version"] == THIRD
    assert (
        run_program(
            "rollback", azure_store.destination_url, OTHER_EXPORT[:8], env={**azure_store.env, **there}
        ).exit_code
        == 0
    )
    assert (
        run_program("rollback", azure_store.destination_url, "--latest", env={**azure_store.env, **there}).exit_code
        == 0
    )
    run = azure_store.mirror(sim)
    assert (run.exit_code, run.last_line["published"]) == (0, False)
    assert azure_store.read_json("latest.json")["version"] == THIRD
    assert "pinned" not in azure_store.read_json("latest.json")


def test_a_pin_released_elsewhere_protects_no_version(azure_store: AzureFixture, sim: Simulator) -> None:
    """A version that was pinned here and released elsewhere is retired like any other."""
    for which in (EXPORT, OTHER_EXPORT):
        sim.offer_export(export(4, seed=ord(which[0])), export_id=which)
        assert azure_store.mirror(sim).exit_code == 0
    assert azure_store.run("rollback", azure_store.destination_url).exit_code == 0
    there = {**azure_store.env, "XDG_STATE_HOME": other_state_folder(azure_store, "laptop")}
    assert run_program("rollback", azure_store.destination_url, "--latest", env=there).exit_code == 0
    run = azure_store.mirror(sim, "--keep-versions", "1", "--keep-for", "0s")
    assert (run.exit_code, run.last_line["retired"]) == (0, 1), run.stderr
    assert list(azure_store.blobs("manifests/")) == [f"{OTHER_EXPORT}.jsonl"]


def test_a_version_just_replaced_elsewhere_does_not_retire(azure_store: AzureFixture, sim: Simulator) -> None:
    """A version that another machine replaced is kept as long as one that was replaced here."""
    sim.offer_export(export(4))
    assert azure_store.mirror(sim).exit_code == 0
    catalog = next(azure_store.state.glob("tilesync/destinations/*/catalog.sqlite3"))
    with sqlite3.connect(catalog) as connection:
        assert connection.execute("UPDATE version SET published = '2026-01-01T00:00:00Z'").rowcount == 1
    sim.offer_export(export(4, seed=2), export_id=OTHER_EXPORT)
    assert azure_store.mirror(sim, XDG_STATE_HOME=other_state_folder(azure_store, "other")).exit_code == 0
    run = azure_store.mirror(sim, "--keep-versions", "1")
    assert (run.exit_code, run.last_line["retired"]) == (0, 0), run.stderr
    assert azure_store.mirror(sim, "--keep-versions", "1", "--keep-for", "0s").last_line["retired"] == 1


@pytest.mark.long
def test_a_run_that_lost_the_lock_writes_nothing_more(
    azure_store: AzureFixture, sim: Simulator, azurite: Azurite
) -> None:
    """A run that is cut off while it moves the pointer does not overwrite latest.json of a run that moved it since."""
    sim.offer_export(export(3))
    stuck, over = threading.Event(), threading.Event()

    def intercept(passing: ProxiedRequest) -> RefusedResponse | None:
        if passing.blob == "latest.json" and passing.method == "PUT" and not stuck.is_set():
            stuck.set()
            over.wait(120)
            return RefusedResponse(503, "ServerBusy")
        return None

    azure_store.proxy.intercept = intercept
    running = azure_store.start_mirror(sim, "--retry-for", "5m")
    assert stuck.wait(30)
    running.send_signal(signal.SIGSTOP)
    sim.offer_export(export(4, seed=2), export_id=OTHER_EXPORT)
    with AzureProxy(azurite) as proxy:
        azure_store.env["TILESYNC_AZURE_ENDPOINT"] = f"{proxy.url}/{ACCOUNT}"
        other = azure_store.mirror(sim, XDG_STATE_HOME=other_state_folder(azure_store, "other"))
    assert other.exit_code == 0, other.stderr
    over.set()
    running.send_signal(signal.SIGCONT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 9, err
    assert b"was lost" in err or b"another run moved the pointer" in err
    assert azure_store.read_json("latest.json")["version"] == OTHER_EXPORT
    azure_store.assert_published(OTHER_EXPORT, export(4, seed=2))


@pytest.mark.parametrize("name", ["tileset.json", "latest.json"])
def test_a_location_with_a_foreign_pointer_is_refused(azure_store: AzureFixture, sim: Simulator, name: str) -> None:
    """A location with a foreign pointer is refused."""
    azure_store.client.upload_blob(name, b'{"mine": 1}')
    sim.offer_export(export(3))
    run = azure_store.mirror(sim)
    assert (run.exit_code, f"{name} that tilesync did not write" in run.last_line["message"]) == (8, True), run.stderr
    assert azure_store.blobs() == {name: b'{"mine": 1}'}


def test_a_signal_stops_an_audit(azure_store: AzureFixture, sim: Simulator) -> None:
    """A signal during many reads: nothing is retried, and only the stop is reported."""
    sim.offer_export({**export(40), "tiles/big.glb": glb(random.Random(1).randbytes(30_000_000))})
    assert azure_store.mirror(sim).exit_code == 0
    reading = threading.Event()

    def slowly(passing: ProxiedRequest) -> None:
        if passing.method == "GET" and "tiles/" in passing.blob:
            reading.set()
            time.sleep(0.3)

    azure_store.proxy.intercept = slowly
    words = [sys.executable, "-m", "tilesync", "verify", azure_store.destination_url]
    env = {**azure_store.env, "PATH": "/usr/bin:/bin"}
    running = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert reading.wait(30)
    running.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = running.communicate(timeout=60)
    assert (running.returncode, time.monotonic() - began < 8) == (130, True), err
    assert "trying again" not in err


def test_a_connection_string_may_name_the_endpoint(azure_store: AzureFixture, sim: Simulator) -> None:
    """A connection string with an endpoint is enough, also for `doctor`, which fills in `{account}`."""
    env = {"XDG_STATE_HOME": str(azure_store.state)}
    endpoint = f"{azure_store.proxy.url}/{ACCOUNT}"
    text = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"
    azure_store.client.set_container_access_policy({}, public_access="blob")
    sim.offer_export(export(3))
    ways = (
        {"AZURE_STORAGE_CONNECTION_STRING": text},
        {"AZURE_STORAGE_KEY": KEY, "TILESYNC_AZURE_ENDPOINT": f"{azure_store.proxy.url}/{{account}}"},
    )
    for way in ways:
        given = {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token, **env, **way}
        run = run_program("mirror", IMODEL, azure_store.destination_url, env=given)
        assert run.exit_code == 0, run.stderr
        checked = run_program("doctor", azure_store.destination_url, env=given)
        assert "public" not in checked.last_line.get("message", ""), checked.stderr
    link = f"{endpoint}/{azure_store.container}?{signed_link(azure_store.url).query}"
    assert run_program("versions", link, env={**env, **ways[1]}).exit_code == 0
    assert len(list((azure_store.state / "tilesync/destinations").iterdir())) == 1


def test_a_link_command_for_another_container_is_refused(
    azure_store: AzureFixture, sim: Simulator, azurite: Azurite
) -> None:
    """A link to another container than the one in az:// is refused, also as the first link."""
    sim.offer_export(export(3))
    other = new_container(azurite)
    link = f"{azure_store.proxy.url}/{ACCOUNT}/{other.rpartition('/')[2]}?{signed_link(other).query}"
    env = {"AZURE_STORAGE_KEY": ""}
    run = azure_store.mirror(sim, "--dest-link-command", f"echo {shlex.quote(link)}", **env)
    assert (run.exit_code, run.last_line["error"]) == (5, "NotAuthorised"), run.stderr
    assert "another container" in run.last_line["message"]
    assert not azure_store.list_names()
    mine = f"{azure_store.proxy.url}/{ACCOUNT}/{azure_store.container}?{signed_link(azure_store.url).query}"
    assert azure_store.mirror(sim, "--dest-link-command", f"echo {shlex.quote(mine)}", **env).exit_code == 0


def test_a_sas_token_is_used_for_its_own_account_only(azure_store: AzureFixture) -> None:
    """AZURE_STORAGE_SAS_TOKEN is for DEST, or for the account that AZURE_STORAGE_ACCOUNT names."""
    env = {name: value for name, value in azure_store.env.items() if name != "AZURE_STORAGE_KEY"}
    env["TILESYNC_AZURE_ENDPOINT"] = f"{azure_store.proxy.url}/{{account}}"
    env["AZURE_STORAGE_SAS_TOKEN"] = signed_link(azure_store.url).query
    env["IDENTITY_ENDPOINT"] = env["IDENTITY_HEADER"] = "http://127.0.0.1:1"
    env["AZURE_TOKEN_CREDENTIALS"] = "ManagedIdentityCredential"
    run = run_program("mirror", "az://someoneelse/theirs", str(azure_store.state / "copy"), env=env)
    assert run.exit_code != 0
    assert not [each for each in azure_store.proxy.requests if "sig" in each.query]
    run_program(
        "mirror",
        "az://someoneelse/theirs",
        str(azure_store.state / "copy"),
        env={**env, "AZURE_STORAGE_ACCOUNT": "someoneelse"},
    )
    assert [each for each in azure_store.proxy.requests if "sig" in each.query]


def test_the_state_folder_is_private(azure_store: AzureFixture, sim: Simulator) -> None:
    """The state folder is not readable by others; a rollback of an empty location creates none."""
    assert azure_store.run("rollback", azure_store.destination_url).exit_code == 8
    assert not azure_store.state.exists()
    sim.offer_export(export(3))
    assert azure_store.mirror(sim).exit_code == 0
    (folder,) = (azure_store.state / "tilesync/destinations").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_location_has_one_state_however_it_is_named(azure_store: AzureFixture, sim: Simulator) -> None:
    """A destination named by az:// or by a link has the same state."""
    files = sim.offer_export(export(3))
    assert azure_store.mirror(sim).exit_code == 0
    link = f"{azure_store.proxy.url}/{ACCOUNT}/{azure_store.container}?{signed_link(azure_store.url).query}"
    run = azure_store.mirror(sim, dest=link)
    assert (run.exit_code, run.last_line["kept"]) == (0, len(files))
    assert len(list((azure_store.state / "tilesync/destinations").iterdir())) == 1
