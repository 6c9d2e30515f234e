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
from pathlib import Path

import trustme

SAS = "sv=2024-05-04&spr=https&se=2099-01-01T00%3A00%3A00Z&sr=c&sp=rl&sig=c2lnbmF0dXJlIG9mIHRoZSBiZW5jaA%3D%3D"
NGINX_MODULES = Path("/usr/lib/nginx/modules")

# The sleep costs no CPU. The limit on files is high and their cache small: else nginx answers 500 under load.
_NGINX_CONFIG = """
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
{user}
worker_processes 2;
worker_rlimit_nofile {files};
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 32768; }}
http {{
    access_log off;
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
        access_by_lua_block {{ ngx.sleep({delay}) }}
        location /mesh-export/ {{
            rewrite_by_lua_block {{ ngx.exec("/api/" .. (ngx.var.arg_iModelId or "none") .. ".json") }}
        }}
        location /api/ {{ internal; root {data}; }}
        location /lists/ {{ internal; root {data}; etag off; }}
        location ~ ^/account/(?<container>up[0-9]+)/?(?<name>.*)$ {{
            rewrite_by_lua_block {{
                local asked, method = ngx.req.get_uri_args(), ngx.req.get_method()
                if asked.comp == "list" then return ngx.exec("/uploaded/" .. ngx.var.container, ngx.var.args) end
                if asked.comp == "lease" or asked.restype == "container" then
                    ngx.header["x-ms-lease-id"] = ngx.var.http_x_ms_proposed_lease_id
                    return ngx.exit(method == "PUT" and 201 or 200)
                end
                if method == "PUT" and asked.comp then return ngx.exit(501) end
            }}
            alias {uploads}/$container/$name;
            dav_methods PUT;
            create_full_put_path on;
            client_max_body_size 0;
            header_filter_by_lua_block {{
                if ngx.req.get_method() == "PUT" then
                    ngx.status = 201
                    ngx.header["ETag"] = '"0x' .. ngx.md5(ngx.var.uri) .. '"'
                    ngx.header["Last-Modified"] = ngx.http_time(ngx.time())
                    ngx.header["Content-MD5"] = ngx.var.http_content_md5
                end
            }}
            add_header x-ms-version 2024-05-04;
        }}
        location ~ ^/uploaded/(?<container>.+)$ {{
            internal;
            default_type application/xml;
            content_by_lua_block {{
                local prefix = ngx.req.get_uri_args().prefix
                local form = "<Blob><Name>%s</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT"
                    .. "</Last-Modified><Etag>0x%s</Etag><Content-Length>%s</Content-Length><Content-Type />"
                    .. "<Content-Encoding /><Content-MD5 /><BlobType>BlockBlob</BlobType></Properties></Blob>\\n"
                local folder = "{uploads}/" .. ngx.var.container .. "/"
                local below = type(prefix) == "string" and prefix:match("^[%w/.-]*/") or ""
                local where = "'" .. folder .. below .. "'"
                local found = io.popen("find " .. where .. " -type f -printf '%s %P\\n' 2>/dev/null")
                ngx.print('<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>')
                for line in found:lines() do
                    local size, path = line:match("^(%d+) (.*)$")
                    local name = below .. path
                    if type(prefix) ~= "string" or name:sub(1, #prefix) == prefix then
                        local etag = ngx.md5("/account/" .. ngx.var.container .. "/" .. name)
                        ngx.print(form:format(name, etag, size))
                    end
                end
                found:close()
                ngx.print("</Blobs><NextMarker /></EnumerationResults>")
            }}
        }}
        location ~ ^/account/(?<container>[a-z0-9-]+)/?(?<name>.*)$ {{
            rewrite_by_lua_block {{
                local asked = ngx.req.get_uri_args()
                if asked.comp == "list" then
                    local page = asked.marker
                    if not page or page == "" or page == true then
                        local prefix = asked.prefix
                        if prefix == true or not prefix then prefix = "" end
                        page = asked.delimiter and asked.delimiter ~= "" and ngx.md5(prefix) or "0"
                    end
                    return ngx.exec("/lists/" .. ngx.var.container .. "/" .. page .. ".xml")
                end
                if asked.restype == "container" then return ngx.exit(200) end
                if ngx.var.http_x_ms_range then ngx.req.set_header("Range", ngx.var.http_x_ms_range) end
            }}
            alias {data}/containers/$container/$name;
            add_header x-ms-blob-type BlockBlob;
            add_header x-ms-version 2024-05-04;
        }}
    }}
}}
"""


@contextmanager
def run_nginx(state: Path, data: Path, uploads: Path, *, delay_s: float = 0.03) -> Iterator[str]:
    """Run the service while the context is open, and yield its URL.

    `state`/ca.pem: certificate of the authority that signed its own. `uploads`: folder for uploaded files.
    """
    state.mkdir(parents=True, exist_ok=True)
    uploads.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(str(state / "ca.pem"))
    authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA).private_key_and_cert_chain_pem.write_to_path(
        str(state / "server.pem")
    )
    port = _free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    conf = _NGINX_CONFIG.format(
        modules=NGINX_MODULES, user=user, port=port, delay=delay_s, data=data, uploads=uploads, files=_max_open_files()
    )
    (state / "nginx.conf").write_text(conf)
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    command = [program, "-p", str(state), "-c", str(state / "nginx.conf"), "-e", str(state / "error.log")]
    with subprocess.Popen([*command, "-g", "daemon off;"]) as server:
        try:
            _wait_for(port)
            yield f"https://127.0.0.1:{port}"
        finally:
            server.terminate()


def imodel_id(name: str) -> str:
    """Return the id of the iModel of that name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def write_export_response(data: Path, url: str, imodel: str, *, container: str, modified: str, size: int) -> None:
    """Write the API response that names a container as the newest export of an iModel."""
    row = {
        "id": container,
        "displayName": "Bench",
        "status": "Complete",
        "lastModified": modified,
        "request": {"iModelId": imodel, "changesetId": "c0ffee", "exportType": "3DTiles"},
        "stats": {"compressedSize": size},
        "_links": {"mesh": {"href": f"{url}/account/{container}?{SAS}"}},
    }
    (data / "api").mkdir(parents=True, exist_ok=True)
    answer = json.dumps({"exports": [row], "_links": {}})
    (data / "api" / f"{imodel}.json").write_text(answer)


def _max_open_files() -> int:
    """Return the maximum number of open files of a process."""
    return min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("nginx does not answer; its error.log says why")
