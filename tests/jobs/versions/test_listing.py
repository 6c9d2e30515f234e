"""Listing of versions, and exports that the service deletes next."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.builders import read_tree
from tests.support.faults import error_response, is_blob
from tests.support.sequential_exports import FIRST as EXPORT
from tests.support.sequential_exports import SECOND as OTHER
from tests.support.sequential_exports import THIRD, mirror_each, offer_exports
from tests.support.simulator import JobOutcome, Simulator, read_latest, rollback, verify
from tilesync.app import commands
from tilesync.app.requests import Target
from tilesync.errors import DestinationError, UsageError
from tilesync.events import Warned
from tilesync.jobs.versions.listing import ListedVersion, classify_export, describe_endangered
from tilesync.model import Export


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Two versions, the second one current."""
    return mirror_each(tmp_path / "d", EXPORT, OTHER)


def holdings(dest: Path) -> list[ListedVersion]:
    return commands.list_versions(Target(dest), JobOutcome())[0]


def test_versions_are_listed_newest_first(dest: Path) -> None:
    """Each version is listed with state, shared bytes and pointer; numbers match the files on disk."""
    new, old = holdings(dest)
    files = read_tree(dest / "versions" / OTHER)
    assert (new.version.name, old.version.name) == (OTHER, EXPORT)
    assert (new.version.summary.files, new.version.summary.bytes) == (len(files), sum(map(len, files.values())))
    same = sum(len(data) for name, data in files.items() if name != "tiles/003.glb")
    assert (new.shared_bytes, old.shared_bytes) == (same, same)
    assert (new.state, old.state) == ("held", "held")
    assert (new.is_current, old.is_current, new.is_pinned, old.is_pinned) == (True, False, False, False)
    rollback(dest)
    new, old = holdings(dest)
    assert (new.is_current, old.is_current, new.is_pinned, old.is_pinned) == (False, True, False, True)


def test_shared_bytes_are_unknown_without_state(dest: Path) -> None:
    """Without a state folder the manifests give the rest, read-only; nothing is created."""
    shutil.rmtree(dest / ".tilesync")
    new, old = holdings(dest)
    assert (new.version.name, new.shared_bytes, old.shared_bytes) == (OTHER, None, None)
    assert not (dest / ".tilesync").exists()


def test_damaged_and_unfinished_versions_are_marked(dest: Path) -> None:
    """A version that verify found bad, and an unfinished one, are marked."""
    (dest / "versions" / EXPORT / "tiles/003.glb").unlink()
    verify(dest, every=True)
    with Simulator() as sim:
        offer_exports(sim, THIRD)
        sim.add_fault(is_blob, error_response(404, "BlobNotFound"))
        assert sim.mirror(dest).exit_code == 3
    assert [(each.version.name[0], each.state) for each in holdings(dest)] == [
        ("b", "held"),
        ("a", "damaged"),
        ("c", "unfinished"),
    ]


def test_unreadable_manifest_is_a_warning(dest: Path) -> None:
    """An unreadable manifest is a warning, and the other versions are listed."""
    (dest / "manifests" / f"{EXPORT}.jsonl").write_text("torn")
    run = JobOutcome()
    assert [each.version.name for each in commands.list_versions(Target(dest), run)[0]] == [OTHER]
    assert EXPORT in run.events_of(Warned)[0].message


def test_sha256sums_work_with_coreutils(dest: Path) -> None:
    """`sha256sum -c` accepts the lines, with odd names too, and finds a damaged file."""
    lines = list(commands.sha256sums(Target(dest), EXPORT[:4], JobOutcome()))
    folder = dest / "versions" / EXPORT
    assert len(lines) == len(read_tree(folder))

    def check() -> subprocess.CompletedProcess[str]:
        text = "".join(f"{line}\n" for line in lines)
        return subprocess.run(
            ["sha256sum", "--check", "--strict"], cwd=folder, input=text, capture_output=True, text=True, check=False
        )

    assert check().returncode == 0
    assert check().stdout.count(": OK") == len(lines)
    (folder / "tiles/001.glb").write_bytes(b"rotten")
    assert "tiles/001.glb: FAILED" in check().stdout
    with pytest.raises(UsageError):
        list(commands.sha256sums(Target(dest), "zzz", JobOutcome()))
    (dest / "manifests" / f"{EXPORT}.jsonl").write_text("{}\n")
    with pytest.raises(DestinationError):
        list(commands.sha256sums(Target(dest), EXPORT, JobOutcome()))


def rows(*days: int) -> list[Export]:
    """Return exports of these days, newest first; that of day 1 is EXPORT, that of day 2 OTHER."""
    ids = {1: EXPORT, 2: OTHER}
    return [
        Export(ids.get(day, f"export{day}"), "Complete", imodel="i", modified=f"2026-03-0{day}T08:30:00Z")
        for day in days
    ]


def test_classify_export(dest: Path) -> None:
    """An export is held, held in an older state, damaged, or not held."""
    new, old, strange = rows(2, 1, 7)
    there = holdings(dest)
    assert (classify_export(new, there), classify_export(old, there), classify_export(strange, there)) == (
        "held",
        "held",
        "",
    )
    assert classify_export(replace(old, modified="2026-03-09T00:00:00Z"), there) == "older"
    (dest / "versions" / EXPORT / "tiles/003.glb").unlink()
    verify(dest, every=True)
    assert classify_export(old, holdings(dest)) == "damaged"


def test_endangered_export_is_described(dest: Path) -> None:
    """With five exports, the oldest is described if it is not held, and only then."""
    there = holdings(dest)
    assert list(describe_endangered(rows(5, 4, 3, 2, 1), there)) == []
    (sentence,) = describe_endangered(rows(7, 6, 5, 4, 3), there)
    assert "export3" in sentence
    assert "--all-exports" in sentence
    assert list(describe_endangered(rows(6, 5, 4, 3), there)) == []
    assert len(list(describe_endangered(rows(5, 4, 3, 2, 1), []))) == 1
    assert read_latest(dest)["version"] == OTHER
