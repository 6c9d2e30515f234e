"""Test the units of systemd: their command with their environment, their syntax, and their sandbox."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import export
from tests.support.deploy import (
    DEPLOY,
    Unit,
    make_machine,
    read_deploy_file,
    relocate_paths,
    write_fleet,
    write_settings,
)
from tests.support.faults import is_blob
from tests.support.fleet_service import fill_fleet
from tests.support.s3 import ENVIRONMENT, BucketServer
from tests.support.sandbox import sandbox_of
from tests.support.simulator import Simulator
from tests.support.worker_processes import LATE, TILES
from tilesync.demo.loopback_server import FakeRequest, FakeResponse

SERVICES = ("tilesync@.service", "tilesync-fleet.service")
TIMERS = ("tilesync@.timer", "tilesync-fleet.timer")
MAX_EXPOSURE = 1.2
"""Highest exposure by `systemd-analyze security`, of 10; below 2 it says OK."""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Make the folders that the files expect, with tilesync installed there."""
    return make_machine(tmp_path)


def sign_in_by_application(machine: Path, sim: Simulator) -> dict[str, str]:
    """Let the service accept an application, write its secret as the unit expects it, and return its settings."""

    def answer(request: FakeRequest) -> FakeResponse:
        known = b"client_secret=hush" in request.body.split(b"&")
        body = {"access_token": sim.token, "expires_in": 3600} if known else {}
        return FakeResponse(200 if known else 401, json.dumps(body).encode())

    sim.token_answer = answer
    (machine / "etc/tilesync/client-secret").write_text("hush\n")
    return {"TILESYNC_TOKEN": "", "ITP_SERVICE_CLIENT_ID": "service-1", "ITP_ISSUER_URL": sim.url}


def test_the_service_of_a_mirror_reads_its_secret_from_a_credential(machine: Path, sim: Simulator) -> None:
    """The command of the unit signs in with the credential, publishes, and writes its report."""
    sim.offer_export()
    write_settings(machine, f"{machine}/srv/tiles/office", sim, **sign_in_by_application(machine, sim))
    ended = Unit("tilesync@.service", machine, "office").run()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (machine / "srv/tiles/office/tileset.json").exists()
    assert json.loads((machine / "var/log/tilesync/office.json").read_text())["exit"] == 0


def test_the_service_of_a_fleet_tells_systemd_how_it_goes(machine: Path, sim: Simulator) -> None:
    """The command of the unit signs in with the credential, runs all mirrors, and sends READY and each status."""
    write_fleet(machine, fill_fleet(sim, 3), **sign_in_by_application(machine, sim))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(machine / "notify"))
        manager.settimeout(5)
        ended = Unit("tilesync-fleet.service", machine).run(NOTIFY_SOCKET=str(machine / "notify"))
        assert ended.returncode == 0, ended.stdout + ended.stderr
        file = machine / "etc/tilesync/fleet.toml"
        assert manager.recv(4096).decode() == f"READY=1\nSTATUS=running the fleet {file}"
        statuses = [manager.recv(4096).decode() for _ in range(3)]
        assert [status.partition(" done")[0] for status in statuses] == [
            f"STATUS={done} of 3 mirrors" for done in (1, 2, 3)
        ]
        assert manager.recv(4096).decode() == f"STOPPING=1\nSTATUS=fleet {file}: ended well"
    assert (machine / "srv/tiles/office/tileset.json").exists()
    assert json.loads((machine / "var/log/tilesync/fleet.json").read_text())["updated"] == 3


def test_the_end_of_the_window_is_a_success_of_the_service_of_a_fleet(machine: Path, sim: Simulator) -> None:
    """A night that ends with its window has the exit code that the unit counts as a success."""
    fleet = fill_fleet(sim, 2)
    fleet.hang_container(1)
    write_fleet(machine, fleet, head='max-duration = "3s"', **sign_in_by_application(machine, sim))
    unit = Unit("tilesync-fleet.service", machine)
    ended = unit.run()
    fleet.release_hanging()
    assert ended.returncode == 14, ended.stdout + ended.stderr
    assert "14" in unit.settings("SuccessExitStatus")[0].split()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_folders_for_what_it_writes(name: str, machine: Path) -> None:
    """The state is in the folder of StateDirectory; a path that is missing does not stop the service."""
    unit = Unit(name, machine, "office")
    assert unit.settings("StateDirectory") == ["tilesync"]
    assert "XDG_STATE_HOME=/var/lib" in unit.settings("Environment")
    assert unit.settings("ReadWritePaths") == ["-/srv/tiles", "-/var/lib/node_exporter/textfile_collector"]
    report = Path(unit.command()[unit.command().index("--report") + 1])
    assert report.parent == machine / "var/log" / unit.settings("LogsDirectory")[0]


@pytest.mark.parametrize("name", SERVICES)
def test_a_planned_stop_is_no_failure_of_a_service(name: str, machine: Path) -> None:
    """143 (stopped) is a success, for a fleet also 14 (the window ended); the program may state its status."""
    unit = Unit(name, machine, "office")
    expected = {"143", "14"} if "fleet" in name else {"143"}
    assert set(unit.settings("SuccessExitStatus")[0].split()) == expected
    assert (unit.settings("Type"), unit.settings("NotifyAccess")) == (["oneshot"], ["main"])


def test_the_services_have_the_same_sandbox() -> None:
    """From the credentials on, the units are the same text but for their own name."""
    texts = [read_deploy_file(name).partition("\nTimeoutStopSec=")[2].partition("\n")[2] for name in SERVICES]
    assert "ProtectSystem=strict" in texts[0]
    assert texts[0].replace("tilesync@%i", "NAME") == texts[1].replace("edit tilesync-fleet", "edit NAME")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; skip the test where it is not installed."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", [*SERVICES, *TIMERS])
def test_systemd_accepts_a_unit(name: str, machine: Path) -> None:
    """`systemd-analyze verify` finds nothing, neither an unknown setting nor a missing program."""
    for each in (*SERVICES, *TIMERS):
        (machine / each.replace("@", "@office")).write_text(relocate_paths(read_deploy_file(each), machine))
    checked = analyze("verify", "--man=no", str(machine / name.replace("@", "@office")))
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_little(name: str) -> None:
    """`systemd-analyze security` counts at most the exposure that the comment in the unit states."""
    shown = analyze("security", "--offline=yes", "--no-pager", str(DEPLOY / name))
    (found,) = re.findall(r"Overall exposure level for .*: ([0-9.]+) ", shown.stdout)
    assert float(found) <= MAX_EXPOSURE
    assert f"says {found} of 10" in read_deploy_file(name)


@pytest.mark.parametrize("name", TIMERS)
def test_a_timer_starts_every_night(name: str) -> None:
    """The calendar expression of a timer elapses once a day."""
    (expression,) = re.findall(r"^OnCalendar=(.*)$", read_deploy_file(name), re.MULTILINE)
    shown = analyze("calendar", "--iterations=3", "--base-time=2026-03-01 12:00:00 UTC", expression)
    assert shown.returncode == 0, shown.stderr
    assert len(set(re.findall(r"2026-03-0[1-4]", shown.stdout))) == 3


PROBE = """
import ctypes, mmap, os, pathlib, socket, sys
def tried(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return os.strerror(error.errno)
    return "done"
def unshare():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000) != 0:
        raise OSError(ctypes.get_errno(), "")
inside, outside = map(pathlib.Path, sys.argv[1:])
print(tried((inside / "file").write_text, ""))
print(tried((outside / "file").write_text, ""))
print(tried(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)))
print(tried(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW))
print(tried(unshare))
print(tried(os.chown, inside / "file", 0, 0))
print(tried(os.chmod, inside / "file", 0o4755))
print(tried(pathlib.Path("/proc/meminfo").read_text))
print(tried(socket.sethostname, "other"))
"""


def test_the_sandbox_of_the_tests_holds(machine: Path) -> None:
    """The sandbox refuses what the unit forbids, so that a run inside it proves something."""
    wrapper = sandbox_of(Unit("tilesync@.service", machine, "office"), machine)
    words = [*wrapper, sys.executable, "-c", PROBE, str(machine / "srv/tiles"), str(machine / "opt/tilesync")]
    probed = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert probed.stdout.splitlines() == [
        "done", "Read-only file system", "Operation not permitted", "Address family not supported by protocol",
        "Operation not permitted", "Operation not permitted", "Operation not permitted", "No such file or directory",
        "Operation not permitted",
    ], probed.stderr  # fmt: skip


def count_workers(machine: Path) -> int:
    """Count the worker processes of runs on a machine, by the folders in their environment."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_worker = b"tilesync.runtime.process_pool" in (folder / "cmdline").read_bytes()
            found += is_worker and str(machine).encode() in (folder / "environ").read_bytes()
    return found


def test_a_mirror_with_workers_runs_in_the_sandbox(machine: Path, sim: Simulator) -> None:
    """Worker processes, the catalog, hard links and a second version work with what the unit leaves."""
    unit = Unit("tilesync@.service", machine, "office")
    wrapper = sandbox_of(unit, machine)
    write_settings(machine, f"{machine}/srv/tiles/office", sim, **sign_in_by_application(machine, sim))
    seen: list[int] = []
    sim.run_before_request(LATE, is_blob, lambda: seen.append(count_workers(machine)))
    for number in (1, 2):
        name = f"{number:08}-0000-0000-0000-000000000000"
        sim.offer_export(export(TILES), export_id=name, stats={"compressedSize": 60_000_000})
        ended = unit.run(*wrapper)
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr
    assert seen[0] > 0
    assert len(list((machine / "srv/tiles/office/manifests").iterdir())) == 2
    versions = (machine / "srv/tiles/office").glob("versions/0*")
    inodes = [{path.stat().st_ino for path in version.rglob("*.glb")} for version in versions]
    assert len(set.intersection(*inodes)) > TILES / 2


def test_a_mirror_into_a_bucket_runs_in_the_sandbox(machine: Path, sim: Simulator, bucket_server: BucketServer) -> None:
    """The libraries of S3 work in the sandbox, and the state goes to the folder of the state."""
    unit = Unit("tilesync@.service", machine, "office")
    wrapper = sandbox_of(unit, machine)
    sim.offer_export()
    place = f"s3://{bucket_server.new_bucket()}/office"
    write_settings(machine, place, sim, **ENVIRONMENT, AWS_ENDPOINT_URL=bucket_server.url)
    (machine / "etc/tilesync/client-secret").write_text("not used: a token is set")
    (machine / "var/lib/tilesync").mkdir(exist_ok=True)
    ended = unit.run(*wrapper)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr
    assert len(list((machine / "var/lib/tilesync/destinations").iterdir())) == 1


def test_a_fleet_runs_in_the_sandbox(machine: Path, sim: Simulator) -> None:
    """A fleet writes tiles, report and state with what the unit leaves; the second night changes nothing."""
    unit = Unit("tilesync-fleet.service", machine)
    wrapper = sandbox_of(unit, machine)
    write_fleet(machine, fill_fleet(sim, 3), **sign_in_by_application(machine, sim))
    (machine / "var/lib/tilesync").mkdir(exist_ok=True)
    for result in ("updated", "unchanged"):
        ended = unit.run(*wrapper)
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr
        assert json.loads((machine / "var/log/tilesync/fleet.json").read_text())[result] == 3
    assert len(list((machine / "var/lib/tilesync/fleets").iterdir())) == 1
