"""Web server remedies: configuration lines for nginx and Caddy, and a description for other servers.

Sources: nginx (ngx_http_headers_module, ngx_http_map_module, ngx_http_core_module, "location"); Caddy (Caddyfile,
"Request matchers", "header"). docs/hosting.md has complete configurations of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tilesync.core.http_headers import IMMUTABLE_CACHE_CONTROL, REVALIDATE_CACHE_CONTROL
from tilesync.model.storage import ObjectHeaders
from tilesync.values import dataclass

NGINX_OUTSIDE_SERVER: Final = "nginx, outside `server { … }`:"
NGINX_INSIDE_SERVER: Final = "nginx, inside `server { … }`, replacing existing lines for the same header or path:"
CADDY_INSIDE_SITE: Final = "Caddy, inside the braces of the site, replacing existing lines for the same header or path:"
DECODE_HINT: Final = "store the files decoded (`tilesync mirror --content decoded`), or declare their encoding:"

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
    """Hints for a web server in front of a folder. `server`: its Server header, empty if unknown."""

    server: str = ""

    def for_server(self, server: str | None) -> WebServerRemedies:
        """Return the remedies for the server that answered."""
        return WebServerRemedies(server or "")

    def access(self) -> str:
        """Correct URL, and read permission for the server."""
        return (
            "--public-url must be the address of the folder itself, and the user of the server must be able to read it"
            " and the folders above it (check with `namei -l FOLDER/tileset.json`)"
        )

    def credentials(self) -> str:
        """Only those who have the token see the tiles, which may be intended."""
        return (
            "doctor checks what viewers without a token or a password get: this is right if only those who have it"
            " shall see the tiles; to check the rest, serve them without it"
        )

    def cors(self, origin: str) -> str:
        """A header that replaces one for other origins."""
        return self._choose_lines(
            f"every answer must have the header `Access-Control-Allow-Origin: {origin}`",
            [NGINX_INSIDE_SERVER, f'add_header Access-Control-Allow-Origin "{origin}" always;'],
            [f'header Access-Control-Allow-Origin "{origin}"'],
        )

    def preflight(self, origin: str) -> str:
        """Another header, and an answer to OPTIONS."""
        return self._choose_lines(
            "the answer to OPTIONS must be 204, and every answer must have the header"
            " `Access-Control-Allow-Headers: Range`",
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
        """A table of media types."""
        nginx = [
            f"    {media_type:<18} {' '.join(extensions)};" for media_type, extensions in _EXTENSIONS_BY_TYPE.items()
        ]
        caddy = list[str]()
        for media_type, extensions in _EXTENSIONS_BY_TYPE.items():
            caddy.append(f"@{extensions[0]} path {' '.join(f'*.{extension}' for extension in extensions)}")
            caddy.append(f"header @{extensions[0]} Content-Type {media_type}")
        return self._choose_lines(
            "the media type must follow from the file extension: "
            + ", ".join(
                f"{' '.join(extensions)} {media_type}" for media_type, extensions in _EXTENSIONS_BY_TYPE.items()
            ),
            [NGINX_INSIDE_SERVER, "types {", *nginx, "}", "default_type application/octet-stream;"],
            caddy,
        )

    def content_encoding(self, names: Sequence[str], headers: ObjectHeaders) -> str:
        """The Content-Encoding by file extension."""
        extensions = "|".join(sorted({name.rpartition("/")[2].rpartition(".")[2] for name in names}))
        pattern = f"/versions/.+\\.({extensions})$"
        lines = self._choose_lines(
            f"these files below versions/ ({extensions.replace('|', ', ')}) must have the header"
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
                "# and remove `encode`",
            ],
        )
        return f"{DECODE_HINT}\n{lines}"

    def caching(self, name: str, headers: ObjectHeaders) -> str:
        """A Cache-Control header by path."""
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
        """Block the state folders of all destinations below the root of the server."""
        return self._choose_lines(
            "the answer must be 404 for every path with a folder `.tilesync`, at any depth below the root",
            [NGINX_INSIDE_SERVER, "location ~* /\\.tilesync(/|$) {", "    return 404;", "}"],
            ["@state path */.tilesync */.tilesync/*", "error @state 404"],
        )

    def _choose_lines(self, rule: str, nginx: Sequence[str], caddy: Sequence[str]) -> str:
        """Return the lines for this server; for an unknown one, the rule and the lines of nginx."""
        server = self.server.lower()
        if server.startswith("caddy"):
            return "\n".join([CADDY_INSIDE_SITE, *caddy])
        if server.startswith(("nginx", "openresty")):
            return "\n".join(nginx)
        lead = f"the server calls itself {self.server}" if self.server else "the kind of server is unknown"
        return "\n".join([f"{lead}; {rule} (see its documentation); the lines for nginx:", *nginx])
