"""`tilesync demo`: the real main job, over real sockets, against an embedded stand-in of the service."""

from __future__ import annotations

import base64
import hashlib
import random
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesync.demo.standin import Answer, Request, StandIn, StoredBlob, storage_error

if TYPE_CHECKING:
    from tilesync.cli.session import Session

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

    def __init__(self) -> None:
        super().__init__(life=LIFE, delay=0.08)
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


def show(session: Session, folder: Path | None) -> int:
    """Mirror the demo city into `folder` and say what to try next; the exit code."""
    from tilesync import wiring
    from tilesync.cli.summary import mirrored
    from tilesync.cli.text import files, size
    from tilesync.demo.city import city
    from tilesync.model import Secret, Selector

    dest = folder if folder is not None else Path("tilesync-demo")
    held = len(list((dest / "manifests").glob("*.jsonl"))) if dest.is_dir() else 0
    edition = held + 1
    content = city(edition=(edition - 1) % EDITIONS + 1)
    session.say(f"a stand-in of the service starts on loopback, with a city of {files(len(content))},"
                f" {size(sum(map(len, content.values())))}; its links live {LIFE.total_seconds()} s, and it has a bad day")  # fmt: skip

    with DemoService() as service:
        service.add_export(export_id(edition), IMODEL, blobs_of(content))
        request = wiring.MirrorRequest(
            service=wiring.Service(service.url, wiring.Identity(token=Secret(service.token))),
            selector=Selector(imodel=IMODEL, export_type="3DTiles"),
            destination=dest,
            poll=timedelta(seconds=1),
        )

        async def work() -> None:
            await wiring.mirror(request, session.observe, session.tally)

        return session.run(
            work, closing=lambda: _closing(mirrored(session.summary, session.tally, dest, dry_run=False), dest)
        )


def _closing(done: str, dest: Path) -> str:
    return f"""{done}

try next:
  tilesync verify {dest}
  tilesync demo {dest}            the next export, beside this one
  python -m http.server --directory {dest} 8000     then http://localhost:8000/tileset.json in a viewer
with an account:
  export TILESYNC_TOKEN=…         README.md says where it comes from
  tilesync exports IMODEL_ID
  tilesync mirror IMODEL_ID DEST"""
