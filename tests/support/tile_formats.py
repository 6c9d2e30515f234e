"""Build small files of each tile format."""

from __future__ import annotations

import json
import struct
from typing import Any

from tilesync.model import Role


def padded(text: bytes, to: int = 4, by: bytes = b" ") -> bytes:
    return text + by * (-len(text) % to)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<I4s", len(data), kind) + data


def gltf(*chunks: bytes, version: int = 2, length: int | None = None) -> bytes:
    """Build a GLB of these chunks, or of any other bytes."""
    body = b"".join(chunks)
    return struct.pack("<4sII", b"glTF", version, 12 + len(body) if length is None else length) + body


def glb(body: bytes = b"\1\2\3\4" * 5, **members: Any) -> bytes:
    """Build a GLB of version 2, with more members in its JSON."""
    buffers = [{"byteLength": len(body)}] if body else []
    text = json.dumps({"asset": {"version": "2.0"}, "buffers": buffers, **members}).encode()
    return gltf(chunk(b"JSON", padded(text)), *([chunk(b"BIN\0", padded(body, by=b"\0"))] if body else []))


def glb_1(body: bytes = b"body", *, form: int = 0, **members: Any) -> bytes:
    """Build a GLB of version 1 (glTF 1.0)."""
    text = padded(json.dumps(members).encode())
    return gltf(struct.pack("<II", len(text), form), text, body, version=1)


def tile(magic: bytes, *tables: bytes, more: bytes = b"", model: bytes = b"", length: int | None = None) -> bytes:
    """Build a tile with a header that states the lengths of its tables, and `more`."""
    header = b"".join(struct.pack("<I", len(table)) for table in tables) + more
    body = b"".join(tables) + model
    size = 12 + len(header) + len(body)
    return struct.pack("<4sII", magic, 1, size if length is None else length) + header + body


TABLES = (b'{"BATCH_LENGTH":1}', b"\0\0", b'{"uri":["no.json"]}  ', b"x")


def b3dm(model: bytes, *tables: bytes) -> bytes:
    return tile(b"b3dm", *(tables or TABLES), model=model)


def b3dm_20(model: bytes, table: bytes = b'{"id":[1]}') -> bytes:
    """Build a b3dm with the oldest header: batchLength and the length of the batch table."""
    return tile(b"b3dm", more=struct.pack("<II", 7, len(table)), model=table + model)


def b3dm_24(model: bytes, table: bytes = b'{"id":[1]}', binary: bytes = b"\0\0") -> bytes:
    """Build a b3dm with the second header: the lengths of the batch table, and batchLength."""
    return tile(b"b3dm", table, binary, model=b"")[:20] + b3dm_24_rest(model, table, binary)


def b3dm_24_rest(model: bytes, table: bytes, binary: bytes) -> bytes:
    return struct.pack("<I", 7) + table + binary + model


def sized(data: bytes) -> bytes:
    """Write the true length into the header of a tile."""
    return data[:8] + struct.pack("<I", len(data)) + data[12:]


def i3dm(model: bytes, form: int = 1, *tables: bytes) -> bytes:
    header = b"".join(struct.pack("<I", len(table)) for table in tables or TABLES)
    return sized(struct.pack("<4sII", b"i3dm", 1, 0) + header + struct.pack("<I", form)
                 + b"".join(tables or TABLES) + model)  # fmt: skip


def cmpt(*tiles: bytes, count: int | None = None, length: int | None = None, rest: bytes = b"") -> bytes:
    body = b"".join(tiles) + rest
    size = 16 + len(body) if length is None else length
    return struct.pack("<4sIII", b"cmpt", 1, size, len(tiles) if count is None else count) + body


def subt(members: dict[str, Any], body: bytes = b"", *, version: int = 1) -> bytes:
    text, body = padded(json.dumps(members).encode(), 8), padded(body, 8, b"\0")
    return struct.pack("<4sIQQ", b"subt", version, len(text), len(body)) + text + body


NAMING = glb(images=[{"uri": "a.png"}], extensions={"EXT_structural_metadata": {"schemaUri": "s.json"}})


NAMED = [(Role.IMAGE, "a.png"), (Role.SCHEMA, "s.json")]


EXTERNAL = glb(b"", buffers=[{"uri": "a.bin", "byteLength": 99}])


FILES: dict[str, tuple[bytes, list[tuple[Role, str]]]] = {
    "glb": (glb(), []),
    "glb-without-body": (glb(b""), []),
    "glb-naming": (NAMING, NAMED),
    "glb-external": (EXTERNAL, [(Role.BUFFER, "a.bin")]),
    "glb-more-chunks": (
        gltf(glb()[12:], chunk(b"XTRA", b"12345678"), chunk(b"BIN\0", b"1234"), chunk(b"NONE", b"")),
        [],
    ),
    "glb-1": (
        glb_1(shaders={"s": {"uri": "s.glsl"}}, buffers={"binary_glTF": {"uri": "x"}}),
        [(Role.SHADER, "s.glsl")],
    ),
    "b3dm": (b3dm(glb()), []),
    "b3dm-naming": (b3dm(NAMING), NAMED),
    "b3dm-bare": (b3dm(glb(), b"", b"", b"", b""), []),
    "b3dm-20": (b3dm_20(NAMING), NAMED),
    "b3dm-20-bare": (b3dm_20(glb_1(), b""), []),
    "b3dm-24": (sized(b3dm_24(NAMING)), NAMED),
    "b3dm-24-bare": (sized(b3dm_24(glb(), b"", b"")), []),
    "i3dm": (i3dm(NAMING), NAMED),
    "i3dm-uri": (i3dm(b"m.glb", 0), [(Role.MODEL, "m.glb")]),
    "i3dm-uri-spaces": (i3dm(b"m.glb   ", 0), [(Role.MODEL, "m.glb")]),
    "i3dm-uri-nuls": (i3dm(b" m.glb\0\0", 0, b"", b"", b"", b""), [(Role.MODEL, "m.glb")]),
    "pnts": (tile(b"pnts", *TABLES), []),
    "vctr": (tile(b"vctr", *TABLES, more=b"whatever"), []),
    "geom": (tile(b"geom"), []),
    "cmpt": (cmpt(b3dm(NAMING), i3dm(b"m.glb ", 0), tile(b"pnts", *TABLES)), [*NAMED, (Role.MODEL, "m.glb")]),
    "cmpt-empty": (cmpt(), []),
    "cmpt-glb": (cmpt(NAMING), NAMED),
    "cmpt-nested": (
        cmpt(cmpt(b3dm(NAMING)), cmpt(), cmpt(cmpt(), i3dm(b"m.glb", 0)), tile(b"geom")),
        [*NAMED, (Role.MODEL, "m.glb")],
    ),
    "cmpt-padding": (cmpt(cmpt(tile(b"geom"), rest=b"\0\0\0"), b3dm(NAMING), rest=b"\0" * 7), NAMED),
    "subt": (subt({"tileAvailability": {"constant": 1}, "buffers": [{"byteLength": 3}]}, b"abc"), []),
    "subt-naming": (subt({"tileAvailability": {}, "buffers": [{"uri": "b.bin"}]}), [(Role.BUFFER, "b.bin")]),
}
