"""Compare versions in a bucket, in packages, and across places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL
from tests.support.commandline import CommandResult, run_tilesync
from tests.support.gzip_exports import make_gzip_export
from tests.support.packages import ENDINGS
from tests.support.s3 import BucketFixture, BucketServer
from tests.support.sequential_exports import CHANGED_FILE, FIRST, SECOND, files_of, mirror_each, offer_exports
from tests.support.simulator import Simulator

SAME_FILES = len(files_of(FIRST)) - 1


def assert_one_change(done: CommandResult, *, exit_code: int = 13) -> dict[str, Any]:
    """Assert that only one file has changed; return the last line."""
    assert done.exit_code == exit_code, (done.stdout, done.stderr)
    assert [(line["change"], line["name"]) for line in done.lines_of_kind("file")] == [("changed", CHANGED_FILE)]
    assert (done.last_line["changed"], done.last_line["same"]) == (1, SAME_FILES)
    return done.last_line


@pytest.mark.parametrize("md5", [True, False])
def test_versions_in_a_bucket(bucket_server: BucketServer, tmp_path: Path, sim: Simulator, *, md5: bool) -> None:
    """Two versions in a bucket differ as those in a folder do, and a folder can be compared with the bucket."""
    place = BucketFixture(bucket_server, tmp_path / "state")
    for export_id in (FIRST, SECOND):
        offer_exports(sim, export_id)
        if not md5:
            sim.blob(CHANGED_FILE, export_id).md5 = ""
        assert place.mirror(sim).exit_code == 0
    done = run_tilesync("diff", place.url, FIRST, "--json", "--exit-code", sim=None, **place.env)
    last = assert_one_change(done)
    assert (last["b"], last["cached"], last["bytes_to_fetch"]) == (SECOND, 0, len(files_of(SECOND)[CHANGED_FILE]))
    folder = mirror_each(tmp_path / "folder", FIRST)
    done = run_tilesync(
        "diff", folder, "current", f"latest@{place.url}", "--json", "--exit-code", sim=None, **place.env
    )
    assert assert_one_change(done)["b"] == SECOND
    missing = run_tilesync("diff", place.url, "zz", "--json", sim=None, **place.env).assert_failed(2, "UsageError")
    assert FIRST in missing["hint"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_package_is_compared_as_a_folder_is(tmp_path: Path, ending: str) -> None:
    """A package is a destination with one version, and a source that a version is compared with."""
    dest, package = mirror_each(tmp_path / "d", FIRST, SECOND), tmp_path / f"old.{ending}"
    assert run_tilesync("pack", dest, FIRST, package).exit_code == 0
    same = run_tilesync("diff", package, "current", FIRST, "--json", "--exit-code")
    assert (same.exit_code, same.last_line["same"]) == (0, SAME_FILES + 1), same.stderr
    assert_one_change(run_tilesync("diff", dest, f"latest@{package}", "current", "--json", "--exit-code"))
    assert_one_change(run_tilesync("diff", package, "current", f"latest@{dest}", "--json", "--exit-code"))


def test_a_decoded_copy_is_compared_by_the_content_in_the_container(tmp_path: Path) -> None:
    """Files that --content decoded has unpacked count as the same as those of the container, by MD5 and size."""
    with Simulator() as sim:
        sim.offer_export(make_gzip_export()[0])
        done = run_tilesync("mirror", IMODEL, tmp_path / "d", "--content", "decoded", sim=sim)
        assert done.exit_code == 0, done.stderr
        done = run_tilesync("diff", tmp_path / "d", "current", f"latest@{IMODEL}", "--json", "--exit-code", sim=sim)
        assert (done.exit_code, done.lines_of_kind("file")) == (0, [])
