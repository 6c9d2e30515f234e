"""Fake service to test your own pipelines with: no account, no network, nothing to install.

    import tilesync as ts

    def test_nightly_mirror(tmp_path):
        with ts.testing.FakeService() as service:
            export = service.add_export()
            result = ts.mirror(export.imodel, tmp_path, **service.options())
        assert result.published

The service runs on a free port of 127.0.0.1 while its `with` block runs; several can run at once, also in a running
event loop. It changes nothing in your program.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from tilesync.api.auth import Token
from tilesync.api.options import ConnectionOptions
from tilesync.core.filters import make_matcher
from tilesync.demo.city import build_city
from tilesync.demo.fake_service import FakeBackend, storage_error
from tilesync.demo.faults import Effect, Fault
from tilesync.demo.itwin_directory import api_error
from tilesync.demo.loopback_server import FakeRequest, FakeResponse
from tilesync.demo.scenario import EDITION_COUNT, IMODEL, make_blobs, make_export_id
from tilesync.errors import UsageError
from tilesync.model import Secret
from tilesync.transport.tls import load_proxies
from tilesync.values import dataclass

__all__ = ["ExportStatus", "FakeExport", "FakeService", "Files", "ReceivedRequest", "RequestKind"]

RequestKind = Literal["any", "api", "listing", "file"]
"""Requests to the Mesh Export API, for a page of a container's listing, for a file; or any of them."""

ExportStatus = Literal["NotStarted", "InProgress", "Complete", "Invalid"]
"""State of an export, in the words of the service."""

Files = Mapping[str, bytes] | str | Path
"""Bytes by file name, or a folder that is read at once. The root tileset is `tileset.json`."""

_FIRST_MODIFIED = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request that the service received. `export` and `name` are empty if it is not for a container or file.

    `headers`: by their names in lower case.
    """

    kind: Literal["api", "listing", "file"]
    export: str
    name: str
    headers: Mapping[str, str] = field(repr=False)


class FakeExport:
    """An export of a FakeService, which can change as those of the real service do."""

    def __init__(self, backend: FakeBackend, row: dict[str, Any]) -> None:
        self._backend = backend
        self._row = row

    @property
    def id(self) -> str:
        """Id of the export, which is also the version that a mirror gives it."""
        return str(self._row["id"])

    @property
    def imodel(self) -> str:
        """Id of the iModel: the SOURCE of a mirror."""
        return str(self._row["request"]["iModelId"])

    @property
    def changeset(self) -> str:
        """Id of the changeset that was exported."""
        return str(self._row["request"]["changesetId"])

    @property
    def files(self) -> dict[str, bytes]:
        """Bytes of each file by its name."""
        return {name: blob.data for name, blob in self._backend.containers[self.id].items()}

    def set_status(self, status: ExportStatus) -> None:
        """Change the state, such as from InProgress to Complete."""
        self._row["status"] = status

    def replace_files(self, files: Files) -> None:
        """Give the export other files, as if the service had generated it again."""
        modified = datetime.fromisoformat(self._row["lastModified"]) + timedelta(seconds=1)
        self._backend.containers[self.id] = make_blobs(_read_files(files))
        self._row["lastModified"] = _format_time(modified)

    def delete(self) -> None:
        """Delete the export and its files, as the service does with old ones."""
        self._backend.exports.remove(self._row)
        del self._backend.containers[self.id]

    def create_link(self) -> Secret:
        """Create a container link (SAS), which `tilesync.mirror` takes as its source."""
        return Secret(self._backend.create_link(self.id))


class FakeService:
    """Fake of the Mesh Export service and the containers of its exports, on loopback.

    `link_lifetime`: how long a container link is valid. `latency`: how long each response of a container takes.

    A fault applies to the next `times` requests that match (None: to all); if several faults match a request, the first
    one applies. With `name`, a fault matches only requests for files whose name matches this glob, as `include` of a
    mirror does. If the `with` block ends without an error, but a fault was never hit, it raises AssertionError.
    """

    def __init__(
        self, *, link_lifetime: timedelta = timedelta(hours=1), latency: timedelta = timedelta(seconds=0)
    ) -> None:
        self._backend = FakeBackend(link_lifetime=link_lifetime, delay_s=latency.total_seconds())
        self._faults: list[tuple[str, Fault]] = []
        self._closing = threading.Event()
        self._export_count = 0

    def __enter__(self) -> Self:
        self._closing.clear()
        self._backend.__enter__()
        try:
            if (proxy := load_proxies().proxy_for(self.url)) is not None:
                raise UsageError(
                    f"{proxy.setting} sends requests for 127.0.0.1 to a proxy", hint="add 127.0.0.1 to NO_PROXY"
                )
        except UsageError:
            self._backend.__exit__()
            raise
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        self._closing.set()
        self._backend.__exit__()
        idle = [text for text, fault in self._faults if not fault.hits]
        if kind is None and idle:
            raise AssertionError(f"no request met {', '.join(idle)}")

    # --- how to connect to it ---

    @property
    def url(self) -> str:
        """Base URL of the Mesh Export API, for `api_url`."""
        return self._backend.url

    def auth(self) -> Token:
        """Return an identity that the service accepts."""
        return Token(self._backend.token)

    def options(self) -> ConnectionOptions:
        """Return `auth` and `api_url`: options of `mirror`, `plan`, `exports`, `viewer_link` and `doctor`."""
        return {"auth": self.auth(), "api_url": self.url}

    def environ(self) -> dict[str, str]:
        """Return environment variables with the same meaning, which override any other identity, for programs."""
        others = {"TILESYNC_TOKEN_FILE": "", "TILESYNC_TOKEN_COMMAND": ""}
        return {"TILESYNC_API_URL": self.url, "TILESYNC_TOKEN": self._backend.token, **others}

    # --- exports ---

    def add_export(
        self,
        files: Files | None = None,
        *,
        imodel: str = IMODEL,
        changeset: str | None = None,
        export_type: str = "3DTiles",
        status: ExportStatus = "Complete",
    ) -> FakeExport:
        """Add an export, the newest. Default: a city of 440 files and 8 MB; each time some of its buildings change.

        Raises NotADirectoryError if a folder is given that does not exist.
        """
        self._export_count += 1
        found = _build_city(self._export_count) if files is None else _read_files(files)
        row = self._backend.add_export(
            make_export_id(self._export_count),
            imodel,
            make_blobs(found),
            status=status,
            lastModified=_format_time(_FIRST_MODIFIED + timedelta(minutes=self._export_count)),
        )
        row["request"] |= {"exportType": export_type} | ({"changesetId": changeset} if changeset else {})
        return FakeExport(self._backend, row)

    # --- faults ---

    def fail_next(
        self,
        status: int = 503,
        *,
        on: RequestKind = "any",
        name: str | None = None,
        times: int | None = 1,
        retry_after: timedelta | None = None,
    ) -> None:
        """Respond with this HTTP status; `retry_after`, in whole seconds, is sent as `Retry-After`.

        A mirror retries 429 and 5xx within `retry_for`, and renews its link after a 403 of a container. Raises
        ValueError for a status that is no error.
        """
        if not 400 <= status <= 599:
            raise ValueError(f"{status} is no error status of HTTP")
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after.total_seconds():.0f}"}

        def effect(request: FakeRequest, _: Callable[[], FakeResponse]) -> FakeResponse:
            make_error = api_error if request.is_api else storage_error
            response = make_error(status, _ERROR_CODES.get(status, "Error"), "a fault of the test")
            return replace(response, headers={**response.headers, **headers})

        self._add_fault(f"fail_next({status})", effect, on, name, times)

    def delay_next(
        self, delay: timedelta, *, on: RequestKind = "any", name: str | None = None, times: int | None = 1
    ) -> None:
        """Send the response after this delay."""

        def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
            self._closing.wait(delay.total_seconds())
            return proceed()

        self._add_fault(f"delay_next({delay})", effect, on, name, times)

    def break_next(self, *, on: RequestKind = "file", name: str | None = None, times: int | None = 1) -> None:
        """Break the connection in the middle of the response. A mirror asks again for the rest or the whole."""

        def effect(_: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
            response = proceed()
            return replace(response, sent_bytes=len(response.body) // 2)

        self._add_fault("break_next()", effect, on, name, times)

    def expire_links(self) -> None:
        """Refuse all container links created so far (403). A mirror of an iModel gets a fresh one."""
        self._backend.revoke_links()

    def refuse_identity(self, status: Literal[401, 403] = 401) -> None:
        """Refuse every identity: its token (401), or its access to the iModel (403). Raises NotAuthorised in a call."""
        self.fail_next(status, on="api", times=None)

    def clear_faults(self) -> None:
        """End all faults."""
        self._faults.clear()
        self._backend.faults.clear()

    def _add_fault(self, text: str, effect: Effect, on: RequestKind, name: str | None, times: int | None) -> None:
        is_named = make_matcher((name,)) if name is not None else None

        def matches(request: FakeRequest) -> bool:
            received = _describe(request)
            if is_named is not None:
                return received.kind == "file" and is_named(received.name)
            return on in {"any", received.kind}

        fault = self._backend.add_fault(matches, effect, times=times, optional=True)
        self._faults.append((f"{text} for {name or on}", fault))

    # --- requests ---

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """All requests so far, in the order of their arrival."""
        return tuple(map(_describe, self._backend.requests))


_ERROR_CODES = {403: "AuthenticationFailed", 404: "BlobNotFound", 500: "InternalError", 503: "ServerBusy"}
"""Error codes of Azure Blob Storage. Source: "Common REST API error codes", "Blob Storage error codes"."""


@lru_cache(maxsize=EDITION_COUNT)
def _build_city(number: int) -> dict[str, bytes]:
    return build_city(edition=(number - 1) % EDITION_COUNT + 1)


def _read_files(files: Files) -> Mapping[str, bytes]:
    if isinstance(files, Mapping):
        return files
    folder = Path(files)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _format_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _describe(request: FakeRequest) -> ReceivedRequest:
    headers = {name.lower(): value for name, value in request.headers.items()}
    if request.is_api:
        return ReceivedRequest("api", "", "", headers)
    container, name = request.container_and_name
    return ReceivedRequest("listing" if request.is_listing else "file", container, name, headers)
