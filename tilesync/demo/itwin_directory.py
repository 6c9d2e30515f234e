"""iTwins and iModels of the fake service: its iModels API and its iTwins API, and what an identity may see.

Sources: iModels API v2, "Get iTwin iModels"; iTwins API, "Get my iTwins".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tilesync.demo.loopback_server import FakeRequest, FakeResponse

DEFAULT_TOP, MAX_TOP = 100, 1000
"""Rows of a page if `$top` is absent, and the largest `$top`."""

DEFAULT_MAX_RETURN = 1000
"""Rows that the iTwins API lists in all, over all pages, unless `X-Max-Return` asks for another number."""


@dataclass
class FakeITwin:
    """An iTwin. With `token`, only that token sees it. `refusal`: status of each call for it, 401 or 403."""

    id: str
    name: str
    token: str | None = None
    refusal: int | None = None


@dataclass
class FakeIModel:
    """An iModel of an iTwin."""

    id: str
    itwin: str
    name: str


class ITwinDirectory:
    """iTwins and iModels by their ids in lower case, in the order in which they were added."""

    def __init__(self) -> None:
        self.itwins: dict[str, FakeITwin] = {}
        self.imodels: dict[str, FakeIModel] = {}

    def find_refusal(self, imodel: str, token: str) -> int | None:
        """Return the status with which calls for an iModel are refused; None if they are not, or it is unknown."""
        known = self.imodels.get(imodel.lower())
        itwin = self.itwins.get(known.itwin) if known is not None else None
        return _find_refusal(itwin, token) if itwin is not None else None

    def accepts(self, token: str) -> bool:
        """Return whether a token belongs to an iTwin."""
        return any(itwin.token == token for itwin in self.itwins.values())

    def list_imodels(self, request: FakeRequest, token: str, url: str) -> FakeResponse:
        """Respond as the list of the iModels of an iTwin does."""
        itwin_id = request.query.get("iTwinId", "")
        if not itwin_id:
            return api_error(422, "InvalidiModelsRequest", "Cannot get iModels.", ("iTwinId", "Required."))
        itwin = self.itwins.get(itwin_id.lower())
        if itwin is None:
            return api_error(404, "iTwinNotFound", "Requested iTwin is not available.")
        if status := _find_refusal(itwin, token):
            return refuse(status)
        rows = [self._build_row(imodel, request) for imodel in self.imodels.values() if imodel.itwin == itwin.id]
        return _respond_with_page("iModels", rows, request, f"{url}/imodels/")

    def list_itwins(self, request: FakeRequest, token: str, url: str) -> FakeResponse:
        """Respond as the list of the iTwins of an identity does: others are left out, not refused."""
        rows = [
            {
                "id": itwin.id,
                "class": "Endeavor",
                "subClass": "Project",
                "type": None,
                "number": itwin.id,
                "displayName": itwin.name,
                "status": "Active",
            }
            for itwin in self.itwins.values()
            if _find_refusal(itwin, token) is None
        ]
        most = int(request.headers.get("x-max-return") or DEFAULT_MAX_RETURN)
        return _respond_with_page("iTwins", rows[:most], request, f"{url}/itwins/")

    @staticmethod
    def _build_row(imodel: FakeIModel, request: FakeRequest) -> dict[str, Any]:
        row = {"id": imodel.id, "displayName": imodel.name, "dataCenterLocation": "East US"}
        if "return=representation" not in (request.headers.get("prefer") or ""):
            return row
        return {
            **row,
            "name": imodel.name,
            "description": "",
            "state": "initialized",
            "createdDateTime": "2026-01-05T10:00:00Z",
            "lastChangesetPushDateTime": None,
            "iTwinId": imodel.itwin,
            "isSecured": False,
        }


def _find_refusal(itwin: FakeITwin, token: str) -> int | None:
    if itwin.refusal is not None:
        return itwin.refusal
    return 403 if itwin.token not in {None, token} else None


def _respond_with_page(name: str, rows: Sequence[Mapping[str, Any]], request: FakeRequest, url: str) -> FakeResponse:
    top, skip = int(request.query.get("$top", DEFAULT_TOP)), int(request.query.get("$skip", "0"))
    if not 0 < top <= MAX_TOP:
        return api_error(
            422, f"Invalid{name}Request", f"Cannot get {name}.", ("$top", f"It must be from 1 to {MAX_TOP}.")
        )
    others = {key: value for key, value in request.query.items() if key not in {"$top", "$skip"}}

    def link(first: int) -> dict[str, str]:
        query = urlencode({**others, "$skip": first, "$top": top}, safe="$,")
        return {"href": f"{url}?{query}"}

    links = {
        "self": link(skip),
        "prev": link(max(0, skip - top)) if skip else None,
        "next": link(skip + top) if skip + top < len(rows) else None,
    }
    body = json.dumps({name: rows[skip : skip + top], "_links": links}).encode()
    return FakeResponse(200, body, {"Content-Type": "application/json"})


def refuse(status: int) -> FakeResponse:
    """Build the refusal of an identity: 401 or 403."""
    if status == 401:
        return api_error(401, "HeaderNotFound", "Header Authorization was not found in the request. Access denied.")
    return api_error(status, "InsufficientPermissions", "The user has insufficient permissions for this operation.")


def api_error(status: int, code: str, message: str, *details: tuple[str, str]) -> FakeResponse:
    """Build an error response in the format of the iTwin Platform; `details`: pairs of a parameter and its mistake."""
    error: dict[str, Any] = {"code": code, "message": message}
    if details:
        error["details"] = [
            {"code": "InvalidValue", "message": mistake, "target": target} for target, mistake in details
        ]
    return FakeResponse(status, json.dumps({"error": error}).encode(), {"Content-Type": "application/json"})
