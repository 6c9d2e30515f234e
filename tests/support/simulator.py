"""The service as a test wants it: the editable stand-in, with faults, hooks and counts on top; and a run against it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.support.builders import IMODEL, export, stored
from tests.support.faults import Effect, Fault, When, after, any_blob, blob_name, listing
from tilesync.app import commands as wiring
from tilesync.app import service as services
from tilesync.azure.sas import parse_link
from tilesync.demo.fake_service import Answer, Request, StandIn, StoredBlob
from tilesync.errors import TilesyncError
from tilesync.events import Event
from tilesync.jobs.run.stats import Tally
from tilesync.model import SasUrl, Secret, Selector

EXPORT = "aaaaaaaa-0000-4000-8000-000000000001"


@dataclass
class Run:
    """One run of a job, as it ended."""

    events: list[Event] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    error: TilesyncError | None = None

    def __call__(self, event: Event) -> None:
        """Take note, as an Observer."""
        self.events.append(event)
        self.tally(event)

    @property
    def exit(self) -> int:
        """The exit code that the command line would give."""
        return 0 if self.error is None else self.error.exit_code

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class Simulator(StandIn):
    """The service with fault knobs. When the `with` block ends well, each declared fault must have been hit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.faults: list[Fault] = []
        self.rows: Callable[[int], list[dict[str, Any]]] | None = None
        """What the API lists at the nth look (from 1), where a test wants it to change."""
        self.marks: dict[str, str] = {}
        """Headers that each answer of the storage has, but for those that a fault gives in its place."""
        self.token_answer: Callable[[Request], Answer] | None = None
        self._looks = 0

    def __enter__(self) -> Simulator:
        super().__enter__()
        return self

    def __exit__(self, kind: object = None, *more: object) -> None:
        super().__exit__(kind, *more)
        idle = [fault for fault in self.faults if not fault.hits and not fault.optional]
        if kind is None and idle:
            raise AssertionError(f"{len(idle)} declared faults were never hit: {idle}")

    # --- content ---

    def hold(
        self, files: dict[str, bytes] | None = None, *, export_id: str = EXPORT, md5: bool = True, **changes: Any
    ) -> dict[str, bytes]:
        """Offer an export of these files (a small one where none are given) as the newest; the files."""
        files = export() if files is None else files
        self.add_export(export_id, IMODEL, stored(files, md5=md5), **changes)
        return files

    def regenerate(self, files: dict[str, bytes], *, export_id: str = EXPORT, md5: bool = True) -> None:
        """The same export has other content from now on."""
        self.containers[export_id] = stored(files, md5=md5)
        row = next(row for row in self.exports if row["id"] == export_id)
        day, number = row["lastModified"].split("T")[0], len(self.requests) + 1
        row["lastModified"] = f"{day}T09:{number // 60 % 60:02d}:{number % 60:02d}Z"

    def delete(self, export_id: str = EXPORT) -> None:
        """The service deletes an export and its container."""
        self.containers.pop(export_id, None)
        self.exports[:] = [row for row in self.exports if row["id"] != export_id]

    def blob(self, name: str, export_id: str = EXPORT) -> StoredBlob:
        """A blob as it is stored, to be changed."""
        return self.containers[export_id][name]

    # --- faults and hooks ---

    def fault(self, when: When, effect: Effect, **how: Any) -> Fault:
        """Declare a fault."""
        fault = Fault(when, effect, **how)
        self.faults.append(fault)
        return fault

    def on(self, number: int, when: When, do: Callable[[], object]) -> Fault:
        """Do something just before the nth (from 1) request of a kind is answered."""
        return self.fault(when, after(do), skip=number - 1)

    def answer_api(self, request: Request) -> Answer:
        """The API, or what befalls it."""
        return self._befall(request, super().answer_api)

    def answer_storage(self, request: Request) -> Answer:
        """The containers and the token endpoint, or what befalls them."""
        if request.path == "/connect/token" and self.token_answer is not None:
            return self._befall(request, self.token_answer)
        return self._befall(request, self._marked)

    def _marked(self, request: Request) -> Answer:
        answer = super().answer_storage(request)
        return replace(answer, headers={**answer.headers, **self.marks}) if self.marks else answer

    def _befall(self, request: Request, proceed: Callable[[Request], Answer]) -> Answer:
        for fault in self.faults:
            if fault.strikes(request):
                return fault.effect(request, lambda: proceed(request))
        return proceed(request)

    def visible_exports(self) -> list[dict[str, Any]]:
        """The rows that the API lists now."""
        with self._lock:
            self._looks += 1
            look = self._looks
        return self.exports if self.rows is None else self.rows(look)

    # --- what was asked ---

    def forget(self) -> None:
        """Count requests from here on."""
        self.requests.clear()

    @property
    def asked_api(self) -> list[Request]:
        """Requests to the API."""
        return [request for request in self.requests if request.is_api]

    @property
    def asked_pages(self) -> list[Request]:
        """Requests for pages of containers."""
        return [request for request in self.requests if listing(request)]

    def asked(self, name: str | None = None) -> list[Request]:
        """Requests for one blob, or for all of them."""
        return [r for r in self.requests if any_blob(r) and (name is None or blob_name(r) == name)]

    def ranges(self, name: str) -> list[str | None]:
        """The Range headers of the requests for one blob, in order."""
        return [request.headers.get("range") for request in self.asked(name)]

    # --- runs ---

    def request(self, dest: Path, **changes: Any) -> wiring.MirrorRequest:
        """What `tilesync mirror` would ask for."""
        service = services.Service(
            self.url,
            services.Identity(token=Secret(self.token)),
            retry_for=changes.pop("retry_for", timedelta(seconds=20)),
        )
        selector = changes.pop("selector", Selector(imodel=IMODEL, export_type="3DTiles"))
        if link := changes.pop("link", None):
            changes["link"] = link if isinstance(link, SasUrl) else parse_link(link)
        defaults = {"wait": timedelta(seconds=5), "poll": timedelta(milliseconds=50)}
        return wiring.MirrorRequest(service=service, selector=selector, destination=dest, **{**defaults, **changes})

    def mirror(self, dest: Path, **changes: Any) -> Run:
        """Run the main job over real sockets; how it ended."""
        return self._run(wiring.mirror, self.request(dest, **changes))

    def preview(self, dest: Path, **changes: Any) -> Run:
        """Tell the plan; how that ended."""
        return self._run(wiring.preview, self.request(dest, every_file=True, **changes))

    def command(self, dest: object, *options: str, env: Mapping[str, str] | None = None) -> Ended:
        """Run the main job as a program; how it ended."""
        return command(
            *("mirror", IMODEL, str(dest), *options),
            env={"TILESYNC_API_URL": self.url, "TILESYNC_TOKEN": self.token, **(env or {})},
        )

    def _run(self, job: Any, request: wiring.MirrorRequest) -> Run:
        run = Run()

        async def work() -> None:
            async with asyncio.timeout(60):
                await job(request, run, run.tally)

        try:
            asyncio.run(work())
        except TilesyncError as error:
            run.error = error
        return run


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, its last line for programs, and what it said to people."""

    exit: int
    last: dict[str, Any]
    said: str


def command(*words: str, env: Mapping[str, str] | None = None) -> Ended:
    """Run tilesync as a program, with nothing of this one's environment but the path."""
    ended = subprocess.run(
        [sys.executable, "-m", "tilesync", *words, "--json"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = ended.stdout.splitlines()
    return Ended(ended.returncode, json.loads(lines[-1]) if lines else {}, ended.stderr)


def verify(dest: Path, *, quick: bool = False, every: bool = False, state_dir: Path | None = None) -> Run:
    """Audit a destination; how that ended."""
    run = Run()
    try:
        asyncio.run(wiring.verify(dest, run, run.tally, state_dir=state_dir, quick=quick, every=every))
    except TilesyncError as error:
        run.error = error
    return run


def rollback(dest: Path, name: str | None = None, *, latest: bool = False) -> Run:
    """Move the pointer by hand; how that ended."""
    run = Run()
    try:
        asyncio.run(wiring.rollback(dest, run, name, latest=latest, state_dir=None))
    except TilesyncError as error:
        run.error = error
    return run


def latest(dest: Path) -> dict[str, Any]:
    """What `latest.json` says."""
    said: dict[str, Any] = json.loads((dest / "latest.json").read_text())
    return said
