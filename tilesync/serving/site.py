"""The site of the server: the viewer page at `/`, and its files and JSON documents below `/_tilesync/`."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import asdict, replace
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tilesync import __version__
from tilesync.errors import TilesyncError
from tilesync.serving.access import OneTimeCode, TokenGuard, remove_secrets
from tilesync.serving.application import (
    AsgiApplication,
    Receive,
    Scope,
    Send,
    ServedSite,
    classify_failure,
    find_own_hint,
)
from tilesync.serving.comparisons import DiffLines
from tilesync.serving.conditions import is_known
from tilesync.serving.tilesets import ServedTileset, TilesetEntry
from tilesync.serving.viewer_page import ViewerBundle

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")

_NO_CACHE: Final = {"cache-control": "no-cache"}
_LINES_HEADERS: Final = [(b"content-type", b"application/jsonl"), (b"cache-control", b"no-cache")]


def create_site(served: ServedSite, guard: TokenGuard, code: OneTimeCode) -> AsgiApplication:
    """Create the application for `/` and `/_tilesync/`. `code` lets a browser in without the token."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    site = _Site(served, guard, code, ViewerBundle())
    return Starlette(
        routes=[
            Route("/", site.show_page),
            Route("/_tilesync/site.json", site.describe),
            Route("/_tilesync/file.json", site.find_file),
            Route("/_tilesync/diff.jsonl", site.compare),
            Route("/_tilesync/{name}", site.send_viewer_file),
        ],
        exception_handlers={404: _answer_not_found, TilesyncError: _answer_failed},
    )


class _Site:
    def __init__(self, served: ServedSite, guard: TokenGuard, code: OneTimeCode, viewer: ViewerBundle) -> None:
        self._served = served
        self._code = code
        self._guard = guard
        self._viewer = viewer

    async def show_page(self, request: Request) -> Response:
        """Send the viewer page. A token or a one-time code in the query becomes a cookie, out of the address."""
        from starlette.responses import RedirectResponse

        query = request.scope["query_string"]
        if not self._guard.is_in_query(query) and not self._code.redeem(query):
            return self._viewer.respond("index.html", request)
        rest = remove_secrets(query)
        headers = {
            "set-cookie": self._guard.make_cookie(),
            "cache-control": "no-store",
        }
        return RedirectResponse(f"/?{rest}" if rest else "/", 303, headers)

    async def send_viewer_file(self, request: Request) -> Response:
        """Send a file of the viewer page."""
        return self._viewer.respond(request.path_params["name"], request)

    async def describe(self, request: Request) -> Response:
        """Send `site.json`. Its ETag tells whether a version came or went."""
        from starlette.responses import Response

        entries = await asyncio.gather(*starmap(self._describe, self._served.tilesets.items()))
        body = _encode({"tilesync": __version__, "tilesets": entries})
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"etag": etag, **_NO_CACHE}
        if is_known(etag, request.headers.get("if-none-match", "").encode("latin-1")):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    async def _describe(self, name: str, tileset: ServedTileset) -> Mapping[str, Any]:
        """Return the entry of a tileset. One whose place does not answer has an error, and no versions."""
        base = self._served.base(name)
        failure = {}
        try:
            entry = await tileset.describe()
        except TilesyncError as error:
            entry = TilesetEntry(title=name, kind=tileset.kind, current=None)
            failure = {"error": str(error)}
        versions = [{**asdict(each), "url": f"{base}{each.url}"} for each in entry.versions]
        row = asdict(replace(entry, versions=()))
        return {"name": name, "base": base, "url": f"{base}tileset.json", **row, **failure, "versions": versions}

    def _find_tileset(self, request: Request) -> ServedTileset | None:
        """Return the tileset that a query names; without a name the only one."""
        tilesets = self._served.tilesets
        name = request.query_params.get("tileset", "")
        return next(iter(tilesets.values())) if not name and len(tilesets) == 1 else tilesets.get(name)

    async def find_file(self, request: Request) -> Response:
        """Send what is known of a file."""
        from starlette.responses import JSONResponse

        tileset, query = self._find_tileset(request), request.query_params
        if tileset is None:
            return _make_error(404, "no tileset has this name", "site.json lists the tilesets")
        found = await tileset.find_file(query.get("version", ""), query.get("name", ""))
        if found is None:
            return _make_error(404, "the version has no file of this name", "")
        return JSONResponse(asdict(found), headers=_NO_CACHE)

    async def compare(self, request: Request) -> Response | _LinesResponse:
        """Send the differences between two versions, a line each."""
        from starlette.responses import Response

        tileset, query = self._find_tileset(request), request.query_params
        if tileset is None:
            return _make_error(404, "no tileset has this name", "site.json lists the tilesets")
        lines = await _run_unless_gone(tileset.diff_lines(query.get("a", ""), query.get("b", "")), request.receive)
        return Response() if lines is None else _LinesResponse(lines)


async def _run_unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """Return the result of `work`. If the client leaves before, stop it and return None."""
    running, gone = asyncio.create_task(work), asyncio.create_task(_wait_until_gone(receive))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        return running.result() if running.done() else None
    finally:
        gone.cancel()
        if running.cancel():
            await asyncio.wait({running})


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _LinesResponse:
    """Response with the lines of a comparison, which it closes, also if the client leaves."""

    def __init__(self, lines: DiffLines) -> None:
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_wait_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _LINES_HEADERS})
            async for piece in self._pieces():
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            self._lines.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Yield the lines. A failure in the middle is the last line."""
        try:
            while piece := await self._lines.read():
                yield piece
        except TilesyncError as error:
            yield _encode(error.to_dict()) + b"\n"


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _make_error(status: int, sentence: str, hint: str, headers: Mapping[str, str] | None = None) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(
        {"error": sentence, "hint": hint}, status, headers={"cache-control": "no-store", **(headers or {})}
    )


async def _answer_not_found(request: Request, error: Exception) -> Response:
    return _make_error(404, "there is no such file here", "")


async def _answer_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, TilesyncError)
    status, headers = classify_failure(error)
    texts = {name.decode(): value.decode() for name, value in headers}
    return _make_error(status, str(error), find_own_hint(error), texts)
