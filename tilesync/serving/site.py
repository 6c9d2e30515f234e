"""The site of the server: the viewer page at `/`, and its files and JSON documents below `/_tilesync/`."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from itertools import chain, islice, starmap
from typing import TYPE_CHECKING, Any, Final

from tilesync import __version__
from tilesync.errors import TilesyncError
from tilesync.runtime.threads import run_in_thread
from tilesync.serving.access import OneTimeCode, TokenGuard, remove_secrets
from tilesync.serving.application import AsgiApplication, ServedSite, classify_failure, find_own_hint
from tilesync.serving.conditions import is_known
from tilesync.serving.tilesets import ServedTileset
from tilesync.serving.viewer_page import ViewerBundle

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

LINES_PER_WRITE: Final = 1000
"""Lines of a difference that one call in a thread makes."""

_NO_CACHE: Final = {"cache-control": "no-cache"}


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
        try:
            entry = dict(await tileset.describe())
        except TilesyncError as error:
            entry = {"title": name, "kind": tileset.kind, "current": None, "follow": False, "versions": []}
            entry["error"] = str(error)
        versions = [{**each, "url": f"{base}{each['url']}"} for each in entry.pop("versions")]
        return {"name": name, "base": base, "url": f"{base}tileset.json", **entry, "versions": versions}

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
        return JSONResponse(found, headers=_NO_CACHE)

    async def compare(self, request: Request) -> Response:
        """Send the differences between two versions, a line each. An error before the first line has a status."""
        from starlette.responses import StreamingResponse

        tileset, query = self._find_tileset(request), request.query_params
        if tileset is None:
            return _make_error(404, "no tileset has this name", "site.json lists the tilesets")
        lines = await tileset.diff_lines(query.get("a", ""), query.get("b", ""))
        first = await run_in_thread(partial(_take_lines, lines))
        return StreamingResponse(_stream_lines(first, lines), media_type="application/jsonl", headers=_NO_CACHE)


def _take_lines(lines: Iterator[Mapping[str, Any]]) -> bytes:
    return b"".join(chain.from_iterable((_encode(line), b"\n") for line in islice(lines, LINES_PER_WRITE)))


async def _stream_lines(first: bytes, lines: Iterator[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    """Yield lines in large pieces. A failure in the middle is the last line."""
    piece = first
    try:
        while piece:
            yield piece
            piece = await run_in_thread(partial(_take_lines, lines))
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
    status, sentence, headers = classify_failure(error, str(error))
    texts = {name.decode(): value.decode() for name, value in headers}
    return _make_error(status, sentence, find_own_hint(error), texts)
