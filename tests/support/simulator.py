"""Simulator of the service: the fake service with hooks and request counts; and functions to run jobs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, export, glb, make_stored_blobs, read_tree
from tests.support.faults import blob_name, call_before, is_blob, is_listing
from tests.support.fork_server import run_forked
from tilesync.app import commands
from tilesync.app import service as services
from tilesync.app.requests import MirrorRequest, Target
from tilesync.azure.sas import parse_sas_link
from tilesync.demo.fake_service import FakeBackend, StoredBlob
from tilesync.demo.faults import Fault, RequestMatcher
from tilesync.demo.loopback_server import FakeRequest, FakeResponse
from tilesync.errors import TilesyncError
from tilesync.events import Event, Warned
from tilesync.jobs.run.stats import RunStats
from tilesync.model import Inventory, SasUrl, Secret, Selector

EXPORT = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER_EXPORT = "bbbbbbbb-0000-4000-8000-000000000002"

both_inventories = pytest.mark.parametrize("inventory", list(Inventory))
"""Run a test by listing and by walk."""


@dataclass
class JobOutcome:
    """Result of one run of a job."""

    events: list[Event] = field(default_factory=list)
    stats: RunStats = field(default_factory=RunStats)
    error: TilesyncError | None = None

    def __call__(self, event: Event) -> None:
        """Record an event, as an Observer."""
        self.events.append(event)
        self.stats(event)

    @property
    def exit_code(self) -> int:
        """Return the exit code that the command line would give."""
        return 0 if self.error is None else self.error.exit_code

    @property
    def warnings(self) -> list[str]:
        """Return the messages of the warnings."""
        return [event.message for event in self.events_of(Warned)]

    def events_of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class Simulator(FakeBackend):
    """Fake service with hooks, and functions that run jobs against it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.list_exports: Callable[[int], list[dict[str, Any]]] | None = None
        """Returns the rows of the nth listing (from 1), for tests in which they change."""
        self.extra_headers: dict[str, str] = {}
        """Headers that are added to each response of the storage, except to those of faults."""
        self.token_answer: Callable[[FakeRequest], FakeResponse] | None = None
        self._listing_count = 0

    # --- content ---

    def offer_export(
        self, files: dict[str, bytes] | None = None, *, export_id: str = EXPORT, md5: bool = True, **changes: Any
    ) -> dict[str, bytes]:
        """Offer an export of these files (default: a small one) as the newest; return the files."""
        files = export() if files is None else files
        self.add_export(export_id, IMODEL, make_stored_blobs(files, md5=md5), **changes)
        return files

    def offer_changed_export(self, export_id: str, day: int) -> None:
        """Offer an export of this day of March that differs from the first one in one file."""
        files = {name: item.data for name, item in self.containers[EXPORT].items()}
        files["tiles/003.glb"] = glb(export_id.encode())
        self.offer_export(files, export_id=export_id, lastModified=f"2026-03-{day:02d}T08:30:00Z")

    def regenerate(self, files: dict[str, bytes], *, export_id: str = EXPORT, md5: bool = True) -> None:
        """Replace the content of an export."""
        self.containers[export_id] = make_stored_blobs(files, md5=md5)
        row = next(row for row in self.exports if row["id"] == export_id)
        day, number = row["lastModified"].split("T")[0], len(self.requests) + 1
        row["lastModified"] = f"{day}T09:{number // 60 % 60:02d}:{number % 60:02d}Z"

    def delete(self, export_id: str = EXPORT) -> None:
        """Delete an export and its container."""
        self.containers.pop(export_id, None)
        self.exports[:] = [row for row in self.exports if row["id"] != export_id]

    def blob(self, name: str, export_id: str = EXPORT) -> StoredBlob:
        """Return a stored blob, to be changed."""
        return self.containers[export_id][name]

    # --- faults and hooks ---

    def run_before_request(self, number: int, when: RequestMatcher, do: Callable[[], object]) -> Fault:
        """Call a function just before the response to the nth (from 1) matching request."""
        return self.add_fault(when, call_before(do), skip=number - 1)

    def respond_storage(self, request: FakeRequest) -> FakeResponse:
        """Respond as the storage or the token endpoint."""
        if request.path == "/connect/token" and self.token_answer is not None:
            return self.token_answer(request)
        answer = super().respond_storage(request)
        return replace(answer, headers={**answer.headers, **self.extra_headers}) if self.extra_headers else answer

    def visible_exports(self) -> list[dict[str, Any]]:
        """Return the rows that the API lists now."""
        with self._lock:
            self._listing_count += 1
            look = self._listing_count
        return self.exports if self.list_exports is None else self.list_exports(look)

    # --- what was asked ---

    def clear_requests(self) -> None:
        """Forget the requests so far, and the calls of the API."""
        self.requests.clear()
        self.api_calls.clear()

    @property
    def api_requests(self) -> list[FakeRequest]:
        """Return the requests to the API."""
        return [request for request in self.requests if request.is_api]

    @property
    def listing_requests(self) -> list[FakeRequest]:
        """Return the requests for pages of containers."""
        return [request for request in self.requests if is_listing(request)]

    def blob_requests(self, name: str | None = None) -> list[FakeRequest]:
        """Return the requests for one blob, or for all blobs."""
        return [r for r in self.requests if is_blob(r) and (name is None or blob_name(r) == name)]

    def range_headers(self, name: str) -> list[str | None]:
        """Return the Range headers of the requests for one blob, in order."""
        return [request.headers.get("range") for request in self.blob_requests(name)]

    # --- runs ---

    def mirror_request(self, dest: Path, **changes: Any) -> MirrorRequest:
        """Make the request of `tilesync mirror`."""
        service = services.Service(
            self.url,
            services.Identity(token=Secret(self.token)),
            retry_for=changes.pop("retry_for", timedelta(seconds=20)),
        )
        selector = changes.pop("selector", Selector(imodel=IMODEL, export_type="3DTiles"))
        if link := changes.pop("link", None):
            changes["link"] = link if isinstance(link, SasUrl) else parse_sas_link(link)
        defaults = {"wait": timedelta(seconds=5), "poll": timedelta(milliseconds=50)}
        return MirrorRequest(service=service, selector=selector, destination=dest, **{**defaults, **changes})

    def mirror(self, dest: Path, **changes: Any) -> JobOutcome:
        """Run the mirror job over real sockets; return its result."""
        return self._run_job(commands.mirror, self.mirror_request(dest, **changes))

    def dry_run(self, dest: Path, **changes: Any) -> JobOutcome:
        """Run a dry run; return its result."""
        return self._run_job(commands.mirror_dry_run, self.mirror_request(dest, every_file=True, **changes))

    def mirror_program(self, dest: object, *options: str, env: Mapping[str, str] | None = None) -> ProgramResult:
        """Run `tilesync mirror` as a program; return its result."""
        return run_program(
            *("mirror", IMODEL, str(dest), *options),
            env={"TILESYNC_API_URL": self.url, "TILESYNC_TOKEN": self.token, **(env or {})},
        )

    def _run_job(self, job: Any, request: MirrorRequest) -> JobOutcome:
        run = JobOutcome()

        async def work() -> None:
            async with asyncio.timeout(60):
                await job(request, run, run.stats)

        try:
            asyncio.run(work())
        except TilesyncError as error:
            run.error = error
        return run


@dataclass(frozen=True)
class ProgramResult:
    """Result of a program: exit code, last JSON line, and stderr."""

    exit_code: int
    last_line: dict[str, Any]
    stderr: str


def run_program(*words: str, env: Mapping[str, str] | None = None) -> ProgramResult:
    """Run tilesync as a program, with no environment variables of this process except the paths."""
    paths = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    ended = run_forked([*words, "--json"], {**paths, **(env or {})})
    lines = ended.stdout.splitlines()
    return ProgramResult(ended.returncode, json.loads(lines[-1]) if lines else {}, ended.stderr)


def verify(dest: Path, *, quick: bool = False, every: bool = False, state_dir: Path | None = None) -> JobOutcome:
    """Verify a destination; return the result."""
    run = JobOutcome()
    try:
        asyncio.run(commands.verify(Target(dest, state_dir=state_dir), run, run.stats, quick=quick, all_versions=every))
    except TilesyncError as error:
        run.error = error
    return run


def rollback(dest: Path, name: str | None = None, *, latest: bool = False) -> JobOutcome:
    """Roll back the pointer; return the result."""
    run = JobOutcome()
    try:
        asyncio.run(commands.rollback(Target(dest), run, name, latest=latest))
    except TilesyncError as error:
        run.error = error
    return run


def read_version(dest: Path, version: str = EXPORT) -> dict[str, bytes]:
    """Read the files of a version."""
    return read_tree(dest / "versions" / version)


def read_latest(dest: Path) -> dict[str, Any]:
    """Read `latest.json`."""
    latest: dict[str, Any] = json.loads((dest / "latest.json").read_text())
    return latest
