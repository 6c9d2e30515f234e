"""The viewer page and its files, which are part of the package, as responses."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from tilesync.serving.conditions import is_known

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

VIEWER_FOLDER: Final = "viewer_files"

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self' blob:",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self' blob: data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
"""Policy of the page: it loads nothing from other hosts. `blob:` and WebAssembly are for the decoders of tiles."""

WORKER_SECURITY_POLICIES: Final = {
    "basis_worker.js": "default-src 'none'; script-src 'unsafe-eval' 'wasm-unsafe-eval'",
}
"""Policies of workers with one of their own: the decoder of KTX2 makes functions of text. It can request nothing."""

_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "wasm": "application/wasm",
    "txt": "text/plain; charset=utf-8",
}

_PLAIN_PAGE: Final = b"""<!doctype html>
<meta charset="utf-8"><title>tilesync</title>
<p>This server has tilesets for viewers of 3D Tiles: <a href="/_tilesync/site.json">site.json</a> lists them.
"""
"""Page of an installation without the viewer."""


@dataclass(frozen=True)
class _ViewerFile:
    """A file of the page, plain and packed once."""

    data: bytes
    packed: bytes
    media_type: str
    digest: str


class ViewerBundle:
    """The files of the page. Each is read and packed at the first request for it."""

    def __init__(self) -> None:
        self._files: dict[str, _ViewerFile] = {}

    def respond(self, name: str, request: Request) -> Response:
        """Return the response with a file; 404 if there is none of this name."""
        from starlette.exceptions import HTTPException
        from starlette.responses import Response

        file = self._find(name) if name.rpartition(".")[2] in _MEDIA_TYPES and "/" not in name else None
        if file is None:
            raise HTTPException(404)
        accepts_gzip = "gzip" in request.headers.get("accept-encoding", "")
        etag = f'"{file.digest}-gzip"' if accepts_gzip else f'"{file.digest}"'
        headers = {
            "etag": etag,
            "cache-control": "no-cache",
            "vary": "Accept-Encoding",
            "content-security-policy": WORKER_SECURITY_POLICIES.get(name, CONTENT_SECURITY_POLICY),
            "referrer-policy": "no-referrer",
        }
        if is_known(etag, request.headers.get("if-none-match", "").encode("latin-1")):
            return Response(status_code=304, headers=headers)
        if accepts_gzip:
            headers["content-encoding"] = "gzip"
        return Response(file.packed if accepts_gzip else file.data, headers=headers, media_type=file.media_type)

    def _find(self, name: str) -> _ViewerFile | None:
        file = self._files.get(name) or _load_file(name)
        if file is not None:
            self._files[name] = file
        return file


def _load_file(name: str) -> _ViewerFile | None:
    entry = resources.files("tilesync.serving").joinpath(VIEWER_FOLDER, name)
    if not entry.is_file():
        if name != "index.html":
            return None
        data = _PLAIN_PAGE
    else:
        data = entry.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:32]
    return _ViewerFile(data, gzip.compress(data, 9, mtime=0), _MEDIA_TYPES[name.rpartition(".")[2]], digest)
