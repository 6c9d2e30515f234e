"""The service that `tilesync demo` shows: a stand-in with a city, on a bad day."""

from __future__ import annotations

import base64
import hashlib
import random
import uuid
from datetime import timedelta
from typing import Any

from tilesync.demo.city import city
from tilesync.demo.fake_service import Answer, Request, StandIn, StoredBlob, storage_error

IMODEL = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"
TYPES = {
    "json": "application/json",
    "glb": "model/gltf-binary",
    "png": "image/png",
}
EDITIONS = 5
LIFE = timedelta(seconds=1.5)


class DemoService(StandIn):
    """A service on an ordinary bad day: an empty list, then an unfinished export, short-lived links, a few failures."""

    def __init__(self, edition: int) -> None:
        super().__init__(life=LIFE, delay=0.08)
        self.city = city(edition=(edition - 1) % EDITIONS + 1)
        self.add_export(export_id(edition), IMODEL, blobs_of(self.city))
        self._looks = 0
        self._random = random.Random(1)

    def visible_exports(self) -> list[dict[str, Any]]:
        """Nothing at the first look, an unfinished export at the second, then the finished one."""
        self._looks += 1
        if self._looks <= 2:
            return []
        return [{**row, "status": "InProgress"} for row in self.exports] if self._looks == 3 else self.exports

    def answer_storage(self, request: Request) -> Answer:
        """One answer in fifty is "busy", one body in fifty breaks off half-way."""
        luck = self._random.random()
        if luck < 0.02 and not request.is_listing:
            return storage_error(503, "ServerBusy", "The server is busy.")
        answer = super().answer_storage(request)
        if luck > 0.98 and answer.status == 200 and not request.is_listing:
            answer.send = len(answer.body) // 2
        return answer


def export_id(edition: int) -> str:
    """The id of the demo's export of one edition."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tilesync-demo/{edition}"))


def blobs_of(files: dict[str, bytes]) -> dict[str, StoredBlob]:
    """Files as a container stores them, with the MD5 that an uploader gives."""
    return {
        name: StoredBlob(
            data,
            TYPES.get(name.rpartition(".")[2], "application/octet-stream"),
            md5=base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
        )
        for name, data in files.items()
    }
