"""What may befall a destination in a container between two writes: other machines, lost answers, outages, signals."""

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

from tests.support.azure_proxy import Away
from tests.support.azurite import ACCOUNT, KEY, Azurite, Passing, Refusal, Road, new_container, signed
from tests.support.builders import IMODEL, export, glb, tileset
from tests.support.simulator import EXPORT, Simulator, command

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"
THIRD = "cccccccc-0000-4000-8000-000000000003"
BIG = {"tileset.json": tileset("big.glb"), "big.glb": glb(random.Random(3).randbytes(9_500_000))}


def elsewhere(away: Away, name: str) -> str:
    """The state folder of another machine."""
    return str(away.state.with_name(name))


def test_what_another_machine_published_is_never_written_over(away: Away, sim: Simulator) -> None:
    """A version begun here and published from elsewhere is taken over as it is; the changed export is another one."""
    first = sim.hold(export(60))
    count = [0]

    def jam(passing: Passing) -> Refusal | None:
        count[0] += passing.method == "PUT" and "versions/" in passing.blob
        full = count[0] > 30 and passing.method == "PUT" and "versions/" in passing.blob
        return Refusal(403, "AuthorizationPermissionMismatch") if full else None

    away.road.gate = jam
    assert away.mirror(sim, "--transfers", "4").exit == 5
    away.road.gate = lambda passing: None
    assert away.mirror(sim, XDG_STATE_HOME=elsewhere(away, "other")).exit == 0
    away.holds(EXPORT, first)
    second = export(60, seed=2)
    sim.regenerate(second)
    count[0] = 0
    away.road.gate = jam
    assert away.mirror(sim, "--transfers", "4").exit == 5
    away.road.gate = lambda passing: None
    away.holds(EXPORT, first)
    assert away.run("verify", away.place).exit == 0
    run = away.mirror(sim)
    assert (run.exit, run.last["version"]) == (0, f"{EXPORT}-2"), run.said
    away.holds(f"{EXPORT}-2", second)
    assert away.blobs(f"versions/{EXPORT}/") == first


def test_what_another_machine_retired_stays_so(away: Away, sim: Simulator) -> None:
    """A version that lies in the trash is not brought back by a state that knew it as held."""
    sim.hold(export(5))
    assert away.mirror(sim).exit == 0
    sim.hold(export(6), export_id=OTHER)
    other = elsewhere(away, "other")
    assert away.mirror(sim, "--keep-versions", "1", "--keep-for", "0s", XDG_STATE_HOME=other).last["retired"] == 1
    run = away.mirror(sim)
    assert run.exit == 0, run.said
    assert list(away.blobs("manifests/")) == [f"{OTHER}.jsonl"]


def test_no_copy_tells_a_link_that_may_write(away: Away, sim: Simulator) -> None:
    """What everyone who may read a copied blob is told of its source is no link, or one that only reads."""
    sim.hold(export(10))
    assert away.mirror(sim).exit == 0
    sim.hold(export(12), export_id=OTHER)
    assert away.mirror(sim).last["reused"] >= 10
    away.client.set_container_access_policy({}, public_access="blob")
    connection = http.client.HTTPConnection(urlsplit(away.road.url).netloc)
    connection.request("HEAD", f"/{ACCOUNT}/{away.container}/versions/{OTHER}/tiles/000.glb")
    answer = connection.getresponse()
    assert answer.status == 200
    told = answer.getheader("x-ms-copy-source") or ""
    assert "sig=" not in told or "sp=r&" in f"{told}&"
    connection.close()


def test_a_link_that_was_given_copies_nothing_where_that_would_tell_it(away: Away, sim: Simulator) -> None:
    """Where only that link could sign the source of a copy the files are fetched again."""
    link = signed(away.url)
    dest = f"{away.road.url}/{ACCOUNT}/{away.container}?{link.query}"
    sim.hold(export(10))
    assert away.mirror(sim, dest=dest).exit == 0
    files = sim.hold(export(12), export_id=OTHER)
    run = away.mirror(sim, dest=dest)
    assert (run.exit, run.last["reused"]) == (0, 0), run.said
    away.holds(OTHER, files)
    assert not [blob for blob in away.client.list_blobs() if "sig=" in str(blob.copy.source)]


@pytest.mark.parametrize("by_link", [True, False])
def test_a_store_that_may_not_read_itself_copies_nothing(away: Away, sim: Simulator, *, by_link: bool) -> None:
    """Its own no to the source of a copy (a signature for other addresses, a firewall) is none to the destination."""
    away.road.copies = True
    dest = f"{away.road.url}/{ACCOUNT}/{away.container}?{signed(away.url).query}" if by_link else None
    sim.hold(export(60))
    assert away.mirror(sim, dest=dest).exit == 0
    files = sim.hold(export(64), export_id=OTHER)
    away.road.gate = lambda passing: (
        Refusal(403, "CannotVerifyCopySource") if "x-ms-copy-source" in passing.headers else None
    )
    away.forget()
    run = away.mirror(sim, "--keep-versions", "1", "--keep-for", "0s", dest=dest)
    assert (run.exit, run.last["reused"], run.last["retired"]) == (0, 0, 1), run.said
    away.holds(OTHER, files)
    asked = [each for each in away.road.told if "x-ms-copy-source" in each.headers]
    assert 1 <= len(asked) <= 33
    (trashed,) = away.blobs(".tilesync/trash/").values()
    assert len(trashed.splitlines()) == 1 + run.last["listed"] - 4


def test_a_copy_that_fails_once_is_made_again(away: Away, sim: Simulator) -> None:
    """An internal error of the service is borne with; it says nothing of what the service knows."""
    away.road.copies = True
    link = f"{away.road.url}/{ACCOUNT}/{away.container}?{signed(away.url).query}"
    sim.hold(export(40))
    assert away.mirror(sim, dest=link).exit == 0
    files = sim.hold(export(44), export_id=OTHER)
    failed = threading.Event()

    def once(passing: Passing) -> Refusal | None:
        if "x-ms-copy-source" not in passing.headers or failed.is_set():
            return None
        failed.set()
        return Refusal(500, "InternalError")

    away.road.gate = once
    run = away.mirror(sim, dest=link)
    assert (run.exit, run.last["reused"] >= 40) == (0, True), run.said
    away.holds(OTHER, files)


@pytest.mark.parametrize("kind", ["block", "blocklist"])
def test_a_block_that_is_refused_for_good_fails_its_file(away: Away, sim: Simulator, kind: str) -> None:
    """The end is that of a storage that kept failing, never a bug."""
    sim.hold(BIG)
    away.road.gate = lambda passing: Refusal(503, "ServerBusy") if passing.query.get("comp") == kind else None
    run = away.mirror(sim, TILESYNC_RETRY_FOR="2s")
    assert run.exit in {3, 6}, run.said
    assert run.last["error"] in {"Incomplete", "Unavailable"}
    assert run.last["hint"]
    assert run.last["retries"] < 20


@pytest.mark.parametrize("phase", ["opening", "block"])
def test_a_signal_ends_a_run_promptly(away: Away, sim: Simulator, phase: str) -> None:
    """While the store answers nothing, or refuses everything, SIGTERM ends the run with 143 within seconds."""
    sim.hold(BIG)
    seen, over = threading.Event(), threading.Event()

    def gate(passing: Passing) -> Refusal | None:
        if phase == "opening":
            seen.set()
            return Refusal(503, "ServerBusy")
        if passing.query.get("comp") == "block":
            seen.set()
            over.wait(60)
        return None

    away.road.gate = gate
    away.env["TILESYNC_RETRY_FOR"] = "40s"
    running = away.start(sim)
    assert seen.wait(30)
    time.sleep(1)
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=60)
    over.set()
    assert (running.returncode, json.loads(out.splitlines()[-1])["error"]) == (143, "Terminated")
    assert time.monotonic() - began < 10


def test_answers_may_be_lost(away: Away, sim: Simulator) -> None:
    """Each kind of request is done, and its answer lost, once: the run ends as if nothing had been."""
    files = sim.hold({**export(20), **BIG, "tileset.json": export(20)["tileset.json"]})
    here, seen = threading.local(), set[tuple[object, ...]]()

    class Cuts(dict[str, int]):
        """Breaks the connection behind the first request of each kind."""

        def pop(self, key: str, default: int | None = None) -> int | None:  # type: ignore[override]  # the one use that a road makes of it
            passing: Passing = here.passing
            about = passing.blob if passing.blob in {"tileset.json", "latest.json"} else passing.blob.partition("/")[0]
            lease = passing.headers.get("x-ms-lease-action")
            kind = (passing.method, passing.query.get("comp"), about, lease)
            if kind in seen:
                return default
            seen.add(kind)
            raise ConnectionResetError

    def gate(passing: Passing) -> None:
        here.passing = passing

    away.road.gate, away.road.cuts = gate, Cuts()
    run = away.mirror(sim, TILESYNC_RETRY_FOR="20s")
    assert run.exit == 0, run.said
    assert ("PUT", None, "tileset.json", None) in seen
    away.road.cuts = {}
    away.holds(EXPORT, files)
    assert away.run("verify", away.place).exit == 0


def test_a_plan_and_a_source_make_no_container(away: Away, sim: Simulator, tmp_path: Path) -> None:
    """--create-container is about the DEST of a run that writes."""
    sim.hold(export(3))
    missing = f"az://{ACCOUNT}/{away.container}x"
    assert away.mirror(sim, "--create-container", "--dry-run", dest=missing).exit != 0
    assert away.run("mirror", missing, str(tmp_path / "d"), "--create-container").exit != 0
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    with BlobServiceClient(f"{away.road.url}/{ACCOUNT}", credential=credential) as account:
        assert not account.get_container_client(f"{away.container}x").exists()


def test_a_hook_is_not_lost_with_the_process(away: Away, sim: Simulator, tmp_path: Path) -> None:
    """Killed when the pointer stood and before anyone was told, the next run has it told."""
    sim.hold(export(3))
    told = tmp_path / "told"
    script = tmp_path / "hook.py"
    script.write_text(f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read())")
    words = ("--on-publish", f"{sys.executable} {script}")
    stuck, over = threading.Event(), threading.Event()

    def gate(passing: Passing) -> None:
        if passing.blob == "latest.json" and passing.method == "PUT":
            stuck.set()
            over.wait(30)

    away.road.gate = gate
    running = away.start(sim, *words)
    assert stuck.wait(30)
    running.kill()
    running.communicate()
    over.set()
    away.road.gate = lambda passing: None
    assert not told.exists()
    assert away.mirror(sim, *words).exit == 0
    assert json.loads(told.read_text())["pointer"] == EXPORT


def test_what_has_not_moved_is_not_announced(away: Away, sim: Simulator, tmp_path: Path) -> None:
    """A refused pointer is no publication; a run without the command leaves the telling to one that has it."""
    sim.hold(export(3))
    told = tmp_path / "told"
    hook = ("--on-publish", f"{sys.executable} -c \"import sys; open('{told}', 'a').write(sys.stdin.read())\"")

    def gate(passing: Passing) -> Refusal | None:
        is_pointer = passing.method == "PUT" and passing.blob == "tileset.json"
        return Refusal(403, "AuthorizationPermissionMismatch") if is_pointer else None

    away.road.gate = gate
    assert away.mirror(sim, *hook).exit == 5
    assert not told.exists()
    away.road.gate = lambda passing: None
    assert away.mirror(sim).last["published"] is True
    assert not told.exists()
    assert away.mirror(sim, *hook).exit == 0
    said = json.loads(told.read_text())
    assert (said["kind"], said["pointer"]) == ("finished", EXPORT)


def test_a_pin_is_every_machines(away: Away, sim: Simulator) -> None:
    """Pinned from elsewhere, the pointer stays through the nights of this machine, until it is released anywhere."""
    for which in (EXPORT, OTHER):
        sim.hold(export(4, seed=len(which)), export_id=which)
        assert away.mirror(sim).exit == 0
    there = {"XDG_STATE_HOME": elsewhere(away, "laptop")}
    assert command("rollback", away.place, env={**away.env, **there}).exit == 0
    sim.hold(export(4, seed=9), export_id=THIRD)
    run = away.mirror(sim)
    assert (run.exit, run.last["published"]) == (0, False), run.said
    assert (away.said("latest.json")["version"], away.said("latest.json")["pinned"]) == (EXPORT, True)
    assert "pinned" in away.mirror(sim, "--dry-run").said
    assert away.run("rollback", away.place, "--latest").exit == 0
    assert away.said("latest.json")["version"] == THIRD
    assert command("rollback", away.place, OTHER[:8], env={**away.env, **there}).exit == 0
    assert command("rollback", away.place, "--latest", env={**away.env, **there}).exit == 0
    run = away.mirror(sim)
    assert (run.exit, run.last["published"]) == (0, False)
    assert away.said("latest.json")["version"] == THIRD
    assert "pinned" not in away.said("latest.json")


def test_a_pin_that_another_machine_took_away_spares_nothing(away: Away, sim: Simulator) -> None:
    """What was pinned here once, and released elsewhere, retires as any version does."""
    for which in (EXPORT, OTHER):
        sim.hold(export(4, seed=ord(which[0])), export_id=which)
        assert away.mirror(sim).exit == 0
    assert away.run("rollback", away.place).exit == 0
    there = {**away.env, "XDG_STATE_HOME": elsewhere(away, "laptop")}
    assert command("rollback", away.place, "--latest", env=there).exit == 0
    run = away.mirror(sim, "--keep-versions", "1", "--keep-for", "0s")
    assert (run.exit, run.last["retired"]) == (0, 1), run.said
    assert list(away.blobs("manifests/")) == [f"{OTHER}.jsonl"]


def test_what_another_machine_left_just_now_does_not_retire(away: Away, sim: Simulator) -> None:
    """A version that was current until another machine moved the pointer is kept for as long as one left here."""
    sim.hold(export(4))
    assert away.mirror(sim).exit == 0
    catalog = next(away.state.glob("tilesync/destinations/*/catalog.sqlite3"))
    with sqlite3.connect(catalog) as connection:
        assert connection.execute("UPDATE version SET published = '2026-01-01T00:00:00Z'").rowcount == 1
    sim.hold(export(4, seed=2), export_id=OTHER)
    assert away.mirror(sim, XDG_STATE_HOME=elsewhere(away, "other")).exit == 0
    run = away.mirror(sim, "--keep-versions", "1")
    assert (run.exit, run.last["retired"]) == (0, 0), run.said
    assert away.mirror(sim, "--keep-versions", "1", "--keep-for", "0s").last["retired"] == 1


def test_who_lost_the_lock_writes_nothing_more(away: Away, sim: Simulator, azurite: Azurite) -> None:
    """Cut off while it moved the pointer, a run comes back when another has moved it: latest.json stays the other's."""
    sim.hold(export(3))
    stuck, over = threading.Event(), threading.Event()

    def gate(passing: Passing) -> Refusal | None:
        if passing.blob == "latest.json" and passing.method == "PUT" and not stuck.is_set():
            stuck.set()
            over.wait(120)
            return Refusal(503, "ServerBusy")
        return None

    away.road.gate = gate
    running = away.start(sim, "--retry-for", "5m")
    assert stuck.wait(30)
    running.send_signal(signal.SIGSTOP)
    sim.hold(export(4, seed=2), export_id=OTHER)
    with Road(azurite) as road:
        away.env["TILESYNC_AZURE_ENDPOINT"] = f"{road.url}/{ACCOUNT}"
        other = away.mirror(sim, XDG_STATE_HOME=elsewhere(away, "other"))
    assert other.exit == 0, other.said
    over.set()
    running.send_signal(signal.SIGCONT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 9, err
    assert b"was lost" in err or b"someone else moved the pointer" in err
    assert away.said("latest.json")["version"] == OTHER
    away.holds(OTHER, export(4, seed=2))


@pytest.mark.parametrize("name", ["tileset.json", "latest.json"])
def test_what_others_put_there_is_not_written_over(away: Away, sim: Simulator, name: str) -> None:
    """A place that has a pointer of someone else's is none of ours."""
    away.client.upload_blob(name, b'{"mine": 1}')
    sim.hold(export(3))
    run = away.mirror(sim)
    assert (run.exit, f"{name} that tilesync did not write" in run.last["message"]) == (8, True), run.said
    assert away.blobs() == {name: b'{"mine": 1}'}


def test_an_audit_stops_when_it_is_told_to(away: Away, sim: Simulator) -> None:
    """While many files are read: nothing is tried again then, and nothing is said but that it stops."""
    sim.hold({**export(40), "tiles/big.glb": glb(random.Random(1).randbytes(30_000_000))})
    assert away.mirror(sim).exit == 0
    reading = threading.Event()

    def slowly(passing: Passing) -> None:
        if passing.method == "GET" and "tiles/" in passing.blob:
            reading.set()
            time.sleep(0.3)

    away.road.gate = slowly
    words = [sys.executable, "-m", "tilesync", "verify", away.place]
    env = {**away.env, "PATH": "/usr/bin:/bin"}
    running = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert reading.wait(30)
    running.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = running.communicate(timeout=60)
    assert (running.returncode, time.monotonic() - began < 8) == (130, True), err
    assert "trying again" not in err


def test_an_identity_may_say_where_the_account_is(away: Away, sim: Simulator) -> None:
    """A connection string with an endpoint of its own is enough, for `doctor` too, which fills in `{account}`."""
    env = {"XDG_STATE_HOME": str(away.state)}
    endpoint = f"{away.road.url}/{ACCOUNT}"
    text = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"
    away.client.set_container_access_policy({}, public_access="blob")
    sim.hold(export(3))
    ways = (
        {"AZURE_STORAGE_CONNECTION_STRING": text},
        {"AZURE_STORAGE_KEY": KEY, "TILESYNC_AZURE_ENDPOINT": f"{away.road.url}/{{account}}"},
    )
    for way in ways:
        given = {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token, **env, **way}
        run = command("mirror", IMODEL, away.place, env=given)
        assert run.exit == 0, run.said
        checked = command("doctor", away.place, env=given)
        assert "public" not in checked.last.get("message", ""), checked.said
    link = f"{endpoint}/{away.container}?{signed(away.url).query}"
    assert command("versions", link, env={**env, **ways[1]}).exit == 0
    assert len(list((away.state / "tilesync/destinations").iterdir())) == 1


def test_a_command_prints_links_to_dest_alone(away: Away, sim: Simulator, azurite: Azurite) -> None:
    """A link to another container than az:// names is refused, also the first one."""
    sim.hold(export(3))
    other = new_container(azurite)
    link = f"{away.road.url}/{ACCOUNT}/{other.rpartition('/')[2]}?{signed(other).query}"
    env = {"AZURE_STORAGE_KEY": ""}
    run = away.mirror(sim, "--dest-link-command", f"echo {shlex.quote(link)}", **env)
    assert (run.exit, run.last["error"]) == (5, "NotAuthorised"), run.said
    assert "another container" in run.last["message"]
    assert not away.names()
    mine = f"{away.road.url}/{ACCOUNT}/{away.container}?{signed(away.url).query}"
    assert away.mirror(sim, "--dest-link-command", f"echo {shlex.quote(mine)}", **env).exit == 0


def test_a_token_goes_to_its_own_account_only(away: Away) -> None:
    """AZURE_STORAGE_SAS_TOKEN is for DEST, or for the account that AZURE_STORAGE_ACCOUNT names."""
    env = {name: value for name, value in away.env.items() if name != "AZURE_STORAGE_KEY"}
    env["TILESYNC_AZURE_ENDPOINT"] = f"{away.road.url}/{{account}}"
    env["AZURE_STORAGE_SAS_TOKEN"] = signed(away.url).query
    env["IDENTITY_ENDPOINT"] = env["IDENTITY_HEADER"] = "http://127.0.0.1:1"
    env["AZURE_TOKEN_CREDENTIALS"] = "ManagedIdentityCredential"
    run = command("mirror", "az://someoneelse/theirs", str(away.state / "copy"), env=env)
    assert run.exit != 0
    assert not [each for each in away.road.told if "sig" in each.query]
    command(
        "mirror",
        "az://someoneelse/theirs",
        str(away.state / "copy"),
        env={**env, "AZURE_STORAGE_ACCOUNT": "someoneelse"},
    )
    assert [each for each in away.road.told if "sig" in each.query]


def test_the_state_is_this_users_alone(away: Away, sim: Simulator) -> None:
    """The folder of a destination's state is closed to others; a place that holds nothing gets none by a rollback."""
    assert away.run("rollback", away.place).exit == 8
    assert not away.state.exists()
    sim.hold(export(3))
    assert away.mirror(sim).exit == 0
    (folder,) = (away.state / "tilesync/destinations").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_place_has_one_state_however_it_is_named(away: Away, sim: Simulator) -> None:
    """By its name or by a link: the run goes on with what the other knew."""
    files = sim.hold(export(3))
    assert away.mirror(sim).exit == 0
    link = f"{away.road.url}/{ACCOUNT}/{away.container}?{signed(away.url).query}"
    run = away.mirror(sim, dest=link)
    assert (run.exit, run.last["kept"]) == (0, len(files))
    assert len(list((away.state / "tilesync/destinations").iterdir())) == 1
