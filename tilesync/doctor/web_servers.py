"""Configuration lines that mend a web server before a folder: for nginx and Caddy as they write them, for others in
words.

Sources: nginx (ngx_http_headers_module, ngx_http_map_module, ngx_http_core_module, "location"); Caddy (Caddyfile,
"Request matchers", "header"). The README has whole configurations of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tilesync.core.http_headers import IMMUTABLE_CACHE_CONTROL, REVALIDATE_CACHE_CONTROL
from tilesync.model.storage import ObjectHeaders

NGINX_OUTSIDE_SERVER: Final = "nginx, beside `server { … }`:"
NGINX_INSIDE_SERVER: Final = "nginx, inside `server { … }`, in the place of what is there for it:"
CADDY_INSIDE_SITE: Final = "Caddy, inside the braces of the site, in the place of what is there for it:"
DECODE_HINT: Final = "have the files lie unpacked (`tilesync mirror --content decoded`), or say how they lie:"

_EXTENSIONS_BY_TYPE: Final = {
    "application/json": ("json", "geojson"),
    "model/gltf-binary": ("glb",),
    "model/gltf+json": ("gltf",),
    "image/png": ("png",),
    "image/jpeg": ("jpg", "jpeg"),
    "image/webp": ("webp",),
    "image/ktx2": ("ktx2",),
}


@dataclass(frozen=True)
class WebServerRemedies:
    """A web server before a folder. `server`: what it calls itself, empty where it does not say, or was not asked."""

    server: str = ""

    def for_server(self, server: str | None) -> WebServerRemedies:
        """The same, for the server that answered."""
        return WebServerRemedies(server or "")

    def access(self) -> str:
        """The address leads elsewhere, or the server may not read."""
        return (
            "--public-url must be the address of the folder itself, and the server's user must be able to read it and"
            " to enter the folders above (`namei -l FOLDER/tileset.json` shows)"
        )

    def cors(self, origin: str) -> str:
        """A header, in the place of one that lets others in."""
        return self._choose_lines(
            f"every answer must have the header `Access-Control-Allow-Origin: {origin}`",
            [NGINX_INSIDE_SERVER, f'add_header Access-Control-Allow-Origin "{origin}" always;'],
            [f'header Access-Control-Allow-Origin "{origin}"'],
        )

    def preflight(self, origin: str) -> str:
        """Another header, and an answer to OPTIONS."""
        return self._choose_lines(
            "OPTIONS must be answered with 204, and every answer have the header `Access-Control-Allow-Headers: Range`",
            [
                NGINX_INSIDE_SERVER,
                'add_header Access-Control-Allow-Headers "Range" always;',
                "if ($request_method = OPTIONS) {",
                "    return 204;",
                "}",
            ],
            ["header Access-Control-Allow-Headers Range", "@preflight method OPTIONS", "respond @preflight 204"],
        )

    def content_type(self, name: str, headers: ObjectHeaders) -> str:
        """The table of types."""
        nginx = [f"    {media:<18} {' '.join(endings)};" for media, endings in _EXTENSIONS_BY_TYPE.items()]
        caddy = list[str]()
        for media, endings in _EXTENSIONS_BY_TYPE.items():
            caddy.append(f"@{endings[0]} path {' '.join(f'*.{ending}' for ending in endings)}")
            caddy.append(f"header @{endings[0]} Content-Type {media}")
        return self._choose_lines(
            "the type of a file goes by the end of its name: "
            + ", ".join(f"{' '.join(endings)} {media}" for media, endings in _EXTENSIONS_BY_TYPE.items()),
            [NGINX_INSIDE_SERVER, "types {", *nginx, "}", "default_type application/octet-stream;"],
            caddy,
        )

    def content_encoding(self, names: Sequence[str], headers: ObjectHeaders) -> str:
        """The encoding, by the endings."""
        endings = "|".join(sorted({name.rpartition("/")[2].rpartition(".")[2] for name in names}))
        pattern = f"/versions/.+\\.({endings})$"
        lines = self._choose_lines(
            f"these files below versions/ ({endings.replace('|', ', ')}) must have the header"
            f" `Content-Encoding: {headers.content_encoding}`, and the server must not compress them again",
            [
                NGINX_OUTSIDE_SERVER,
                "map $uri $tiles_encoding {",
                '    default "";',
                f"    ~{pattern} {headers.content_encoding};",
                "}",
                NGINX_INSIDE_SERVER,
                "add_header Content-Encoding $tiles_encoding;",
                "gzip off;",
            ],
            [
                f"@packed path_regexp {pattern}",
                f"header @packed Content-Encoding {headers.content_encoding}",
                "# and without `encode`",
            ],
        )
        return f"{DECODE_HINT}\n{lines}"

    def caching(self, name: str, headers: ObjectHeaders) -> str:
        """A header by the path."""
        return self._choose_lines(
            f"files below versions/ must have the header `Cache-Control: {IMMUTABLE_CACHE_CONTROL}`, all others"
            f" `Cache-Control: {REVALIDATE_CACHE_CONTROL}`",
            [
                NGINX_OUTSIDE_SERVER,
                "map $uri $tiles_cache {",
                f"    default      {REVALIDATE_CACHE_CONTROL};",
                f"    ~/current/   {REVALIDATE_CACHE_CONTROL};",
                f'    ~/versions/  "{IMMUTABLE_CACHE_CONTROL}";',
                "}",
                NGINX_INSIDE_SERVER,
                "add_header Cache-Control $tiles_cache;",
            ],
            [
                "@versions {",
                "\tpath */versions/*",
                "\tnot path */current/*",
                "}",
                "@others not {",
                "\tpath */versions/*",
                "\tnot path */current/*",
                "}",
                f'header @versions Cache-Control "{IMMUTABLE_CACHE_CONTROL}"',
                f"header @others Cache-Control {REVALIDATE_CACHE_CONTROL}",
            ],
        )

    def hide_state(self) -> str:
        """The state's folder is nobody's business, of all destinations below the root of the server."""
        return self._choose_lines(
            "whatever has a folder `.tilesync` in its path must be answered with 404, wherever below the root it lies",
            [NGINX_INSIDE_SERVER, "location ~* /\\.tilesync(/|$) {", "    return 404;", "}"],
            ["@state path */.tilesync */.tilesync/*", "error @state 404"],
        )

    def _choose_lines(self, rule: str, nginx: Sequence[str], caddy: Sequence[str]) -> str:
        """The lines for this server; for one of another make what must hold, and how nginx says it."""
        known = self.server.lower()
        if known.startswith("caddy"):
            return "\n".join([CADDY_INSIDE_SITE, *caddy])
        if known.startswith(("nginx", "openresty")):
            return "\n".join(nginx)
        who = f"the server calls itself {self.server}" if self.server else "the server does not say what it is"
        return "\n".join([f"{who}; {rule} (its documentation tells how); nginx says it so:", *nginx])
