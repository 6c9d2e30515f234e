"""Builders of small valid content: GLBs, tilesets and whole exports."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tilesync.demo.fake_service import StoredBlob

IMODEL = "11111111-2222-3333-4444-555555555555"


def glb(payload: bytes) -> bytes:
    """Build a GLB with `payload` as its binary chunk (glTF 2.0, section 4.4)."""
    body = payload + b"\0" * (-len(payload) % 4)
    text = json.dumps({"asset": {"version": "2.0"}, "buffers": [{"byteLength": len(body)}]}).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(body), 0x004E4942) + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def glb_with_image(uri: str, payload: bytes) -> bytes:
    """Build a GLB with an image in a separate file."""
    body = payload + b"\0" * (-len(payload) % 4)
    document = json.dumps(
        {"asset": {"version": "2.0"}, "buffers": [{"byteLength": len(body)}], "images": [{"uri": uri}]}
    )
    text = document.encode() + b" " * (-len(document) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(body), 0x004E4942) + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def gltf_as_glb(**properties: Any) -> bytes:
    """Build a GLB with these JSON properties, without a binary chunk."""
    text = json.dumps({"asset": {"version": "2.0"}, **properties}).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A) + text


def b3dm(model: bytes) -> bytes:
    """Build a batched model without tables (3D Tiles 1.0, "Batched 3D Model")."""
    return struct.pack("<4s6I", b"b3dm", 1, 28 + len(model), 0, 0, 0, 0) + model


def tileset(*uris: str, **more: Any) -> bytes:
    """Build a tileset with one child per URI."""
    box = {"box": [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]}
    children = [{"boundingVolume": box, "geometricError": 1, "content": {"uri": uri}} for uri in uris]
    root = {"boundingVolume": box, "geometricError": 16, "refine": "ADD", "children": children}
    return json.dumps({"asset": {"version": "1.1"}, "geometricError": 64, "root": root, **more}).encode()


def export(tiles: int = 12, *, seed: int = 0, size: int = 900) -> dict[str, bytes]:
    """Build a small export: a root, an external tileset, GLBs in a folder, a name to be escaped and an empty file."""
    dice = random.Random(seed)
    names = [f"tiles/{number:03d}.glb" for number in range(tiles)]
    files = {name: glb(dice.randbytes(dice.randint(1, size))) for name in names}
    files["tiles/tileset.json"] = tileset(*(name.removeprefix("tiles/") for name in names))
    files["tileset.json"] = tileset("tiles/tileset.json", quote("data/ä b%20+#.bin"), schemaUri="data/schema.json")
    files["data/schema.json"] = json.dumps({"id": "schema", "seed": seed}).encode()
    files["data/ä b%20+#.bin"] = glb(dice.randbytes(300))
    files["data/empty"] = b""
    return files


def referenced_export(tiles: int = 8, **more: bytes) -> dict[str, bytes]:
    """Return the export without its orphan, and with `more` files."""
    return {name: data for name, data in export(tiles).items() if data} | more


def md5_base64(data: bytes) -> str:
    """Return the MD5 in base64, as Azure does."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def make_stored_blobs(files: dict[str, bytes], *, md5: bool = True) -> dict[str, StoredBlob]:
    """Return the files as stored blobs."""
    return {name: StoredBlob(data, md5=md5_base64(data) if md5 else "") for name, data in files.items()}


def read_tree(folder: Path) -> dict[str, bytes]:
    """Read every regular file below a folder, by its relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_manifest(dest: Path, version: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Read the first line of a manifest, and its other lines by name."""
    head, *rest = map(json.loads, (dest / "manifests" / f"{version}.jsonl").read_text(encoding="utf-8").splitlines())
    return head, {row["name"]: row for row in rest}
