"""Test one run of a command: exit codes, and the line that ends it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, read_tree, tileset
from tests.support.commandline import (
    FINISHED_FIELDS,
    run_tilesync,
    start_tilesync,
)
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
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest


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
    last = run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service).assert_failed(2, "InvalidRequest")
    assert "no guid" in last["message"]


def test_failed_files_end_with_3(service: Simulator, tmp_path: Path) -> None:
    """A blob with permanently wrong bytes: exit 3, the file is named, nothing is published, the counts add up."""
    service.add_fault(is_blob_named("tiles/001.glb"), flip_last_bit, times=None)
    done = run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service)
    last = done.assert_failed(3, "Incomplete")
    assert (last["failed"], last["published"]) == (1, False)
    assert last["listed"] == last["fetched"] + last["reused"] + last["kept"] + last["excluded"] + last["failed"]
    assert any('"file-failed"' in line and "tiles/001.glb" in line for line in done.stdout.splitlines())
    assert not (tmp_path / "tileset.json").exists()


def test_no_export_ends_with_4(service: Simulator, tmp_path: Path) -> None:
    """No export, or none finished within --wait: exit 4 with the reason, after a bounded wait."""
    service.exports.clear()
    run_tilesync("mirror", IMODEL, tmp_path, "--json", "--wait", "0s", sim=service).assert_failed(4, "NoExport")
    service.offer_export(status="InProgress")
    begun = time.monotonic()
    done = run_tilesync("mirror", IMODEL, tmp_path, "--json", "--wait", "1s", "--poll", "0.3s", sim=service)
    done.assert_failed(4, "NoExport")
    assert 1 <= time.monotonic() - begun < 10
    assert '"waiting"' in done.stdout


def test_a_refused_identity_ends_with_5(service: Simulator, tmp_path: Path) -> None:
    """401 from the API, no identity, and 403 from the storage each end with 5."""
    command = ("mirror", IMODEL, tmp_path, "--json")
    run_tilesync(*command, sim=service, TILESYNC_TOKEN="wrong").assert_failed(5, "NotAuthorised")
    run_tilesync(*command, TILESYNC_API_URL=service.url).assert_failed(5, "NotAuthorised")
    service.add_fault(is_storage, error_response(403, "AuthorizationFailure"), times=None)
    run_tilesync(*command, sim=service).assert_failed(5, "NotAuthorised")


@pytest.mark.parametrize("when", [is_api, is_listing, is_blob])
def test_a_service_that_keeps_failing_ends_with_6(service: Simulator, tmp_path: Path, when: Any) -> None:
    """5xx for longer than --retry-for, from the API, the listing or the blobs: exit 6, soon after that time."""
    service.add_fault(when, error_response(503, "ServerBusy"), times=None)
    begun = time.monotonic()
    done = run_tilesync("mirror", IMODEL, tmp_path, "--json", "--retry-for", "1s", sim=service)
    done.assert_failed(6, "Unavailable")
    assert time.monotonic() - begun < 10


def test_an_export_that_is_gone_ends_with_7(service: Simulator, tmp_path: Path) -> None:
    """A deleted container: exit 7."""
    del service.containers[EXPORT]
    run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service).assert_failed(7, "ExportReplaced")
    done = run_tilesync("mirror", "-", tmp_path, "--json", sim=service, stdin=service.create_link(EXPORT))
    done.assert_failed(7, "ExportReplaced")


def test_a_destination_that_cannot_be_used_ends_with_8(service: Simulator, tmp_path: Path) -> None:
    """A foreign tileset.json, a file instead of a folder, or nothing to verify: exit 8."""
    (tmp_path / "tileset.json").write_text("{}")
    for dest in (tmp_path, tmp_path / "tileset.json", "/proc/nowhere"):
        run_tilesync("mirror", IMODEL, dest, "--json", sim=service).assert_failed(8, "DestinationError")
    run_tilesync("verify", tmp_path / "nothing", "--json").assert_failed(8, "DestinationError")


def test_a_destination_in_use_ends_with_9(service: Simulator, tmp_path: Path) -> None:
    """While a run holds DEST, a second one ends at once with 9; the first one publishes."""
    release, inside = threading.Event(), threading.Event()
    service.add_fault(is_blob_named("tileset.json"), call_before(inside.set, lambda: release.wait(30)))
    first = start_tilesync("mirror", IMODEL, tmp_path, sim=service)
    try:
        assert inside.wait(20)
        run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service).assert_failed(9, "DestinationBusy")
        assert first.poll() is None
    finally:
        release.set()
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert read_latest(tmp_path)["version"] == EXPORT


def test_a_shrunken_export_ends_with_11(service: Simulator, tmp_path: Path) -> None:
    """An export with less than half of the published files is not published: exit 11, the old version stays."""
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    service.offer_export({"tileset.json": tileset()}, export_id=OTHER_EXPORT)
    done = run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service)
    assert (done.exit_code, done.last_line["kind"]) == (11, "failed")
    assert read_latest(tmp_path)["version"] == EXPORT


def test_no_secret_in_any_output_or_file(service: Simulator, tmp_path: Path) -> None:
    """With link renewals, retries and failures, no output or file contains a token or a signature."""
    service.token = "T0KEN-very-secret"
    service.add_fault(is_blob_named("tiles/001.glb"), error_response(404, "BlobNotFound"))
    service.add_fault(is_blob, error_response(500, "InternalError"), times=3, skip=4)
    service.run_before_request(11, is_blob, service.revoke_links)
    output_options = (
        "--json",
        "-v",
        "--log-file",
        tmp_path / "log",
        "--report",
        tmp_path / "report",
        "--transfers",
        "2",
    )
    runs = [run_tilesync("mirror", IMODEL, tmp_path / "d", *output_options, sim=service) for _ in range(2)]
    link = service.create_link(EXPORT)
    runs.append(run_tilesync("mirror", link, tmp_path / "e", *output_options, sim=service))
    service.revoke_links()
    runs.append(run_tilesync("mirror", link, tmp_path / "f", *output_options, sim=service))
    runs.append(run_tilesync("verify", tmp_path / "d", "--json", "-v"))
    assert [run.exit_code for run in runs] == [3, 0, 0, 5, 0]
    output = "".join(run.stdout + run.stderr for run in runs).encode()
    for data in (output, *read_tree(tmp_path).values()):
        assert b"T0KEN" not in data
        assert b"sig=" not in data
        assert b"sig%3D" not in data


def test_the_last_line_marks_a_dry_run(service: Simulator, tmp_path: Path) -> None:
    """`dry_run` is true in the last line, the report and the log of a plan, also of a failed one, and in no
    other line.
    """
    report, log = tmp_path / "r", tmp_path / "log"
    more = ("--json", "--report", report, "--log-file", log)
    for option in ("-n", "--dry-run"):
        last = run_tilesync("mirror", IMODEL, tmp_path / "d", option, *more, sim=service).last_line
        assert last.keys() == FINISHED_FIELDS | {"dry_run"}
        assert last["dry_run"] is True
        assert json.loads(report.read_text())["dry_run"] is True
        assert json.loads(log.read_text().splitlines()[-1])["dry_run"] is True
    assert (
        run_tilesync("mirror", OTHER_EXPORT, tmp_path / "d", "-n", "--wait", "0s", *more, sim=service).last_line[
            "dry_run"
        ]
        is True
    )
    command = ("mirror", IMODEL, tmp_path / "d", "--bogus", "--json")
    wrong = run_tilesync(*command, sim=service, TILESYNC_DRY_RUN="1").last_line
    assert (wrong["exit"], wrong["dry_run"]) == (2, True)
    assert run_tilesync("mirror", IMODEL, tmp_path / "d", *more, sim=service).last_line.keys() == FINISHED_FIELDS
    assert "dry_run" not in json.loads(report.read_text())
