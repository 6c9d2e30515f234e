"""Run each file of `examples/` as a user would, against a fake service."""

from __future__ import annotations

import ast
import asyncio
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.builders import export as build_files
from tilesync.testing import FakeService

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
MAX_LINES = 39

FILES = build_files()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """Start a fake service, which the environment names as it names the real one."""
    with FakeService() as started:
        for name, value in started.environ().items():
            monkeypatch.setenv(name, value)
        yield started


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run Python as a program."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_example_is_run_and_shipped() -> None:
    """Each example is short, has a test here, and is in the source archive."""
    examples = sorted(EXAMPLES.glob("*.py"))
    assert [path.name for path in examples if f"test_{path.stem}" not in globals()] == []
    assert {path.name: count for path in examples if (count := len(path.read_text().splitlines())) > MAX_LINES} == {}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert "examples" in build["targets"]["sdist"]["include"]


@pytest.mark.scale
def test_plain_script(service: FakeService, tmp_path: Path) -> None:
    """The script publishes, then finds nothing new; an error becomes the exit code, with its hint."""
    export = service.add_export(FILES)
    script = EXAMPLES / "plain_script.py", export.imodel, tmp_path / "d"
    first = run(*script)
    assert (first.returncode, first.stdout.splitlines()[0]) == (0, f"published: version {export.id}"), first.stderr
    service.add_export(FILES, status="InProgress")
    second = run(*script)
    assert second.stdout.splitlines()[0] == f"unchanged: version {export.id}"
    assert "a newer export is not finished yet" in second.stdout
    service.refuse_identity()
    refused = run(*script)
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (5, "", 2)


def test_notebook_cell(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cell runs in a loop that runs already, compiled as Jupyter does, and shows its progress."""
    export = service.add_export(FILES)
    monkeypatch.setenv("IMODEL", export.imodel)
    monkeypatch.setenv("DEST", str(tmp_path / "d"))
    path = EXAMPLES / "notebook_cell.py"
    cell = compile(path.read_text(), str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {}

    async def run_cell() -> None:
        code: Awaitable[None] = eval(cell, names)
        await code

    asyncio.run(run_cell())
    assert names["result"].published
    progress, *lines = capsys.readouterr().out.splitlines()[-3:]
    assert progress.startswith(f"{len(FILES)} of {len(FILES)} files")
    assert lines[1].startswith(f"* {export.id}")


class TaskStandIn:
    """Stand-in of a task of Airflow: calls are recorded, `function` is what a worker runs."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.function = function
        self.options = options
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, *args: object) -> None:
        self.calls.append(args)

    def run_as_worker(self, failed: type[Exception]) -> tuple[int, object]:
        """Run the function as Airflow does; return the number of attempts, and the last result or error."""
        outcome: object = None
        for attempt in range(1, self.options["retries"] + 2):
            try:
                return attempt, self.function(*self.calls[0])
            except failed as error:
                return attempt, error
            except Exception as error:
                outcome = error
        return self.options["retries"] + 1, outcome


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """Put a stand-in of Airflow in place, since Airflow is too large for the packages of the tests.

    It has the names that the example imports, and no more. Returns the class of AirflowFailException.
    """
    sdk, exceptions = ModuleType("airflow.sdk"), ModuleType("airflow.sdk.exceptions")
    failed = type("AirflowFailException", (Exception,), {})
    vars(exceptions)["AirflowFailException"] = failed
    vars(sdk)["task"] = lambda **options: lambda function: TaskStandIn(function, options)
    vars(sdk)["dag"] = lambda **_: lambda function: function
    for module in (ModuleType("airflow"), sdk, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return failed


def test_airflow_task(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, airflow: type[Exception]
) -> None:
    """A failure that may pass is tried again; a refused identity fails at the first attempt."""
    export = service.add_export(FILES)
    monkeypatch.setenv("IMODEL", export.imodel)
    monkeypatch.setenv("DEST", str(tmp_path / "d"))
    task = runpy.run_path(str(EXAMPLES / "airflow_task.py"))["mirror_tiles"]
    assert task.calls == [(export.imodel, str(tmp_path / "d"))]
    service.fail_next(404, name="tiles/001.glb")
    attempts, result = task.run_as_worker(airflow)
    assert (attempts, result["published"], result["version"]) == (2, True, export.id)
    service.refuse_identity()
    attempts, error = task.run_as_worker(airflow)
    assert (attempts, type(error)) == (1, airflow)


@pytest.mark.scale
def test_ten_mirrors(service: FakeService, tmp_path: Path) -> None:
    """All mirrors end, also when one fails, and the summary counts them; the exit code is that of the failure."""
    imodels = [f"{number:08}-2222-3333-4444-555555555555" for number in range(10)]
    for number, imodel in enumerate(imodels):
        service.add_export(build_files(seed=number), imodel=imodel, status="Complete" if number else "Invalid")
    done = run(EXAMPLES / "ten_mirrors.py", tmp_path, *imodels)
    lines = done.stdout.splitlines()
    assert done.returncode == 4, done.stderr
    assert lines[0].startswith(f"{imodels[0]} every matching export is Invalid")
    assert lines[1:10] == [f"{imodel} published" for imodel in imodels[1:]]
    assert lines[10].startswith(f"9 of 10 mirrored: {9 * len(FILES)} files")


@pytest.mark.scale
def test_pytest_pipeline(tmp_path: Path) -> None:
    """The tests of a user pass, from a folder of their own."""
    shutil.copy(EXAMPLES / "pytest_pipeline.py", tmp_path)
    own_folders = ("--rootdir", tmp_path, "--basetemp", tmp_path / "base")
    done = run("-m", "pytest", "-q", *own_folders, tmp_path / "pytest_pipeline.py")
    assert done.stdout.splitlines()[-1].startswith("2 passed"), done.stdout
