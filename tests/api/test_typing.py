"""Test the types of the public API from a program outside the project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from datetime import timedelta
import tilesync as ts

result: ts.MirrorResult = ts.mirror(
    "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40",
    "/srv/tiles/bridge",
    auth=ts.ClientCredentials("id", "secret"),
    retention=ts.Retention(versions=10, keep_for=timedelta(days=2)),
    exclude=("*.png",),
    wait=timedelta(minutes=10),
)
count: int = result.stats.fetched
audit: ts.AuditResult = ts.verify("/srv/tiles/bridge", quick=True)
names: list[str] = [finding.name for finding in audit.findings]

with ts.testing.FakeService() as service:
    export = service.add_export({"tileset.json": b"{}"}, status="InProgress")
    service.fail_next(503, on="api", times=2, retry_after=timedelta(seconds=1))
    behind: bool = ts.mirror(export.imodel, "/srv", retry_for=timedelta(0), **service.options()).behind
    ok: bool = ts.doctor(source=export.imodel, **service.options()).ok
    ids: list[str] = [each.id for each in ts.exports(export.imodel, **service.options())]
    kinds: set[str] = {request.kind for request in service.requests}

    night: ts.FleetResult = ts.fleet("fleet.toml", only=["campus/*"], max_duration=timedelta(hours=5))
    bad: list[ts.MirrorOutcome] = [each for each in night.outcomes if each.exit_code]
    sources: list[str | None] = [each.imodel for each in ts.check_fleet("fleet.toml").mirrors]

async def work() -> bool:
    good: bool = (await ts.aio.fleet("fleet.toml", failed=True)).ok
    return (await ts.aio.mirror("x", "y")).published

try:
    ts.rollback("/srv/tiles/bridge")
except ts.errors.DestinationBusy as error:
    code: int = error.exit_code
"""


def run_mypy(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Check a program in strict mode, with tilesync as an installed package."""
    (folder / "program.py").write_text(program)
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache"), "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.scale
def test_a_program_outside_is_type_checked(tmp_path: Path) -> None:
    """A correct program passes in strict mode; a misspelt option and a wrong type are found."""
    good = run_mypy(tmp_path, PROGRAM)
    assert good.returncode == 0, good.stdout
    wrong = (
        'ts.mirror("x", "y", retain=1)',
        'ts.mirror("x", "y", wait=5)',
        'service.fail_next(on="apis")',
        'ts.fleet("x", only=5)',
    )
    bad = run_mypy(tmp_path, PROGRAM + "\n".join(wrong))
    assert "retain" in bad.stdout
    assert 'Argument "wait"' in bad.stdout
    assert 'Argument "on"' in bad.stdout
    assert 'Argument "only"' in bad.stdout
