"""Test the command line as a process: exit codes, stdout, stderr and files."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, glb, read_tree, tileset
from tests.support.faults import (
    call_before,
    error_response,
    flip_last_bit,
    is_api,
    is_blob,
    is_blob_named,
    is_listing,
    is_storage,
)
from tests.support.fork_server import run_forked
from tests.support.simulator import EXPORT, Simulator, read_latest

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"
COUNTS = {
    "owner", "imodel", "export", "version", "newest", "behind", "listed", "fetched", "reused", "reused_bytes", "kept",
    "excluded", "failed", "deleted", "retired", "gzip_files", "referenced", "missing", "orphans", "unfollowed",
    "verified", "looked",
    "bytes", "renewals", "retries", "seconds", "published",
}  # fmt: skip
RUN_FIELDS = {"started", "finished", "source", "dest", "host", "tilesync"}
FINISHED = {"kind", "exit", *COUNTS, *RUN_FIELDS}
FAILED = FINISHED | {"error", "message", "hint"}


def environment(sim: Simulator | None = None, **more: str) -> dict[str, str]:
    """Return a minimal environment, as cron has it, with a token and the address of the simulator."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    service = {} if sim is None else {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    return {**kept, "LC_ALL": "C.UTF-8", **service, **more}


def tilesync(
    *arguments: object, sim: Simulator | None = None, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command; return its output and exit code."""
    return run_forked([*map(str, arguments)], environment(sim, **more), stdin=stdin)


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the last JSON line; every line must be one flat object with a kind."""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        assert isinstance(line["kind"], str)
        assert not any(isinstance(value, dict | list) for value in line.values()), line
    said: dict[str, Any] = lines[-1]
    assert said["exit"] == done.returncode
    assert [line["kind"] for line in lines if line["kind"] in {"finished", "failed"}] == [said["kind"]]
    return said


def assert_failed(done: subprocess.CompletedProcess[str], code: int, kind: str) -> dict[str, Any]:
    """Assert how a run failed; return its last line."""
    said = last_line(done)
    assert (done.returncode, said["kind"], said["error"]) == (code, "failed", kind), (done.stdout, done.stderr)
    assert said.keys() == FAILED
    assert said["message"]
    assert said["hint"]
    assert "Traceback" not in done.stderr
    assert said["message"] in done.stderr
    return said


@pytest.fixture
def service() -> Iterator[Simulator]:
    """Start a simulator with a small export; faults that were never hit fail the test."""
    with Simulator() as sim:
        sim.offer_export()
        yield sim


# --- runs that end well ---


def test_a_first_and_an_unchanged_run_say_the_contract(service: Simulator, tmp_path: Path) -> None:
    """Exit 0 and the exact last line, for a run that publishes and for one with nothing to do."""
    files = service.containers[EXPORT]
    total = sum(len(item.data) for item in files.values())
    said = last_line(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service))
    assert said.keys() == FINISHED
    assert isinstance(said.pop("seconds"), float)
    about = {key: said.pop(key) for key in RUN_FIELDS}
    assert (about["source"], about["dest"]) == (IMODEL, str(tmp_path))
    assert said == {
        "kind": "finished", "exit": 0, "owner": IMODEL,
        "imodel": IMODEL, "export": EXPORT, "version": EXPORT, "newest": EXPORT,
        "behind": False,
        "listed": len(files), "fetched": len(files), "reused": 0, "reused_bytes": 0, "kept": 0, "excluded": 0,
        "failed": 0, "deleted": 0, "retired": 0, "gzip_files": 0,
        "referenced": len(files) - 1, "missing": 0, "orphans": 1, "unfollowed": 0,
        "verified": len(files), "looked": len(files), "bytes": total, "renewals": 0, "retries": 0, "published": True,
    }  # fmt: skip
    assert list(read_tree(tmp_path / "versions" / EXPORT)) != []
    again = last_line(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service))
    assert again.keys() == FINISHED
    assert (again["exit"], again["fetched"], again["kept"], again["published"]) == (0, 0, len(files), False)


def test_behind_is_said(service: Simulator, tmp_path: Path) -> None:
    """If the newest export is not finished, the older one is mirrored and `behind` is true."""
    service.offer_export(export_id=OTHER, status="InProgress")
    said = last_line(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service))
    assert (said["export"], said["newest"], said["behind"]) == (EXPORT, OTHER, True)


def test_people_read_stderr(service: Simulator, tmp_path: Path) -> None:
    """Without --json stdout is empty and stderr ends with a summary; a pipe gets no bar and no control character."""
    done = tilesync("mirror", IMODEL, tmp_path, sim=service)
    assert (done.returncode, done.stdout) == (0, "")
    assert "published" in done.stderr
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr


def test_quiet_says_nothing_when_all_is_well(service: Simulator, tmp_path: Path) -> None:
    """-q: a successful run prints nothing."""
    done = tilesync("mirror", IMODEL, tmp_path, "-q", sim=service)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verbose_names_every_file(service: Simulator, tmp_path: Path) -> None:
    """-v: each stored file is printed."""
    done = tilesync("mirror", IMODEL, tmp_path, "-v", sim=service)
    assert all(name in done.stderr for name in service.containers[EXPORT])


def test_source_and_destination_come_from_the_environment(service: Simulator, tmp_path: Path) -> None:
    """TILESYNC_SOURCE, TILESYNC_DEST and TILESYNC_JSON replace the arguments; options on the command line win."""
    done = tilesync(
        "mirror", sim=service, TILESYNC_SOURCE=IMODEL, TILESYNC_DEST=str(tmp_path / "d"), TILESYNC_JSON="1",
        TILESYNC_EXPORT_TYPE="3dtiles", TILESYNC_WAIT="0s",
    )  # fmt: skip
    assert last_line(done)["published"] is True
    assert (tmp_path / "d/tileset.json").is_file()
    done = tilesync("mirror", IMODEL, tmp_path / "e", "--export-type", "3DTiles", sim=service, TILESYNC_EXPORT_TYPE="X")
    assert done.returncode == 0


def test_itp_api_url_is_read_too(service: Simulator, tmp_path: Path) -> None:
    """ITP_API_URL names the service if TILESYNC_API_URL is not set."""
    done = tilesync("mirror", IMODEL, tmp_path, ITP_API_URL=service.url, TILESYNC_TOKEN="demo")
    assert done.returncode == 0, done.stderr


def test_a_dry_run_writes_nothing(service: Simulator, tmp_path: Path) -> None:
    """-n: prints the plan with reasons, ends with 0, does not create DEST and requests no blob."""
    done = tilesync("mirror", IMODEL, tmp_path / "d", "-n", sim=service)
    assert done.returncode == 0
    assert all(name in done.stdout for name in service.containers[EXPORT])
    assert "not stored yet" in done.stdout
    assert not (tmp_path / "d").exists()
    assert service.blob_requests() == []
    said = last_line(tilesync("mirror", IMODEL, tmp_path / "d", "-n", "--json", sim=service))
    assert said.keys() == FINISHED | {"dry_run"}
    assert (said["exit"], said["published"], said["bytes"]) == (0, False, 0)


def test_exports_lists_what_the_service_has(service: Simulator, tmp_path: Path) -> None:
    """`exports` lists the newest first: a table for people, a JSON line each with the same facts for programs."""
    service.offer_export(export_id=OTHER, status="Invalid", error={"code": "X", "message": "no geometry"})
    done = tilesync("exports", IMODEL, sim=service)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ID")
    assert [line.split()[0] for line in lines[1:]] == [OTHER, EXPORT]
    done = tilesync("exports", "--json", sim=service)
    rows = [json.loads(line) for line in done.stdout.splitlines() if '"export"' in line and '"id"' in line]
    assert [(row["id"], row["status"], row["type"]) for row in rows] == [
        (OTHER, "Invalid", "3DTiles"),
        (EXPORT, "Complete", "3DTiles"),
    ]
    assert last_line(done)["kind"] == "finished"


def test_link_prints_the_viewer_url(service: Simulator) -> None:
    """`link` prints the signed URL of the root and nothing else on stdout."""
    done = tilesync("link", IMODEL, sim=service)
    assert done.returncode == 0
    assert re.fullmatch(rf"{re.escape(service.url)}/{EXPORT}/tileset\.json\?\S+sig=\S+\n", done.stdout)
    assert "sig=" not in done.stderr


def test_a_link_on_the_command_line_works_with_a_hint(service: Simulator, tmp_path: Path) -> None:
    """A link as argument is visible to other users: one warning, and none for `-` and TILESYNC_SOURCE."""
    link = service.create_link(EXPORT)
    done = tilesync("mirror", link, tmp_path / "a", sim=service)
    assert done.returncode == 0
    assert "other users" in done.stderr
    for run in (
        tilesync("mirror", "-", tmp_path / "b", sim=service, stdin=link + "\n"),
        tilesync("mirror", sim=service, TILESYNC_SOURCE=link, TILESYNC_DEST=str(tmp_path / "c")),
    ):
        assert run.returncode == 0, run.stderr
        assert "other users" not in run.stderr
    assert read_tree(tmp_path / "b/versions") == read_tree(tmp_path / "c/versions") != {}


def test_verify_after_mirror(service: Simulator, tmp_path: Path) -> None:
    """`verify` ends with 0 if all files are intact, and with 10 and every finding if not; `mirror` repairs."""
    tilesync("mirror", IMODEL, tmp_path, sim=service)
    said = last_line(tilesync("verify", tmp_path, "--json"))
    assert said.keys() == FINISHED
    assert said["verified"] == len(service.containers[EXPORT])
    (tmp_path / "versions" / EXPORT / "tiles/001.glb").unlink()
    (tmp_path / "versions" / EXPORT / "tiles/002.glb").write_bytes(b"")
    done = tilesync("verify", tmp_path, "--json")
    assert_failed(done, 10, "VerifyFailed")
    findings = [json.loads(line) for line in done.stdout.splitlines() if '"finding"' in line]
    assert {(row["name"], row["problem"]) for row in findings} == {
        ("tiles/001.glb", "missing"),
        ("tiles/002.glb", "size"),
    }
    assert tilesync("mirror", IMODEL, tmp_path, sim=service).returncode == 0
    assert tilesync("verify", tmp_path).returncode == 0


def test_report_and_log_file(service: Simulator, tmp_path: Path) -> None:
    """--report writes the last line with all failures; --log-file appends every event with its time."""
    fault = service.add_fault(
        is_blob_named("tiles/001.glb", "tiles/002.glb"), error_response(404, "BlobNotFound"), times=2
    )
    where = ("--report", tmp_path / "report.json", "--log-file", tmp_path / "log")
    done = tilesync("mirror", IMODEL, tmp_path / "d", "--json", *where, sim=service)
    assert fault.hits == 2
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["name"] for row in report["failures"]} == {"tiles/001.glb", "tiles/002.glb"}
    assert {key: report[key] for key in last_line(done)} == last_line(done)
    first = (tmp_path / "log").read_text().splitlines()
    assert all({"time", "kind"} <= json.loads(line).keys() for line in first)
    assert tilesync("mirror", IMODEL, tmp_path / "d", *where, sim=service).returncode == 0
    assert (tmp_path / "log").read_text().splitlines()[: len(first)] == first
    assert json.loads((tmp_path / "report.json").read_text())["failures"] == []


# --- exit codes ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["mirror"],
        ["mirror", IMODEL],
        ["mirror", IMODEL, "d", "--no-such-option"],
        ["mirror", IMODEL, "d", "--wait", "soon"],
        ["mirror", IMODEL, "d", "--wait", "99999999999d"],
        ["mirror", IMODEL, "d", "--keep-for", "999999999d"],
        ["mirror", IMODEL, "d", "--keep-versions", "0"],
        ["mirror", IMODEL, "d", "--transfers", "0"],
        ["mirror", IMODEL, "d", "--transfers", "²"],
        ["mirror", IMODEL, "d", "--delete", "--max-delete", "9" * 5000],
        ["mirror", "https://example.com/container", "d"],
        ["mirror", "http://example.com/container?sig=x", "d"],
        ["mirror", IMODEL, "az://account/c"],
        ["mirror", "two words", "d"],
        ["mirror", IMODEL, "d", "--api-url", "http://example.com"],
        ["mirror", IMODEL, "d", "--state-dir", "az://account/container"],
        ["demo", "s3://bucket/prefix"],
        ["mirror", "s3://bucket/a", "s3://bucket/a/versions"],
        ["mirror", "az://account/box/a", "az://account/box"],
        ["mirror", IMODEL, "s3://bucket/a", "--create-container"],
        ["mirror", IMODEL, "s3://bucket/a", "--cache-control", "a\nb"],
        ["mirror", IMODEL, "s3://bucket/a", "--pointer-cache-control", "ä"],
        ["mirror", IMODEL, "s3://bucket/a", "--endpoint-url", "127.0.0.1:9000"],
        ["mirror", IMODEL, "s3://bucket/a", "--endpoint-url", "https://127.0.0.1:9000?x=1"],
        ["verify"],
        ["no-such-command"],
        ["mirror", IMODEL, "d", "--log-file", "/nowhere/at/all"],
        ["mirror", IMODEL, "d", "--report", "-"],
        ["verify", "d", "--log-file=-"],
    ],
)
def test_usage_errors_end_with_2(arguments: list[str], tmp_path: Path) -> None:
    """A usage error: exit 2, a sentence on stderr, with --json the last line too, and nothing is written."""
    for more in ([], ["--json"]):
        done = run_forked([*arguments, *more], environment(TILESYNC_TOKEN="x"), cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert done.stderr
        assert "Traceback" not in done.stderr
    said = last_line(done)
    assert (said["kind"], said["error"]) == ("failed", "UsageError")
    assert {"kind", "exit", "error", "message", "hint"} <= said.keys() <= FAILED
    assert (
        list(tmp_path.iterdir()) == []
        or arguments[-2:] == ["--api-url", "http://example.com"]
        or "sig=x" in arguments[1]
    )


def test_a_usage_error_has_its_json_line_where_the_environment_asks_for_json(tmp_path: Path) -> None:
    """TILESYNC_JSON=1 works as --json, also for usage errors."""
    done = tilesync("mirror", IMODEL, tmp_path, "--no-such-option", TILESYNC_JSON="1")
    assert last_line(done)["exit"] == 2


def test_an_invalid_request_ends_with_2(service: Simulator, tmp_path: Path) -> None:
    """422 from the service: exit 2 with its details."""
    body = json.dumps(
        {
            "error": {
                "code": "X",
                "message": "Bad.",
                "details": [{"code": "I", "message": "no guid", "target": "iModelId"}],
            }
        }
    )
    service.add_fault(is_api, error_response(422, body=body.encode()))
    said = assert_failed(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service), 2, "InvalidRequest")
    assert "no guid" in said["message"]


def test_failed_files_end_with_3(service: Simulator, tmp_path: Path) -> None:
    """A blob with permanently wrong bytes: exit 3, the file is named, nothing is published, the counts add up."""
    service.add_fault(is_blob_named("tiles/001.glb"), flip_last_bit, times=None)
    done = tilesync("mirror", IMODEL, tmp_path, "--json", sim=service)
    said = assert_failed(done, 3, "Incomplete")
    assert (said["failed"], said["published"]) == (1, False)
    assert said["listed"] == said["fetched"] + said["reused"] + said["kept"] + said["excluded"] + said["failed"]
    assert any('"file-failed"' in line and "tiles/001.glb" in line for line in done.stdout.splitlines())
    assert not (tmp_path / "tileset.json").exists()


def test_no_export_ends_with_4(service: Simulator, tmp_path: Path) -> None:
    """No export, or none finished within --wait: exit 4 with the reason, after a bounded wait."""
    service.exports.clear()
    assert_failed(tilesync("mirror", IMODEL, tmp_path, "--json", "--wait", "0s", sim=service), 4, "NoExport")
    service.offer_export(status="InProgress")
    begun = time.monotonic()
    done = tilesync("mirror", IMODEL, tmp_path, "--json", "--wait", "1s", "--poll", "0.3s", sim=service)
    assert_failed(done, 4, "NoExport")
    assert 1 <= time.monotonic() - begun < 10
    assert '"waiting"' in done.stdout


def test_a_refused_identity_ends_with_5(service: Simulator, tmp_path: Path) -> None:
    """401 from the API, no identity, and 403 from the storage each end with 5."""
    assert_failed(
        tilesync("mirror", IMODEL, tmp_path, "--json", sim=service, TILESYNC_TOKEN="wrong"), 5, "NotAuthorised"
    )
    assert_failed(tilesync("mirror", IMODEL, tmp_path, "--json", TILESYNC_API_URL=service.url), 5, "NotAuthorised")
    service.add_fault(is_storage, error_response(403, "AuthorizationFailure"), times=None)
    assert_failed(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service), 5, "NotAuthorised")


@pytest.mark.parametrize("when", [is_api, is_listing, is_blob])
def test_a_service_that_keeps_failing_ends_with_6(service: Simulator, tmp_path: Path, when: Any) -> None:
    """5xx for longer than --retry-for, from the API, the listing or the blobs: exit 6, soon after that time."""
    service.add_fault(when, error_response(503, "ServerBusy"), times=None)
    begun = time.monotonic()
    done = tilesync("mirror", IMODEL, tmp_path, "--json", "--retry-for", "1s", sim=service)
    assert_failed(done, 6, "Unavailable")
    assert time.monotonic() - begun < 10


def test_an_export_that_is_gone_ends_with_7(service: Simulator, tmp_path: Path) -> None:
    """A deleted container: exit 7."""
    del service.containers[EXPORT]
    assert_failed(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service), 7, "ExportReplaced")
    assert_failed(
        tilesync("mirror", "-", tmp_path, "--json", sim=service, stdin=service.create_link(EXPORT)), 7, "ExportReplaced"
    )


def test_a_destination_that_cannot_serve_ends_with_8(service: Simulator, tmp_path: Path) -> None:
    """A foreign tileset.json, a file instead of a folder, or nothing to verify: exit 8."""
    (tmp_path / "tileset.json").write_text("{}")
    assert_failed(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service), 8, "DestinationError")
    assert_failed(tilesync("mirror", IMODEL, tmp_path / "tileset.json", "--json", sim=service), 8, "DestinationError")
    assert_failed(tilesync("mirror", IMODEL, "/proc/nowhere", "--json", sim=service), 8, "DestinationError")
    assert_failed(tilesync("verify", tmp_path / "nothing", "--json"), 8, "DestinationError")


def test_a_destination_in_use_ends_with_9(service: Simulator, tmp_path: Path) -> None:
    """While a run holds DEST, a second one ends at once with 9; the first one publishes."""
    gate, inside = threading.Event(), threading.Event()
    service.add_fault(is_blob_named("tileset.json"), call_before(inside.set, lambda: gate.wait(30)))
    first = start_program("mirror", IMODEL, tmp_path, sim=service)
    try:
        assert inside.wait(20)
        begun = time.monotonic()
        assert_failed(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service), 9, "DestinationBusy")
        assert time.monotonic() - begun < 5
    finally:
        gate.set()
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert read_latest(tmp_path)["version"] == EXPORT


def test_a_shrunken_export_ends_with_11(service: Simulator, tmp_path: Path) -> None:
    """An export with less than half of the published files is not published: exit 11, the old version stays."""
    tilesync("mirror", IMODEL, tmp_path, sim=service)
    service.offer_export({"tileset.json": tileset()}, export_id=OTHER)
    done = tilesync("mirror", IMODEL, tmp_path, "--json", sim=service)
    assert (done.returncode, last_line(done)["kind"]) == (11, "failed")
    assert read_latest(tmp_path)["version"] == EXPORT


# --- signals ---


def start_program(*arguments: object, sim: Simulator, **more: str) -> subprocess.Popen[str]:
    """Start a run that is blocked in the middle."""
    return subprocess.Popen(
        [sys.executable, "-m", "tilesync", *map(str, arguments)],
        env=environment(sim, **more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_signal_stops_cleanly_and_the_next_run_resumes(
    service: Simulator, tmp_path: Path, number: int, code: int, kind: str
) -> None:
    """A signal ends a run with 130 or 143 and a hint to resume; stored files are kept, and the next run continues."""
    gate, inside = threading.Event(), threading.Event()
    service.add_fault(is_blob, call_before(inside.set, lambda: gate.wait(30)), skip=9)
    running = start_program("mirror", IMODEL, tmp_path, "--json", "--transfers", "1", sim=service)
    assert inside.wait(20)
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    gate.set()
    said = assert_failed(subprocess.CompletedProcess([], running.returncode, out, err), code, kind)
    assert "again" in said["hint"]
    assert not (tmp_path / "tileset.json").exists()
    service.clear_requests()
    again = last_line(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service))
    assert (again["kept"], again["fetched"], again["published"]) == (9, len(service.containers[EXPORT]) - 9, True)
    assert len(service.blob_requests()) == again["fetched"]


def test_a_signal_while_waiting_for_an_export(service: Simulator, tmp_path: Path) -> None:
    """SIGINT during --wait ends at once with 130."""
    service.exports[0]["status"] = "InProgress"
    running = start_program("mirror", IMODEL, tmp_path, "--json", sim=service)
    assert running.stdout is not None
    while '"waiting"' not in (line := running.stdout.readline()):
        assert line
    begun = time.monotonic()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=20)
    assert running.returncode == 130
    assert time.monotonic() - begun < 5


# --- terminals ---


def run_in_terminal(
    *arguments: object, sim: Simulator, size: tuple[int, int] = (24, 100), **more: str
) -> tuple[int, str]:
    """Run with stderr on a pseudo-terminal; return the exit code and the output."""
    reason = "this system has no pseudo-terminals"
    fcntl, pty, termios = (pytest.importorskip(name, reason=reason) for name in ("fcntl", "pty", "termios"))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    command = [sys.executable, "-m", "tilesync", *map(str, arguments)]
    running = subprocess.Popen(
        command, env=environment(sim, **more), stdin=slave, stdout=subprocess.DEVNULL, stderr=slave
    )
    os.close(slave)
    shown = b""
    try:
        while select.select([master], [], [], 30)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
    finally:
        os.close(master)
    return running.wait(20), shown.decode(errors="replace")


@pytest.mark.parametrize("size", [(24, 100), (0, 0)])
def test_a_bar_is_drawn_on_a_terminal(service: Simulator, tmp_path: Path, size: tuple[int, int]) -> None:
    """On a terminal a bar is drawn, also if it does not report its size."""
    service.delay_s = 0.15
    code, shown = run_in_terminal("mirror", IMODEL, tmp_path, "--transfers", "2", sim=service, size=size, TERM="xterm")
    assert code == 0
    assert "%" in shown
    assert "\r" in shown.replace("\r\n", "\n")


def test_no_bar_where_none_is_wanted(service: Simulator, tmp_path: Path) -> None:
    """With --no-progress, with -q, and on a dumb terminal no bar is drawn."""
    service.delay_s = 0.1
    for number, (flag, term) in enumerate((("--no-progress", "xterm"), ("-q", "xterm"), ("-v", "dumb"))):
        code, shown = run_in_terminal("mirror", IMODEL, tmp_path / str(number), flag, sim=service, TERM=term)
        assert code == 0
        assert "\r" not in shown.replace("\r\n", "\n")


# --- secrets ---


def test_no_secret_in_any_output_or_file(service: Simulator, tmp_path: Path) -> None:
    """With link renewals, retries and failures, no output or file contains a token or a signature."""
    service.token = "T0KEN-very-secret"
    service.add_fault(is_blob_named("tiles/001.glb"), error_response(404, "BlobNotFound"))
    service.add_fault(is_blob, error_response(500, "InternalError"), times=3, skip=4)
    service.run_before_request(11, is_blob, service.revoke_links)
    voice = ("--json", "-v", "--log-file", tmp_path / "log", "--report", tmp_path / "report", "--transfers", "2")
    runs = [tilesync("mirror", IMODEL, tmp_path / "d", *voice, sim=service) for _ in range(2)]
    link = service.create_link(EXPORT)
    runs.append(tilesync("mirror", link, tmp_path / "e", *voice, sim=service))
    service.revoke_links()
    runs.append(tilesync("mirror", link, tmp_path / "f", *voice, sim=service))
    runs.append(tilesync("verify", tmp_path / "d", "--json", "-v"))
    assert [run.returncode for run in runs] == [3, 0, 0, 5, 0]
    said = "".join(run.stdout + run.stderr for run in runs).encode()
    for data in (said, *read_tree(tmp_path).values()):
        assert b"T0KEN" not in data
        assert b"sig=" not in data
        assert b"sig%3D" not in data


def test_a_bad_link_is_not_repeated(tmp_path: Path) -> None:
    """An invalid link is not printed: it may contain a signature."""
    done = tilesync("mirror", "-", tmp_path, "--json", stdin="ftp://account/container?sig=HUSH\n")
    assert done.returncode == 2
    assert "HUSH" not in done.stdout + done.stderr


# --- the rest ---


def test_help_and_version() -> None:
    """--help names the commands and --version the version; both end fast with 0."""
    from tilesync import __version__

    for flag in ("--help", "-h"):
        done = tilesync(flag)
        assert done.returncode == 0
        assert all(command in done.stdout for command in ("mirror", "verify", "exports", "link", "demo"))
    assert __version__ in tilesync("--version").stdout
    assert tilesync("mirror", "--help").returncode == 0


def test_a_token_file_and_a_token_command(service: Simulator, tmp_path: Path) -> None:
    """--token-file and --token-command replace TILESYNC_TOKEN."""
    (tmp_path / "token").write_text("demo\n")
    for number, option in enumerate(
        (("--token-file", tmp_path / "token"), ("--token-command", f"cat {tmp_path / 'token'}"))
    ):
        done = tilesync("mirror", IMODEL, tmp_path / str(number), *option, TILESYNC_API_URL=service.url)
        assert done.returncode == 0, done.stderr


def test_a_reader_that_went_away_is_no_bug(service: Simulator, tmp_path: Path) -> None:
    """`tilesync exports | head -0`: no traceback if nobody reads stdout."""
    running = start_program("exports", IMODEL, "--json", sim=service)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    shown = running.stderr.read()
    running.stderr.close()
    running.wait(20)
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("streams", "exit_code"),
    [(">&-", 8), (">&- 2>&-", 8), (">/dev/full", 8), ("2>/dev/full", 0), ("2>&-", 0), ("<&-", 0)],
)
def test_streams_that_are_closed_or_full_end_no_run(
    service: Simulator, tmp_path: Path, streams: str, exit_code: int
) -> None:
    """Without stdout, stderr or stdin, or with a full one, the export is still mirrored; exit 8 says that
    output on stdout was lost.
    """
    command = f'exec "{sys.executable}" -m tilesync mirror {IMODEL} "{tmp_path / "d"}" --json {streams}'
    done = subprocess.run(["sh", "-c", command], env=environment(service), timeout=60, check=False)
    assert done.returncode == exit_code
    assert (tmp_path / "d" / "tileset.json").is_file()


@pytest.mark.parametrize("command", ["link", "exports", "mirror"])
@pytest.mark.parametrize(
    "link", ["https://account/c?sig=TOPSECRET", "http:/account/c?sig=TOPSECRET", "c?sig=TOPSECRET"]
)
def test_a_link_where_none_belongs_is_refused_unseen(tmp_path: Path, command: str, link: str) -> None:
    """A link instead of an iModel id or DEST ends with 2, and its signature is in no message."""
    arguments = [command, IMODEL, link] if command == "mirror" else [command, link]
    done = tilesync(*arguments, "--json", TILESYNC_TOKEN="t")
    assert done.returncode == 2
    assert "TOPSECRET" not in done.stdout + done.stderr


# --- completeness ---


def test_missing_files_are_named_and_allowed(service: Simulator, tmp_path: Path) -> None:
    """A missing referenced file: exit 3 with the referring file; with --allow-missing exit 0 and the count."""
    service.offer_export({"tileset.json": tileset("a.glb", "gone.glb"), "a.glb": glb(b"a")}, export_id=OTHER)
    report = tmp_path / "report.json"
    done = tilesync("mirror", IMODEL, tmp_path / "d", "--report", report, sim=service)
    assert done.returncode == 3
    assert "gone.glb is not there; tileset.json refers to it" in done.stderr
    assert "--allow-missing" in done.stderr
    said = json.loads(report.read_text())
    assert (said["missing"], [failure["name"] for failure in said["failures"]]) == (1, ["gone.glb"])
    done = tilesync("mirror", IMODEL, tmp_path / "d", "--allow-missing", sim=service)
    assert done.returncode == 0
    assert "the tilesets ask for 3 files, and 1 is missing" in done.stderr


def test_allowing_what_is_missing_is_no_habit(service: Simulator, tmp_path: Path) -> None:
    """--allow-missing has no environment variable."""
    service.offer_export({"tileset.json": tileset("gone.glb")}, export_id=OTHER)
    assert tilesync("mirror", IMODEL, tmp_path, sim=service, TILESYNC_ALLOW_MISSING="1").returncode == 3


def test_files_are_chosen(service: Simulator, tmp_path: Path) -> None:
    """--include and --exclude can be repeated or come from the environment; an invalid glob is a usage error."""
    service.offer_export(
        {"tileset.json": tileset("a.glb", "b.glb"), "a.glb": glb(b"a"), "b.glb": glb(b"b")}, export_id=OTHER
    )
    done = tilesync("mirror", IMODEL, tmp_path / "a", "--exclude", "a.*", "--exclude", "no such", sim=service)
    assert done.returncode == 0
    assert "listed 3 files" in done.stderr
    assert "fetched 2 files" in done.stderr
    assert "1 left out" in done.stderr
    assert "the tilesets ask for 3 files, 1 is left out and all others are there" in done.stderr
    assert done.stderr.rstrip().endswith("2 files")
    plan = tilesync("mirror", IMODEL, tmp_path / "b", "-n", sim=service, TILESYNC_INCLUDE="tileset.json b.glb")
    assert "a.glb  (excluded by --include or --exclude)" in plan.stdout
    assert "leave out 1 file;" in plan.stderr
    done = tilesync("mirror", IMODEL, tmp_path / "c", "--include", "[z-a]", sim=service)
    assert done.returncode == 2
    assert "[z-a]" in done.stderr


def test_the_inventory_is_chosen(service: Simulator, tmp_path: Path) -> None:
    """--inventory and TILESYNC_INVENTORY take only their words; another word is a usage error."""
    assert tilesync("mirror", IMODEL, tmp_path / "a", "--inventory", "walk", sim=service).returncode == 0
    assert tilesync("mirror", IMODEL, tmp_path / "b", sim=service, TILESYNC_INVENTORY="walk").returncode == 0
    assert not service.listing_requests
    assert tilesync("mirror", IMODEL, tmp_path / "c", "--inventory", "guess", sim=service).returncode == 2


def test_what_is_not_followed_is_listed(service: Simulator, tmp_path: Path) -> None:
    """References that leave the container: one line each with --json or -v, otherwise a count."""
    service.offer_export({"tileset.json": tileset("https://elsewhere.invalid/x.glb?sig=s3cret")}, export_id=OTHER)
    options = ("--json", "--allow-shrink", "--allow-missing")
    done = tilesync("mirror", IMODEL, tmp_path, *options, sim=service)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    (remark,) = [line for line in said if line["kind"] == "remark"]
    assert (remark["problem"], remark["name"]) == ("leads away", "tileset.json")
    assert "elsewhere.invalid" in remark["message"]
    assert said[-1]["unfollowed"] == 1
    assert "s3cret" not in done.stdout + done.stderr


# --- histories ---


def offer_export(service: Simulator, export_id: str, day: int) -> None:
    """Offer an export that differs from the others in one file."""
    files = {name: item.data for name, item in service.containers[EXPORT].items()}
    files["tiles/003.glb"] = glb(export_id.encode())
    service.offer_export(files, export_id=export_id, lastModified=f"2026-03-{day:02d}T08:30:00Z")


def json_lines(done: subprocess.CompletedProcess[str], kind: str) -> list[dict[str, Any]]:
    """Return the JSON lines of one kind."""
    return [said for said in map(json.loads, done.stdout.splitlines()) if said["kind"] == kind]


def test_a_history_is_mirrored_shown_and_gone_back_in(service: Simulator, tmp_path: Path) -> None:
    """--all-exports, versions, rollback, verify --all and retention: messages, exit codes and JSON."""
    offer_export(service, OTHER, 2)
    done = tilesync("mirror", IMODEL, tmp_path, "--all-exports", "--json", sim=service)
    said = last_line(done)
    assert (said["exit"], said["version"], said["published"], said["behind"]) == (0, OTHER, True, False)
    assert said["reused_bytes"] > 0
    assert said["listed"] == said["referenced"] - said["missing"] + said["orphans"]

    shown = tilesync("versions", tmp_path, "--json")
    rows = json_lines(shown, "version")
    assert last_line(shown)["exit"] == 0
    assert [row["version"] for row in rows] == [OTHER, EXPORT]
    assert rows[0].keys() == {
        "kind", "version", "export", "imodel", "changeset", "modified", "finished", "files", "bytes", "shared_bytes",
        "state", "current", "pinned", "content", "owner", "checked",
    }  # fmt: skip
    assert rows[0]["shared_bytes"] == rows[1]["shared_bytes"] == said["reused_bytes"]
    assert [(row["current"], row["pinned"]) for row in rows] == [(True, False), (False, False)]

    back = tilesync("rollback", tmp_path, EXPORT[:8], "--json")
    assert last_line(back)["version"] == EXPORT
    assert read_latest(tmp_path)["version"] == EXPORT
    table = tilesync("versions", tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["VERSION", OTHER, "*"]
    assert table[2].endswith("held, pinned")
    stays = tilesync("mirror", IMODEL, tmp_path, sim=service)
    assert stays.returncode == 0
    assert "pinned" in stays.stderr
    assert "rollback DEST --latest" in stays.stderr
    assert last_line(tilesync("rollback", tmp_path, "--latest", "--json"))["version"] == OTHER

    assert "intact" in tilesync("verify", tmp_path, "--all").stderr
    keep = ("--keep-versions", "1", "--keep-for", "0s")
    plan = tilesync("mirror", IMODEL, tmp_path, *keep, "-n", sim=service)
    assert [line.split()[0] for line in plan.stdout.splitlines()] == ["keep", "retire"]
    assert "retire 1 version" in plan.stderr
    assert last_line(tilesync("mirror", IMODEL, tmp_path, *keep, "--json", sim=service))["retired"] == 1
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [OTHER]


def test_sha256sums_are_piped(service: Simulator, tmp_path: Path) -> None:
    """--sha256sums prints only the list on stdout, so that sha256sum can read it."""
    tilesync("mirror", IMODEL, tmp_path, sim=service)
    done = tilesync("versions", tmp_path, "--sha256sums", EXPORT)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(service.containers[EXPORT])
    assert tilesync("versions", tmp_path, "--sha256sums", "nope").returncode == 2
    assert tilesync("versions", tmp_path, "--sha256sums", EXPORT, "--json").returncode == 2
    assert tilesync("versions", tmp_path / "missing").returncode == 8


def test_exports_say_what_a_folder_holds(service: Simulator, tmp_path: Path) -> None:
    """--held marks the stored exports in the table and the JSON, and warns of the one that is deleted next."""
    offer_export(service, OTHER, 2)
    tilesync("mirror", IMODEL, tmp_path, sim=service)
    done = tilesync("exports", IMODEL, "--held", tmp_path, "--json", sim=service)
    assert [row["held"] for row in json_lines(done, "export")] == ["held", None]
    assert json_lines(done, "warning") == []
    for day in (3, 4, 5):
        offer_export(service, f"cccccccc-0000-4000-8000-00000000000{day}", day)
    done = tilesync("exports", IMODEL, "--held", tmp_path, sim=service)
    assert "HELD" in done.stdout.splitlines()[0]
    assert EXPORT in done.stderr
    assert "the service deletes it when" in done.stderr
    assert tilesync("exports", IMODEL, "--held", tmp_path / "new", sim=service).returncode == 0
    assert not (tmp_path / "new").exists()


def test_these_options_have_variables_too(service: Simulator, tmp_path: Path) -> None:
    """Options that neither delete nor lift a guard have environment variables, in all commands."""
    offer_export(service, OTHER, 2)
    tilesync("mirror", IMODEL, tmp_path, sim=service, TILESYNC_ALL_EXPORTS="1")
    assert read_latest(tmp_path)["version"] == OTHER
    sums = tilesync("versions", tmp_path, TILESYNC_SHA256SUMS=EXPORT)
    assert len(sums.stdout.splitlines()) == len(service.containers[EXPORT])
    tilesync("rollback", tmp_path)
    assert last_line(tilesync("rollback", tmp_path, "--json", TILESYNC_LATEST="1"))["version"] == OTHER
    held = tilesync("exports", IMODEL, "--json", sim=service, TILESYNC_HELD=str(tmp_path))
    assert [row["held"] for row in json_lines(held, "export")] == ["held", "held"]


def test_a_flat_mirror(service: Simulator, tmp_path: Path) -> None:
    """The flat layout: files at the container's paths, deletions by option and with a guard, no change of layout."""
    flat = ("mirror", IMODEL, tmp_path, "--layout", "flat", "--json")
    assert last_line(tilesync(*flat, sim=service))["published"] is True
    offer_export(service, OTHER, 2)
    for name in ("tiles/004.glb", "tiles/005.glb"):
        service.blob("tiles/tileset.json", OTHER).data = service.blob("tiles/tileset.json", OTHER).data.replace(
            name.removeprefix("tiles/").encode(), b"003.glb"
        )
        del service.containers[OTHER][name]
    service.blob("tiles/tileset.json", OTHER).md5 = ""
    stopped = tilesync(*flat, "--delete", "--max-delete", "1", sim=service)
    assert_failed(stopped, 11, "GuardTripped")
    done = tilesync(*flat, "--delete", "--max-delete", "50%", "-v", sim=service)
    assert last_line(done)["deleted"] == 2
    assert {row["name"] for row in json_lines(done, "deleted")} == {"tiles/004.glb", "tiles/005.glb"}
    assert not (tmp_path / "tiles/004.glb").exists()
    assert_failed(tilesync("mirror", IMODEL, tmp_path, "--json", sim=service), 8, "DestinationError")
    assert_failed(tilesync("rollback", tmp_path, "--json"), 2, "UsageError")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--layout", "flat", "--all-exports"),
        ("--layout", "flat", "--no-publish"),
        ("--layout", "flat", "--keep-versions", "3"),
        ("--delete",),
        ("--layout", "flat", "--max-delete", "3"),
        ("--keep-versions", "0"),
        ("--keep-versions", "some"),
        ("--layout", "flat", "--delete", "--max-delete", "101%"),
        ("--layout", "flat", "--delete", "--max-delete", "1.5"),
        ("--layout", "deep"),
    ],
)
def test_options_that_conflict(service: Simulator, tmp_path: Path, wrong: tuple[str, ...]) -> None:
    """Each usage error ends with 2 and a sentence, before any request or write."""
    done = tilesync("mirror", IMODEL, tmp_path / "d", *wrong, "--json", sim=service)
    assert done.returncode == 2
    assert last_line(done)["error"] == "UsageError"
    assert wrong[-1 if wrong[-1].startswith("--") else -2] in done.stderr
    assert service.requests == []
    assert not (tmp_path / "d").exists()


def test_a_link_has_no_history(service: Simulator, tmp_path: Path) -> None:
    """--all-exports with a container link is a usage error."""
    done = tilesync("mirror", "-", tmp_path, "--all-exports", "--json", stdin=service.create_link(EXPORT), sim=service)
    assert_failed(done, 2, "UsageError")


def test_options_that_delete_have_no_variable(service: Simulator, tmp_path: Path) -> None:
    """No environment variable deletes, retires or lifts a limit; the layout and other options have variables."""
    more = {"TILESYNC_DELETE": "1", "TILESYNC_KEEP_VERSIONS": "0", "TILESYNC_MAX_DELETE": "x", "TILESYNC_KEEP_FOR": "x"}
    done = tilesync("mirror", IMODEL, tmp_path, sim=service, TILESYNC_LAYOUT="flat", **more)
    assert done.returncode == 0
    assert (tmp_path / "tiles").is_dir()


# --- texts that a script got wrong ---


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize(
    "words",
    [
        "mirror {} d",
        "link {}",
        "exports {}",
        "demo {}",
        "doctor --source {}",
        "verify {}",
        "versions {}",
        "mirror x {}",
    ],
)
def test_an_empty_source_or_folder_is_a_usage_error(tmp_path: Path, words: str, empty: str) -> None:
    """An empty SOURCE or DEST, as from an unset variable in a script, is a usage error; nothing is written."""
    before, there = read_tree(tmp_path), [*(word.replace("{}", empty) for word in words.split(" ")), "--json"]
    done = run_forked(there, environment(), cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "empty" in assert_failed(done, 2, "UsageError")["message"]
    assert read_tree(tmp_path) == before
    assert not list(tmp_path.iterdir())


def test_an_empty_variable_is_none(service: Simulator, tmp_path: Path) -> None:
    """TILESYNC_SOURCE may be empty if no SOURCE is needed."""
    assert tilesync("exports", "--json", sim=service, TILESYNC_SOURCE="").returncode == 0
    assert (
        "missing" in assert_failed(tilesync("mirror", "--json", TILESYNC_SOURCE=""), 2, "UsageError")["message"].lower()
    )


@pytest.mark.parametrize(
    ("words", "more", "instead"),
    [
        (["mirror", IMODEL], {"TILESYNC_DEST": "~/tiles"}, "$HOME/tiles, here {home}/tiles"),
        (["mirror", IMODEL, "~"], {}, "$HOME/, here {home}"),
        (["mirror", IMODEL, "d"], {"TILESYNC_STATE_DIR": "~/state"}, "$HOME/state"),
        (["mirror", IMODEL, "~nobody-of-that-name/tiles"], {}, "the whole path ("),
        (["demo", "~/demo"], {}, "$HOME/demo"),
        (["versions", "~/tiles"], {}, "$HOME/tiles"),
    ],
)
def test_an_unexpanded_tilde_is_a_usage_error(
    service: Simulator, tmp_path: Path, words: list[str], more: dict[str, str], instead: str
) -> None:
    """An unexpanded `~` (environment files, quotes) is refused with a hint what to write; no folder `~` is made."""
    home = tmp_path / "home"
    done = run_forked([*words, "--json"], environment(service, **more, HOME=str(home)), cwd=tmp_path)
    assert instead.format(home=home) in assert_failed(done, 2, "UsageError")["message"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dest", ["./~/tiles", "~/tiles", "~old/tiles"])
def test_a_folder_whose_name_begins_with_a_tilde_can_be_meant(service: Simulator, tmp_path: Path, dest: str) -> None:
    """An existing folder named `~` is accepted, and so is `./~`."""
    if not dest.startswith("."):
        (tmp_path / dest).parent.mkdir()
    done = run_forked(["mirror", IMODEL, dest, "--json"], environment(service), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / dest / "tileset.json").is_file()


def test_a_source_below_home_is_found(service: Simulator, tmp_path: Path) -> None:
    """The `~` of a SOURCE is the home folder of the user: a SOURCE is only read."""
    assert tilesync("mirror", IMODEL, tmp_path / "one", sim=service).returncode == 0
    done = tilesync("mirror", tmp_path / "copy", TILESYNC_SOURCE="~/one", HOME=str(tmp_path))
    assert done.returncode == 2  # one word is SOURCE, whatever the variable says
    assert tilesync("mirror", "~/one", tmp_path / "copy", HOME=str(tmp_path)).returncode == 0


# --- plans ---


def test_the_last_line_tells_a_plan_from_a_run(service: Simulator, tmp_path: Path) -> None:
    """`dry_run` is true in the last line, the report and the log of a plan, also of a failed one, and in no
    other line.
    """
    report, log = tmp_path / "r", tmp_path / "log"
    more = ("--json", "--report", report, "--log-file", log)
    for option in ("-n", "--dry-run"):
        said = last_line(tilesync("mirror", IMODEL, tmp_path / "d", option, *more, sim=service))
        assert said.keys() == FINISHED | {"dry_run"}
        assert said["dry_run"] is True
        assert json.loads(report.read_text())["dry_run"] is True
        assert json.loads(log.read_text().splitlines()[-1])["dry_run"] is True
    assert (
        last_line(tilesync("mirror", OTHER, tmp_path / "d", "-n", "--wait", "0s", *more, sim=service))["dry_run"]
        is True
    )
    wrong = last_line(
        tilesync("mirror", IMODEL, tmp_path / "d", "--bogus", "--json", sim=service, TILESYNC_DRY_RUN="1")
    )
    assert (wrong["exit"], wrong["dry_run"]) == (2, True)
    assert last_line(tilesync("mirror", IMODEL, tmp_path / "d", *more, sim=service)).keys() == FINISHED
    assert "dry_run" not in json.loads(report.read_text())
