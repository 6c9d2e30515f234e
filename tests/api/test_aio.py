"""Test the Python API: it returns what the command line prints, and changes nothing in the host program."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import tilesync as ts
from tests.support.builders import IMODEL, export, read_tree
from tests.support.faults import error_response, is_api, is_blob, is_blob_named, wait_for
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, run_program
from tilesync.api.call import Call
from tilesync.events import Event, VersionPublished, Warned

CHANGING = {"seconds", "started", "finished", "host"}
"""Fields of the last line that differ from run to run."""


def service(sim: Simulator) -> dict[str, Any]:
    """Return the arguments that connect to a simulator."""
    return {"auth": ts.Token(sim.token), "api_url": sim.url}


def stable(line: dict[str, Any]) -> dict[str, Any]:
    """Return a last line without the fields that differ from run to run."""
    return {name: value for name, value in line.items() if name not in CHANGING}


def test_a_mirror_returns_the_last_line_of_the_command(sim: Simulator, tmp_path: Path) -> None:
    """Fields, counts and `to_dict()` are what the command line prints for the same run."""
    files = sim.offer_export()
    events: list[Event] = []
    result = ts.mirror(IMODEL, tmp_path / "d", on_event=events.append, **service(sim))
    assert (result.published, result.version, result.export, result.behind) == (True, EXPORT, EXPORT, False)
    assert (result.stats.fetched, result.exit_code, result.ok) == (len(files), 0, True)
    assert any(isinstance(event, VersionPublished) for event in events)
    assert read_tree(tmp_path / "d" / "versions" / EXPORT) == files
    line = sim.mirror_program(tmp_path / "e").last_line
    assert list(result.to_dict()) == list(line)
    assert stable({**result.to_dict(), "dest": None}) == stable({**line, "dest": None})
    json.dumps(result.to_dict())


def test_a_failed_mirror_has_its_partial_result(sim: Simulator, tmp_path: Path) -> None:
    """An error has its exit code, its hint, the result so far, and the last line of the command."""
    sim.offer_export()
    sim.add_fault(is_blob_named("tiles/003.glb"), error_response(404, "BlobNotFound"), times=None)
    with pytest.raises(ts.TilesyncError) as caught:
        ts.mirror(IMODEL, tmp_path / "d", **service(sim))
    line = sim.mirror_program(tmp_path / "e").last_line
    error = caught.value
    assert (error.exit_code, error.result.published, error.result.stats.failed) == (3, False, 1)
    assert error.hint
    fields = error.to_dict()
    assert list(fields) == list(line)
    for each in (fields, line):
        each["dest"] = None
    assert stable(fields) == stable(line)
    assert [type(each).__name__ for each in error.result.failures] == ["FileFailed"]


def test_a_plan_has_an_action_for_each_file(sim: Simulator, tmp_path: Path) -> None:
    """A plan has a reason for each action, and writes nothing."""
    files = sim.offer_export()
    plan = ts.plan(IMODEL, tmp_path / "d", **service(sim))
    assert {action.name for action in plan.actions} == files.keys()
    assert all(action.reason for action in plan.actions)
    assert (plan.stats.fetched, plan.published, plan.to_dict()["dry_run"]) == (len(files), False, True)
    assert not (tmp_path / "d").exists()


def test_an_audit_returns_findings(sim: Simulator, tmp_path: Path) -> None:
    """A damaged file is a finding of the result, not an exception; the line is that of the command."""
    sim.offer_export()
    ts.mirror(IMODEL, tmp_path / "d", **service(sim))
    assert ts.verify(tmp_path / "d").ok
    (tmp_path / "d" / "versions" / EXPORT / "tiles/001.glb").write_bytes(b"other")
    audit = ts.verify(tmp_path / "d")
    assert (audit.ok, audit.exit_code, [each.name for each in audit.findings]) == (False, 10, ["tiles/001.glb"])
    line = run_program("verify", str(tmp_path / "d")).last_line
    assert list(audit.to_dict()) == list(line)
    assert stable(audit.to_dict()) == stable(line)
    with pytest.raises(ts.TilesyncError) as caught:
        ts.verify(tmp_path / "none")
    assert caught.value.exit_code == 8


def test_versions_and_rollback(sim: Simulator, tmp_path: Path) -> None:
    """Versions are listed with their states; a rollback pins the version before, and `latest` unpins it."""
    sim.offer_export()
    ts.mirror(IMODEL, tmp_path / "d", **service(sim))
    sim.offer_export(export(9), export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
    ts.mirror(IMODEL, tmp_path / "d", **service(sim))
    assert [(each.version, each.current) for each in ts.versions(tmp_path / "d")] == [
        (OTHER_EXPORT, True),
        (EXPORT, False),
    ]
    back = ts.rollback(tmp_path / "d")
    assert (back.version, back.ok) == (EXPORT, True)
    assert [(each.version, each.pinned) for each in ts.versions(tmp_path / "d")] == [
        (OTHER_EXPORT, False),
        (EXPORT, True),
    ]
    assert ts.rollback(tmp_path / "d", latest=True).version == OTHER_EXPORT
    result = ts.versions(tmp_path / "d")
    rows = run_lines("versions", str(tmp_path / "d"), "--json")
    assert [each.to_dict() for each in result] == rows[:-1]
    assert result.owner == IMODEL
    assert len(list(ts.iter_sha256sums(tmp_path / "d", OTHER_EXPORT[:4]))) == len(export(9))


def run_lines(*words: str) -> list[dict[str, Any]]:
    """Return the JSON lines that a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tilesync", *words], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_exports_and_their_stored_state(sim: Simulator, tmp_path: Path) -> None:
    """Exports are listed newest first, each with how a destination stores it."""
    sim.offer_export()
    ts.mirror(IMODEL, tmp_path / "d", **service(sim))
    sim.offer_export(export(9), export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
    result = ts.exports(IMODEL, held_in=tmp_path / "d", **service(sim))
    assert {each.id: each.held for each in result} == {OTHER_EXPORT: None, EXPORT: "held"}
    assert result.exports[0].to_dict()["kind"] == "export"
    assert [each.held for each in ts.exports(**service(sim))] == [None, None]


def test_a_viewer_link_does_not_show_its_signature(sim: Simulator) -> None:
    """The URL points to the root tileset; `repr` does not show it."""
    sim.offer_export()
    link = ts.viewer_link(IMODEL, **service(sim))
    assert "/tileset.json?" in link.url
    assert "sig=" not in repr(link)


def test_doctor_returns_every_check(sim: Simulator, tmp_path: Path) -> None:
    """Checks of the service, and of a destination; a failed check makes the result fail, without an exception."""
    sim.offer_export()
    good = ts.doctor(source=IMODEL, **service(sim))
    assert good.ok
    assert {check.result for check in good.checks} <= {"ok", "warn", "skipped"}
    bad = ts.doctor(source=IMODEL, auth=ts.Token("wrong"), api_url=sim.url)
    assert (bad.ok, bad.exit_code) == (False, 5)
    assert "fail" in {check.result for check in bad.checks}
    ts.mirror(IMODEL, tmp_path / "d", **service(sim))
    assert ts.doctor(tmp_path / "d").ok


def test_identity_and_service_of_the_environment(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without arguments the API reads the variables of the command line."""
    sim.offer_export()
    monkeypatch.setenv("TILESYNC_TOKEN", sim.token)
    monkeypatch.setenv("TILESYNC_API_URL", sim.url)
    assert ts.mirror(IMODEL, tmp_path / "d").published
    (tmp_path / "token").write_text(sim.token)
    monkeypatch.delenv("TILESYNC_TOKEN")
    assert ts.mirror(IMODEL, tmp_path / "e", auth=ts.TokenFile(tmp_path / "token")).published
    with pytest.raises(ts.TilesyncError) as caught:
        ts.mirror(IMODEL, tmp_path / "f")
    assert caught.value.exit_code == 5


def test_a_container_link_as_a_secret(sim: Simulator, tmp_path: Path) -> None:
    """A link is a SOURCE, as text or as a Secret; no text of the result contains its signature."""
    sim.offer_export()
    links: list[str | ts.Secret] = [sim.create_link(EXPORT), ts.Secret(sim.create_link(EXPORT))]
    for number, link in enumerate(links):
        result = ts.mirror(link, tmp_path / str(number))
        assert result.published
        assert "sig=" not in repr(result) + json.dumps(result.to_dict())


@pytest.mark.scale
def test_ten_mirrors_at_once_in_one_process(sim: Simulator, tmp_path: Path) -> None:
    """Parallel runs have their own counts and results, in a running loop and in threads."""
    files = sim.offer_export()

    async def work() -> list[ts.MirrorResult]:
        async with asyncio.timeout(120):
            runs = (ts.aio.mirror(IMODEL, tmp_path / f"a{number}", **service(sim)) for number in range(10))
            return await asyncio.gather(*runs)

    results = asyncio.run(work())
    with ThreadPoolExecutor(10) as pool:
        runs = [pool.submit(ts.mirror, IMODEL, tmp_path / f"t{number}", **service(sim)) for number in range(10)]
    results += [run.result() for run in runs]
    assert [(each.published, each.stats.fetched) for each in results] == [(True, len(files))] * 20


def test_a_cancelled_mirror_is_resumed_later(sim: Simulator, tmp_path: Path) -> None:
    """Cancelling the task ends the run and releases the destination; stored files are kept."""
    files = sim.offer_export()
    release, began = threading.Event(), threading.Event()
    sim.add_fault(is_blob, wait_for(release), times=None, optional=True)

    async def work() -> None:
        running = asyncio.create_task(ts.aio.mirror(IMODEL, tmp_path / "d", **service(sim)))
        while not sim.blob_requests():
            await asyncio.sleep(0.01)
        began.set()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(work())
    release.set()
    sim.faults.clear()
    assert began.is_set()
    assert ts.mirror(IMODEL, tmp_path / "d", **service(sim)).published
    assert read_tree(tmp_path / "d" / "versions" / EXPORT) == files


def test_a_blocking_call_below_a_running_loop(sim: Simulator, tmp_path: Path) -> None:
    """The blocking functions work inside a running loop, as in a notebook."""
    sim.offer_export()

    async def cell() -> ts.MirrorResult:
        return ts.mirror(IMODEL, tmp_path / "d", **service(sim))

    assert asyncio.run(cell()).published


INTERRUPTED = """
import asyncio, os, signal, sys, threading
import tilesync as ts

async def cell():
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    ts.mirror(sys.argv[1], sys.argv[2], auth=ts.Token(sys.argv[4]), api_url=sys.argv[3])

loop = asyncio.new_event_loop()
try:
    loop.run_until_complete(cell())
except KeyboardInterrupt:
    print("interrupted", [t.name for t in threading.enumerate() if t.name.startswith("tilesync")])
"""


def test_an_interrupt_below_a_running_loop_ends_the_run(sim: Simulator, tmp_path: Path) -> None:
    """Ctrl-C in a notebook cancels the run, and the destination is free again."""
    files = sim.offer_export()
    release = threading.Event()
    sim.add_fault(is_blob, wait_for(release, at_most=60), times=None)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, IMODEL, str(tmp_path / "d"), sim.url, sim.token],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    release.set()
    sim.faults.clear()
    assert (done.returncode, done.stdout) == (0, "interrupted []\n"), done.stderr
    assert ts.mirror(IMODEL, tmp_path / "d", **service(sim)).stats.verified == len(files)


def test_listeners_get_one_event_at_a_time() -> None:
    """Events come from many threads; a listener never runs twice at once."""
    inside, overlaps = [0], list[int]()

    def listener(event: Event) -> None:
        inside[0] += 1
        time.sleep(0.001)
        overlaps.append(inside[0])
        inside[0] -= 1

    call = Call(None, listener, None, None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: call.observe(Warned(str(number))), range(64)))
    assert overlaps == [1] * 64
    assert len(call.monitor.warnings) == 64


def test_on_publish_gets_the_report(sim: Simulator, tmp_path: Path) -> None:
    """`on_publish` is called once, with the pointer; if it fails, the next run calls it again."""
    sim.offer_export()
    reports: list[dict[str, Any]] = []

    def fail(report: dict[str, Any]) -> None:
        raise ts.TilesyncError("no room for the news")

    with pytest.raises(ts.TilesyncError, match="no room"):
        ts.mirror(IMODEL, tmp_path / "d", on_publish=fail, **service(sim))
    ts.mirror(IMODEL, tmp_path / "d", on_publish=reports.append, **service(sim))
    ts.mirror(IMODEL, tmp_path / "d", on_publish=reports.append, **service(sim))
    assert [report["pointer"] for report in reports] == [EXPORT]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "flat", "all_exports": True}, "--all-exports"),
        ({"server_copy": True}, "--server-copy"),
        ({"include": [""]}, "a glob is empty"),
        ({"auth": ts.ClientCredentials("id", "")}, "half of the client credentials"),
    ],
)
def test_wrong_arguments_are_usage_errors(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Conflicting or invalid arguments end before any request or write."""
    with pytest.raises(ts.TilesyncError, match=message) as caught:
        ts.mirror(IMODEL, tmp_path / "d", **options)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "d").exists()


HOST = """
import asyncio, gc, logging, os, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
import tilesync as ts

at_start = signal.getsignal(signal.SIGINT)
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
logging.basicConfig(level=logging.DEBUG, handlers=[Keep()])

def state(loop):
    loggers = {name: (logger.level, list(logger.filters), list(logger.handlers), logger.propagate, logger.disabled)
               for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)
               and (logger.level or logger.filters or logger.handlers or not logger.propagate or logger.disabled)}
    return (loggers, logging.root.level, list(logging.root.filters), dict(os.environ), os.getcwd(), gc.get_threshold(),
            gc.get_freeze_count(), {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)},
            sys.excepthook, sys.unraisablehook, threading.excepthook, loop._default_executor,
            loop.get_exception_handler(), asyncio.get_event_loop_policy().__class__)

async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    signal.signal(signal.SIGTERM, lambda *_: None)
    before = state(loop)
    await ts.aio.mirror(sys.argv[1], sys.argv[2] + "/a", auth=ts.Token(sys.argv[4]), api_url=sys.argv[3])
    await ts.aio.verify(sys.argv[2] + "/a")
    ts.mirror(sys.argv[1], sys.argv[2] + "/b", auth=ts.Token(sys.argv[4]), api_url=sys.argv[3])
    after = state(loop)
    for one, other in zip(before, after):
        assert one == other, (one, other)

asyncio.run(main())
ts.mirror(sys.argv[1], sys.argv[2] + "/c", auth=ts.Token(sys.argv[4]), api_url=sys.argv[3])
assert signal.getsignal(signal.SIGINT) is at_start
left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
assert not [name for name in left if name.startswith("tilesync")], left
assert "sig=" not in "".join(records), [record for record in records if "sig=" in record]
print("unchanged")
"""


def test_the_host_program_is_not_changed(sim: Simulator, tmp_path: Path) -> None:
    """Loop, executor, logging, signal handlers, environment and garbage collector are untouched; no signature is
    logged, whatever level the host asks for.
    """
    sim.offer_export()
    done = subprocess.run(
        [sys.executable, "-c", HOST, IMODEL, str(tmp_path), sim.url, sim.token],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "unchanged\n"), done.stderr


def test_a_task_maps_errors_to_retries(sim: Simulator, tmp_path: Path) -> None:
    """An unavailable service is retried; a refused identity is not."""
    sim.offer_export()
    sim.add_fault(is_api, error_response(503), times=None)
    with pytest.raises(ts.TilesyncError) as down:
        ts.mirror(IMODEL, tmp_path / "d", retry_for=timedelta(seconds=0.5), **service(sim))
    sim.faults.clear()
    with pytest.raises(ts.TilesyncError) as refused:
        ts.mirror(IMODEL, tmp_path / "d", auth=ts.Token("wrong"), api_url=sim.url)
    assert [down.value.is_retryable, refused.value.is_retryable] == [True, False]
    assert ts.mirror(IMODEL, tmp_path / "d", **service(sim)).published


def test_errors_that_are_worth_a_retry() -> None:
    """Of all errors that a call can raise, these may pass without any change by a person."""
    classes = [
        each for each in vars(ts.errors).values() if isinstance(each, type) and issubclass(each, ts.TilesyncError)
    ]
    retryable = {each.__name__ for each in classes if each.is_retryable}
    assert retryable == {"Unavailable", "Incomplete", "ExportReplaced", "DestinationBusy", "NoExport"}


def test_every_public_name_is_there() -> None:
    """Each name of `__all__` can be imported, and no large module is loaded before."""
    code = "import sys, tilesync; loaded = set(sys.modules); [getattr(tilesync, n) for n in tilesync.__all__]; "
    code += "print(sorted(n for n in loaded if n.split('.')[0] in {'httpx', 'asyncio', 'click', 'azure'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
