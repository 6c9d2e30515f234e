"""Fake service of `tilesync demo`: it exports a city, with delays, expiring links and faults."""

from __future__ import annotations

import base64
import hashlib
import random
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tilesync.demo.city import build_city
from tilesync.demo.fake_service import FakeBackend, StoredBlob, storage_error
from tilesync.demo.loopback_server import FakeRequest, FakeResponse

IMODEL = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"
CONTENT_TYPES = {
    "json": "application/json",
    "glb": "model/gltf-binary",
    "png": "image/png",
}
EDITION_COUNT = 5
LINK_LIFETIME = timedelta(seconds=1.5)


class DemoService(FakeBackend):
    """Fake service with common faults: first no export, then an unfinished one, short-lived links, some failures."""

    def __init__(self, edition: int) -> None:
        super().__init__(link_lifetime=LINK_LIFETIME, delay_s=0.08)
        self.city_files = build_city(edition=(edition - 1) % EDITION_COUNT + 1)
        self.add_export(make_export_id(edition), IMODEL, make_blobs(self.city_files))
        self._poll_count = 0
        self._random = random.Random(1)

    def visible_exports(self) -> list[dict[str, Any]]:
        """Return no export for the first two polls, an unfinished one for the third, then the finished one."""
        self._poll_count += 1
        if self._poll_count <= 2:
            return []
        return [{**row, "status": "InProgress"} for row in self.exports] if self._poll_count == 3 else self.exports

    def respond_storage(self, request: FakeRequest) -> FakeResponse:
        """Respond "busy" to one request in fifty, and break one body in fifty off half-way."""
        chance = self._random.random()
        if chance < 0.02 and not request.is_listing:
            return storage_error(503, "ServerBusy", "The server is busy.")
        response = super().respond_storage(request)
        if chance > 0.98 and response.status == 200 and not request.is_listing:
            response.sent_bytes = len(response.body) // 2
        return response


def make_export_id(edition: int) -> str:
    """Return the export id of one edition of the demo city."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tilesync-demo/{edition}"))


def make_blobs(files: Mapping[str, bytes]) -> dict[str, StoredBlob]:
    """Return files as stored blobs, with the MD5 that an uploader gives."""
    return {
        name: StoredBlob(
            data,
            CONTENT_TYPES.get(name.rpartition(".")[2], "application/octet-stream"),
            md5=base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
        )
        for name, data in files.items()
    }
