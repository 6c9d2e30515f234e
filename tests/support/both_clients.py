"""Fetch a URL with both clients, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

BOTH_CLIENTS_PROGRAM = """
import asyncio, json, os, sys
from datetime import timedelta
from tilesync.errors import TilesyncError
from tilesync.transport.blob_client import open_blob_client
from tilesync.transport.api_client import ApiRequest, open_api_client
from tilesync.runtime.clock import WallClock

async def api(url):
    async def build_request():
        return ApiRequest(url)
    async def read_response(response):
        return [response.status, (await response.read()).decode()]
    async with open_api_client(WallClock(), lambda event: None, budget=timedelta()) as api_client:
        return await api_client.request("it", build_request, read_response)

async def blob(url):
    async with open_blob_client() as blob_client:
        response = await blob_client.get(url, {})
        body = await response.read_error_body()
        await response.aclose()
        return [response.status, body.decode()]

async def outcome(work):
    try:
        return await work
    except TilesyncError as error:
        return [type(error).__name__, str(error)]

async def main():
    return {"api": await outcome(api(sys.argv[1])), "blob": await outcome(blob(sys.argv[1]))}

print(json.dumps(asyncio.run(main())), flush=True)
os._exit(0)  # pyreqwest 0.15.1 may abort an interpreter that ends right after its last request
"""


def fetch_by_both_clients(url: str, **environment: str) -> dict[str, list[Any]]:
    """Fetch a URL with both clients, in a separate process with only the settings of `environment`."""
    settings = {"SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    bare = {key: value for key, value in os.environ.items() if key.upper() not in settings}
    done = subprocess.run(
        [sys.executable, "-c", BOTH_CLIENTS_PROGRAM, url],
        env=bare | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "SECRET" not in done.stdout + done.stderr
    result: dict[str, list[Any]] = json.loads(done.stdout)
    return result


HELLO = {"api": [200, "hello"], "blob": [200, "hello"]}
