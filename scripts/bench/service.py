"""Run nginx as Azure Blob Storage and Mesh Export API: TLS, ETags, stored listings, 30 ms to the first byte."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

SAS = "sv=2024-05-04&spr=https&se=2099-01-01T00%3A00%3A00Z&sr=c&sp=rl&sig=c2lnbmF0dXJlIG9mIHRoZSBiZW5jaA%3D%3D"
NGINX_MODULES = Path("/usr/lib/nginx/modules")

LUA_SCRIPTS = Path(__file__).resolve().parent / "lua"

# The sleep costs no CPU. The limit on files is high and their cache small: else nginx answers 500 under load.
_NGINX_CONFIG = """
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
{user}
worker_processes {workers};
worker_rlimit_nofile {files};
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 32768; }}
http {{
    log_format requests escape=json '{{"end":$msec,"method":"$request_method","status":$status,"url":"$request_uri",'
        '"copy_source":"$http_x_ms_copy_source$http_x_amz_copy_source"}}';
    access_log {access_log};
    log_not_found off;
    lua_shared_dict etags 64m;
    lua_package_path "{lua}/?.lua;;";
    client_body_temp_path {uploads}/.body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    open_file_cache max=500 inactive=5s;
    keepalive_requests 1000000;
    keepalive_timeout 300s;
    output_buffers 4 128k;
    types {{ application/json json; application/xml xml; model/gltf-binary glb; }}
    ssl_certificate server.pem;
    ssl_certificate_key server.pem;
    ssl_session_cache shared:tls:10m;
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        access_by_lua_block {{ {wait} }}
        location /mesh-export/ {{
            rewrite_by_lua_block {{ ngx.exec("/api/" .. (ngx.var.arg_iModelId or "none") .. ".json") }}
        }}
        location /api/ {{ internal; root {state}; }}
        location /lists/ {{ internal; root {data}; etag off; }}
        location ~ ^/account/(?<container>up[0-9]+)/?(?<name>.*)$ {{
            set $uploads {uploads};
            set $lists {state}/lists;
            set $exports {data}/containers;
            rewrite_by_lua_file {lua}/write_container.lua;
            alias {uploads}/$container/$name;
            dav_methods PUT DELETE;
            create_full_put_path on;
            client_max_body_size 0;
            header_filter_by_lua_file {lua}/write_headers.lua;
            add_header x-ms-version 2024-05-04;
        }}
        location ~ ^/uploaded/(?<container>.+)$ {{
            internal;
            default_type application/xml;
            set $uploads {uploads};
            set $lists {state}/lists;
            content_by_lua_file {lua}/list_uploads.lua;
        }}
        location ~ ^/(?<bucket>bucket[0-9]+)/?(?<name>.*)$ {{
            set $uploads {uploads};
            set $lists {state}/lists;
            client_max_body_size 0;
            client_body_buffer_size 2m;
            content_by_lua_file {lua}/bucket.lua;
        }}
        location ~ ^/account/(?<container>(?<unchanged>[a-z]+)-changed-[0-9]+)/?(?<name>.*)$ {{
            rewrite_by_lua_file {lua}/read_container.lua;
            root {data}/containers;
            try_files /$container/$name /$unchanged/$name =404;
            add_header x-ms-blob-type BlockBlob;
            add_header x-ms-version 2024-05-04;
        }}
        location ~ ^/account/(?<container>[a-z0-9-]+)/?(?<name>.*)$ {{
            rewrite_by_lua_file {lua}/read_container.lua;
            alias {data}/containers/$container/$name;
            add_header x-ms-blob-type BlockBlob;
            add_header x-ms-version 2024-05-04;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class ServiceOptions:
    """Options of the service: processes of nginx, seconds to the first byte, and whether it logs its requests."""

    workers: int = 2
    delay_s: float = 0.03
    logs_requests: bool = False


@dataclass(frozen=True)
class Service:
    """Running service: its URL and the id of its first process."""

    url: str
    pid: int


@contextmanager
def run_nginx(
    state: Path, data: Path, uploads: Path, *, options: ServiceOptions | None = None, cores: str | None = None
) -> Iterator[Service]:
    """Run the service while the context is open.

    `state`: folder for what belongs to this service alone: `ca.pem`, the certificate of the authority that signed its
    own, `access.log`, and the answers of the API. `uploads`: folder for uploaded files. `cores`: as taskset takes them.
    """
    options = options or ServiceOptions()
    shutil.rmtree(state / "lists", ignore_errors=True)
    for folder in (state / "api", state / "lists", uploads):
        folder.mkdir(parents=True, exist_ok=True)
    (state / "access.log").unlink(missing_ok=True)
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(str(state / "ca.pem"))
    authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA).private_key_and_cert_chain_pem.write_to_path(
        str(state / "server.pem")
    )
    port = free_port()
    conf = _NGINX_CONFIG.format(
        modules=NGINX_MODULES,
        user="user root;" if os.geteuid() == 0 else "",
        workers=options.workers,
        files=_max_open_files(),
        access_log=f"{state}/access.log requests" if options.logs_requests else "off",
        lua=LUA_SCRIPTS,
        port=port,
        wait=f"ngx.sleep({options.delay_s})" if options.delay_s else "",
        state=state,
        data=data,
        uploads=uploads,
    )
    (state / "nginx.conf").write_text(conf)
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    command = [program, "-p", str(state), "-c", str(state / "nginx.conf"), "-e", str(state / "error.log")]
    pinned = ["taskset", "--cpu-list", cores] if cores else []
    with subprocess.Popen([*pinned, *command, "-g", "daemon off;"]) as server:
        try:
            wait_for_port(port, "nginx does not answer; its error.log says why")
            yield Service(f"https://127.0.0.1:{port}", server.pid)
        finally:
            server.terminate()


def imodel_id(name: str) -> str:
    """Return the id of the iModel of that name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def write_export_response(state: Path, url: str, imodel: str, *, container: str, modified: str, size: int) -> None:
    """Write the API response of a service that names a container as the newest export of an iModel."""
    row = {
        "id": container,
        "displayName": "Bench",
        "status": "Complete",
        "lastModified": modified,
        "request": {"iModelId": imodel, "changesetId": "c0ffee", "exportType": "3DTiles"},
        "stats": {"compressedSize": size},
        "_links": {"mesh": {"href": f"{url}/account/{container}?{SAS}"}},
    }
    answer = json.dumps({"exports": [row], "_links": {}})
    (state / "api" / f"{imodel}.json").write_text(answer)


def _max_open_files() -> int:
    """Return the maximum number of open files of a process."""
    return min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, error: str) -> None:
    """Wait until a server listens; exit with the error if it does not."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(error)
