"""Generate containers for benchmarks: files on the disk, and listing pages as Azure sends them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

BLOBS_PER_PAGE = 5000
"""Blobs per page, the maximum of Azure."""

LAST_MODIFIED_S = 1_750_000_000
"""Last-Modified of all files, except of those that are changed later."""

TILES_PER_FOLDER = 100
"""Tiles per folder."""

_PAGE_HEAD = '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{0}" ContainerName="{1}">'
_BLOB = (
    "<Blob><Name>{name}</Name><Properties><Creation-Time>{when}</Creation-Time><Last-Modified>{when}</Last-Modified>"
    "<Etag>{etag}</Etag><Content-Length>{size}</Content-Length><Content-Type>{type}</Content-Type><Content-Encoding />"
    "<Content-Language /><Content-CRC64 /><Content-MD5>{md5}</Content-MD5><Cache-Control /><Content-Disposition />"
    "<BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred>"
    "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted>"
    "</Properties><OrMetadata /></Blob>"
)


@dataclass(frozen=True)
class ListedBlob:
    """Blob of a listing."""

    name: str
    size: int
    md5: str
    modified: int

    def to_xml(self) -> str:
        """Return the blob in the format of List Blobs; its ETag is the one that nginx makes of mtime and size."""
        kind = "application/json" if self.name.endswith(".json") else "model/gltf-binary"
        when, etag = formatdate(self.modified, usegmt=True), f"{self.modified:x}-{self.size:x}"
        name = escape(self.name)
        return _BLOB.format(name=name, when=when, etag=etag, size=self.size, type=kind, md5=self.md5)


def build_glb(payload: bytes) -> bytes:
    """Build a GLB with one buffer (glTF 2.0, section 4.4)."""
    body = payload + b"\0" * (-len(payload) % 4)
    said = json.dumps(
        {
            "asset": {"version": "2.0", "generator": "bench"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 4}]}],
            "accessors": [{"bufferView": 0, "componentType": 5126, "count": len(body) // 12, "type": "VEC3"}],
            "bufferViews": [{"buffer": 0, "byteLength": len(body)}],
            "buffers": [{"byteLength": len(body)}],
        }
    ).encode()
    said += b" " * (-len(said) % 4)
    chunks = struct.pack("<II", len(said), 0x4E4F534A) + said + struct.pack("<II", len(body), 0x004E4942) + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def build_tileset(uris: Iterable[str]) -> bytes:
    """Build a tileset with one child per URI (3D Tiles 1.1)."""
    box = {"box": [0, 0, 0, 100, 0, 0, 0, 100, 0, 0, 0, 100]}
    children = [{"boundingVolume": box, "geometricError": 1, "content": {"uri": uri}} for uri in uris]
    root = {"boundingVolume": box, "geometricError": 64, "refine": "ADD", "children": children}
    return json.dumps({"asset": {"version": "1.1"}, "geometricError": 512, "root": root}).encode()


def tile_name(number: int) -> str:
    """Return the name of a tile."""
    return f"tiles/{number // TILES_PER_FOLDER:05d}/{number:07d}.glb"


def write_small_files(folder: Path, *, tiles: int, median: int) -> None:
    """Write an export of tiles of a median size, with an external tileset per folder, and the root."""
    dice, tilesets = random.Random(1), list[str]()
    for start in range(0, tiles, TILES_PER_FOLDER):
        names = [tile_name(number) for number in range(start, min(start + TILES_PER_FOLDER, tiles))]
        for name in names:
            size = min(max(dice.lognormvariate(0, 0.9) * median, 300), 1_000_000)
            write_file(folder / name, build_glb(dice.randbytes(int(size))))
        inner = f"{names[0].rpartition('/')[0]}/tileset.json"
        write_file(folder / inner, build_tileset(name.rpartition("/")[2] for name in names))
        tilesets.append(inner)
    write_file(folder / "tileset.json", build_tileset(tilesets))


def write_equal_files(folder: Path, *, count: int, size: int) -> None:
    """Write an export of `count` tiles of one size."""
    dice, names = random.Random(3), [f"{number // TILES_PER_FOLDER:03d}/{number:05d}.glb" for number in range(count)]
    for name in names:
        write_file(folder / name, build_glb(dice.randbytes(size - 600)))
    write_file(folder / "tileset.json", build_tileset(names))


def write_large_files(folder: Path, *, count: int, size: int) -> None:
    """Write an export of `count` large tiles."""
    names = [f"{number:03d}.glb" for number in range(count)]
    for name in names:
        write_file(folder / name, build_glb(os.urandom(size - 1000)))
    write_file(folder / "tileset.json", build_tileset(names))


def write_many_files(folder: Path, *, count: int) -> list[ListedBlob]:
    """Write an export of `count` tiny files; return its listing. The names of a folder are links to one file, which
    saves space, and time, for the ones who make it.
    """
    dice, blobs = random.Random(2), list[ListedBlob]()
    data = md5 = ""
    source = Path()
    for number in range(count - 1):
        if number % TILES_PER_FOLDER == 0:
            content = build_glb(dice.randbytes(200))
            data, md5 = len(content), _md5(content)
            source = folder / tile_name(number)
            write_file(source, content)
        else:
            name = folder / tile_name(number)
            name.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, name)
        blobs.append(ListedBlob(tile_name(number), data, md5, LAST_MODIFIED_S))
    root = build_tileset(["tiles/00000/0000000.glb"])
    write_file(folder / "tileset.json", root)
    return [*blobs, ListedBlob("tileset.json", len(root), _md5(root), LAST_MODIFIED_S)]


def write_changed_file(folder: Path, name: str, *, later_s: int) -> ListedBlob:
    """Write a tile with other bytes, and a Last-Modified that is `later_s` seconds later than that of all others.

    A changed copy of a container holds nothing else: the service takes all other files from the container itself.
    """
    content, modified = build_glb(random.Random(later_s).randbytes(30_000)), LAST_MODIFIED_S + later_s
    write_file(folder / name, content, modified=modified)
    return ListedBlob(name, len(content), _md5(content), modified)


def copy_listing_with_change(folder: Path, source: Path, changed: ListedBlob) -> None:
    """Copy a listing, but for one blob. Pages without it are links, so they name the container of the source."""
    folder.mkdir(parents=True)
    start = f"<Blob><Name>{escape(changed.name)}</Name>"
    for page in source.glob("*.xml"):
        before, found, rest = page.read_text().partition(start)
        if found:
            after = rest.partition("</Blob>")[2]
            (folder / page.name).write_text(before + changed.to_xml() + after)
        else:
            os.link(page, folder / page.name)


def write_file(path: Path, data: bytes, *, modified: int = LAST_MODIFIED_S) -> None:
    """Write a file with its date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (modified, modified))


def list_folder(folder: Path) -> list[ListedBlob]:
    """List a folder, sorted by the bytes of the names."""
    paths = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    return [
        ListedBlob(name, path.stat().st_size, _md5(path.read_bytes()), int(path.stat().st_mtime))
        for name, path in paths
    ]


def write_listing(folder: Path, container: str, blobs: list[ListedBlob]) -> None:
    """Write the pages of the flat listing, and for peers that list folder by folder, the listing of each folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(blobs), BLOBS_PER_PAGE)):
        more = f"{number + 1}" if start + BLOBS_PER_PAGE < len(blobs) else ""
        body = "".join(blob.to_xml() for blob in blobs[start : start + BLOBS_PER_PAGE])
        asked = f"<Marker>{number}</Marker>" if number else ""
        (folder / f"{number}.xml").write_text(_build_page(container, body, more, marker_xml=asked))
    if len(blobs) <= 100_000:
        for prefix, inner in _list_folders(blobs).items():
            name = hashlib.md5(prefix.encode(), usedforsecurity=False).hexdigest()
            (folder / f"{name}.xml").write_text(_build_page(container, "".join(inner), ""))


def _build_page(container: str, body: str, marker: str, *, marker_xml: str = "") -> str:
    head = _PAGE_HEAD.format("https://127.0.0.1/", container)
    return f"{head}{marker_xml}<Blobs>{body}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"


def _list_folders(blobs: list[ListedBlob]) -> dict[str, list[str]]:
    """Return the content of each folder by its prefix."""
    found: dict[str, list[str]] = {"": []}
    for blob in blobs:
        folder = ""
        for part in blob.name.split("/")[:-1]:
            inner = f"{folder}{part}/"
            if inner not in found:
                found[inner] = []
                found[folder].append(f"<BlobPrefix><Name>{inner}</Name></BlobPrefix>")
            folder = inner
        found[folder].append(blob.to_xml())
    return found


def blob_urls(base: str, names: Iterable[str], query: str) -> Iterator[str]:
    """Return the URL of each blob."""
    return (f"{base}/{quote(name)}?{query}" for name in names)


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
