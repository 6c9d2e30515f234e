"""Fake service on loopback: the APIs for iTwins, iModels and exports, and Azure containers with SAS links.

It responds like the real service and Azure Blob Storage in everything that tilesync depends on. Tests add faults.
Sources: Mesh Export API, get-exports; Azure Blob Storage REST, "List Blobs", "Get Blob", "Create a service SAS".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from tilesync.demo.api_rate import ApiCallLog, RateLimit
from tilesync.demo.faults import Effect, Fault, RequestMatcher
from tilesync.demo.itwin_directory import FakeIModel, FakeITwin, ITwinDirectory, api_error, refuse
from tilesync.demo.loopback_server import FakeRequest, FakeResponse, LoopbackServer, http_date


@dataclass
class StoredBlob:
    """A stored blob; `md5` is the base64 MD5 that the uploader gave (empty: none)."""

    data: bytes
    content_type: str = "application/octet-stream"
    content_encoding: str = ""
    md5: str = ""
    etag: str = ""
    modified: datetime = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)

    def __post_init__(self) -> None:
        self.etag = self.etag or f"0x8D{hashlib.sha256(self.data).hexdigest()[:13].upper()}"


class FakeBackend:
    """Fake service that can be changed while it runs; `requests` records every request. Runs in its `with` block.

    If the block ends without an error, every declared fault must have been hit.

    `link_lifetime` starts when a link is created; a link becomes valid `link_start_delay` after that. `delay_s`
    delays each response of the storage, `api_delay_s` each of the API; the responses do not wait for each other.
    `clock_offset`: how far the clock of this server is ahead of the machine's.
    """

    def __init__(
        self,
        *,
        link_lifetime: timedelta = timedelta(hours=1),
        delay_s: float = 0.0,
        api_delay_s: float = 0.0,
        page_size: int = 5000,
    ) -> None:
        self.link_lifetime = link_lifetime
        self.delay_s = delay_s
        self.api_delay_s = api_delay_s
        self.page_size = page_size
        self.clock_offset = timedelta()
        self.link_start_delay = timedelta()
        self.token = "demo"
        self.directory = ITwinDirectory()
        self.api_calls = ApiCallLog()
        """Calls of the API as this server counts them; requests to the storage and for tokens do not count."""
        self.exports: list[dict[str, Any]] = []
        self.containers: dict[str, dict[str, StoredBlob]] = {}
        self.revoked_before = 0
        self.requests: list[FakeRequest] = []
        self.faults: list[Fault] = []
        self._key = b"a key of the fake service"
        self._lock = threading.Lock()
        self._links_issued = 0
        self._server: LoopbackServer | None = None

    # --- iTwins and iModels ---

    def add_itwin(self, itwin_id: str, display_name: str, *, token: str | None = None) -> FakeITwin:
        """Add an iTwin; with `token`, only this token sees it, otherwise every accepted token does."""
        itwin = self.directory.itwins[itwin_id.lower()] = FakeITwin(itwin_id.lower(), display_name, token)
        return itwin

    def add_imodel(self, imodel_id: str, itwin: str, display_name: str) -> FakeIModel:
        """Add an iModel to an iTwin."""
        imodel = FakeIModel(imodel_id.lower(), itwin.lower(), display_name)
        self.directory.imodels[imodel.id] = imodel
        return imodel

    def rename_imodel(self, imodel_id: str, display_name: str) -> None:
        """Change the display name of an iModel."""
        self.directory.imodels[imodel_id.lower()].name = display_name

    def remove_imodel(self, imodel_id: str) -> None:
        """Remove an iModel with its exports and their containers."""
        del self.directory.imodels[imodel_id.lower()]
        for row in _rows_of_imodel(self.exports, imodel_id):
            self.exports.remove(row)
            self.containers.pop(row["id"], None)

    def forbid(self, itwin: str, status: int | None = 403) -> None:
        """Refuse each call for an iTwin and its iModels with 401 or 403; None permits them again."""
        self.directory.itwins[itwin.lower()].refusal = status

    @property
    def rate_limit(self) -> RateLimit | None:
        """Rate limit of the API, enforced by 429 with Retry-After; None for none."""
        return self.api_calls.limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        """Set the rate limit; calls so far count."""
        self.api_calls.limit = limit

    # --- exports and links ---

    def add_export(self, export_id: str, imodel: str, blobs: dict[str, StoredBlob], **changes: Any) -> dict[str, Any]:
        """Add a container, and its export as the newest row of the list; `changes` override fields of the row."""
        row = {
            "id": export_id,
            "displayName": "Demo city",
            "status": "Complete",
            "lastModified": "2026-03-01T08:30:00Z",
            "request": {"iModelId": imodel, "changesetId": hashlib.sha1(export_id.encode()).hexdigest()},
            "stats": {"compressedSize": sum(len(blob.data) for blob in blobs.values())},
            **changes,
        }
        row["request"].setdefault("exportType", "3DTiles")
        self.containers[export_id] = blobs
        self.exports.insert(0, row)
        return row

    def create_link(self, container: str) -> str:
        """Create a SAS link to a container."""
        with self._lock:
            self._links_issued += 1
            number = self._links_issued
        end = (self.now() + self.link_lifetime).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        fields = {"sv": "2024-05-04", "spr": "https,http", "se": end, "sr": "c", "sp": "rl", "n": str(number)}
        if self.link_start_delay:
            fields["st"] = (self.now() + self.link_start_delay).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return f"{self.url}/{container}?{urlencode({**fields, 'sig': self._sign(container, end, number)})}"

    def _sign(self, container: str, end: str, number: int) -> str:
        text = f"{container}\n{end}\n{number}".encode()
        return base64.b64encode(hmac.digest(self._key, text, "sha256")).decode()

    def revoke_links(self) -> None:
        """Refuse all links created so far."""
        self.revoked_before = self._links_issued + 1

    def now(self) -> datetime:
        """Return the time of this server's clock."""
        return datetime.now(UTC) + self.clock_offset

    # --- the server on loopback ---

    @property
    def url(self) -> str:
        """Base URL of the server."""
        assert self._server is not None
        return self._server.url

    def __enter__(self) -> Self:
        self._server = LoopbackServer(self.respond, self.now)
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        assert self._server is not None
        self._server.stop()
        idle = [fault for fault in self.faults if not fault.hits and not fault.optional]
        if kind is None and idle:
            raise AssertionError(f"{len(idle)} declared faults were never hit: {idle}")

    # --- responses ---

    def add_fault(self, when: RequestMatcher, effect: Effect, **how: Any) -> Fault:
        """Declare a fault. If several match a request, the first applies."""
        fault = Fault(when, effect, **how)
        self.faults.append(fault)
        return fault

    def respond(self, request: FakeRequest) -> FakeResponse:
        """Respond to one request, with faults."""
        with self._lock:
            self.requests.append(request)
        wait_s = self.api_calls.record() if request.is_api else None
        if delay_s := self.api_delay_s if request.is_api else self.delay_s:
            time.sleep(delay_s)
        if wait_s is not None:
            return throttle(wait_s)
        for fault in self.faults:
            if fault.should_apply(request):
                return fault.effect(request, lambda: self.respond_without_faults(request))
        return self.respond_without_faults(request)

    def respond_without_faults(self, request: FakeRequest) -> FakeResponse:
        """Respond as the API or the storage does."""
        return self.respond_api(request) if request.is_api else self.respond_storage(request)

    def respond_api(self, request: FakeRequest) -> FakeResponse:
        """Respond as the API of the path does."""
        token = (request.headers.get("authorization") or "").removeprefix("Bearer ")
        if token != self.token and not self.directory.accepts(token):
            return refuse(401)
        match request.path.strip("/"):
            case "mesh-export":
                return self._list_exports(request, token)
            case "imodels":
                return self.directory.list_imodels(request, token, self.url)
            case "itwins":
                return self.directory.list_itwins(request, token, self.url)
        return api_error(404, "NotFound", "There is no such operation.")

    def _list_exports(self, request: FakeRequest, token: str) -> FakeResponse:
        if status := self.directory.find_refusal(request.query.get("iModelId", ""), token):
            return refuse(status)
        rows = [
            row
            for row in _rows_of_imodel(self.visible_exports(), request.query.get("iModelId", ""))
            if _matches_query(row, request.query) and not self.directory.find_refusal(_imodel_of(row), token)
        ]
        top, skip = int(request.query.get("$top", "100")), int(request.query.get("$skip", "0"))
        page = [self._build_export_row(row, request) for row in rows[skip : skip + top]]
        links = {"self": {"href": f"{self.url}/mesh-export/?$top={top}&$skip={skip}"}}
        if skip + top < len(rows):
            links["next"] = {"href": f"https://elsewhere.invalid/mesh-export/?$top={top}&$skip={skip + top}"}
        return FakeResponse(
            200, json.dumps({"exports": page, "_links": links}).encode(), {"Content-Type": "application/json"}
        )

    def visible_exports(self) -> list[dict[str, Any]]:
        """Return the rows that the API lists now."""
        return self.exports

    def _build_export_row(self, row: dict[str, Any], request: FakeRequest) -> dict[str, Any]:
        if "return=representation" not in (request.headers.get("prefer") or ""):
            return {key: row[key] for key in ("id", "displayName", "status", "lastModified")}
        return {**row, "_links": {"mesh": {"href": self.create_link(row["id"])}}}

    def respond_storage(self, request: FakeRequest) -> FakeResponse:
        """Respond as Azure Blob Storage does."""
        container, name = request.container_and_name
        if problem := self._find_auth_error(container, request.query):
            return storage_error(403, "AuthenticationFailed", problem)
        blobs = self.containers.get(container)
        if blobs is None:
            return storage_error(404, "ContainerNotFound", "The specified container does not exist.")
        if request.is_listing and name:
            return storage_error(400, "InvalidQueryParameterValue", "A listing is of a container, not of a blob.")
        if request.is_listing:
            return self.list_blobs(container, blobs, request.query)
        blob = blobs.get(name)
        if blob is None:
            return storage_error(404, "BlobNotFound", "The specified blob does not exist.")
        return get_blob(blob, request.headers)

    def _find_auth_error(self, container: str, query: dict[str, str]) -> str | None:
        end, number = query.get("se", ""), int(query.get("n", "0"))
        if not hmac.compare_digest(query.get("sig", ""), self._sign(container, end, number)):
            return "Signature did not match."
        if (start := query.get("st")) and datetime.fromisoformat(start) > self.now():
            return f"Signature not valid in the specified time frame: Start [{start}] - Current [{self.now()}]"
        if number < self.revoked_before:
            return "The key was rotated."
        if datetime.fromisoformat(end) <= self.now():
            return f"Signature not valid in the specified time frame: Expiry [{end}] - Current [{self.now()}]"
        return None

    def list_blobs(self, container: str, blobs: dict[str, StoredBlob], query: dict[str, str]) -> FakeResponse:
        """Return one page of List Blobs."""
        names = sorted(name for name in blobs if name.startswith(query.get("prefix", "")))
        start = int(query.get("marker", "0!0").rpartition("!")[2])
        end = start + min(self.page_size, int(query.get("maxresults", "5000")))
        entries = "".join(_build_listing_entry(name, blobs[name]) for name in names[start:end])
        marker = f"2!{end}" if end < len(names) else ""
        page = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{self.url}/"'
            f' ContainerName="{container}"><MaxResults>{end - start}</MaxResults><Blobs>{entries}</Blobs>'
            f"<NextMarker>{marker}</NextMarker></EnumerationResults>"
        )
        return FakeResponse(200, page.encode(), {"Content-Type": "application/xml"})


def _imodel_of(row: dict[str, Any]) -> str:
    return str(row["request"].get("iModelId", ""))


def _rows_of_imodel(rows: list[dict[str, Any]], imodel: str) -> list[dict[str, Any]]:
    """Return the rows of one iModel, or all rows if it is empty; a fleet asks a thousand times among a thousand."""
    wanted = imodel.lower()
    return [row for row in rows if not wanted or _imodel_of(row).lower() == wanted]


def _matches_query(row: dict[str, Any], query: dict[str, str]) -> bool:
    request = row["request"]
    return all(
        not query.get(key) or str(request.get(field, "")).lower() == query[key].lower()
        for key, field in (("changesetId", "changesetId"), ("exportType", "exportType"))
    )


def _build_listing_entry(name: str, blob: StoredBlob) -> str:
    encoded = any(ord(letter) < 32 or letter in "\ufffe\uffff" for letter in name)
    name_xml = f'<Name Encoded="true">{quote(name)}</Name>' if encoded else f"<Name>{escape(name)}</Name>"
    return (
        f"<Blob>{name_xml}<Properties><Creation-Time>{http_date(blob.modified)}</Creation-Time>"
        f"<Last-Modified>{http_date(blob.modified)}</Last-Modified><Etag>{blob.etag}</Etag>"
        f"<Content-Length>{len(blob.data)}</Content-Length><Content-Type>{blob.content_type}</Content-Type>"
        f"<Content-Encoding>{blob.content_encoding}</Content-Encoding><Content-Language />"
        f"<Content-MD5>{blob.md5}</Content-MD5><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier>"
        f"<LeaseStatus>unlocked</LeaseStatus></Properties><OrMetadata /></Blob>"
    )


def get_blob(blob: StoredBlob, headers: Any) -> FakeResponse:
    """Respond to Get Blob with the stored bytes; conditions and ranges are supported."""
    if (wanted := headers.get("if-match")) and wanted not in {f'"{blob.etag}"', "*"}:
        return storage_error(412, "ConditionNotMet", "The condition specified in the headers is not met.")
    if headers.get("if-none-match") == f'"{blob.etag}"':
        return FakeResponse(304, b"", {"ETag": f'"{blob.etag}"'})
    response_headers = {
        "ETag": f'"{blob.etag}"',
        "Last-Modified": http_date(blob.modified),
        "Content-Type": blob.content_type,
    }
    if blob.content_encoding:
        response_headers["Content-Encoding"] = blob.content_encoding
    size = len(blob.data)
    if range_header := headers.get("range"):
        first, _, last = range_header.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if start >= size:
            return storage_error(416, "InvalidRange", "The range specified is invalid.")
        response_headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return FakeResponse(206, blob.data[start:end], response_headers)
    if blob.md5:
        response_headers["Content-MD5"] = blob.md5
    return FakeResponse(200, blob.data, response_headers)


def storage_error(status: int, code: str, message: str) -> FakeResponse:
    """Build an error response in the format of Azure Blob Storage."""
    body = (
        f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>'
    )
    return FakeResponse(status, body.encode(), {"Content-Type": "application/xml", "x-ms-error-code": code})


def throttle(seconds: int) -> FakeResponse:
    """Build the response to a call beyond the rate limit."""
    response = api_error(
        429, "RateLimitExceeded", "The client sent more requests than allowed by this API for the current tier."
    )
    return FakeResponse(429, response.body, {**response.headers, "Retry-After": str(seconds)})
