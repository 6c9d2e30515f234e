"""Encode a mesh with textures as binary glTF (GLB), the content of one tile."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

Point = tuple[float, float, float]
Tint = tuple[int, int, int]

VERTEX_STRUCT = struct.Struct("<8f4B")


def parse_tint(colour: str) -> Tint:
    """Convert an sRGB colour such as `e8d9b8` to linear RGB bytes: COLOR_0 is linear (glTF 2.0, 3.9.2)."""
    red, green, blue = (round(255 * (int(colour[at : at + 2], 16) / 255) ** 2.2) for at in (0, 2, 4))
    return red, green, blue


def darken(colour: Tint, factor: float) -> Tint:
    """Darken a colour: multiply its linear values by `factor` (0 to 1)."""
    return int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor)


def compute_normal(a: Point, b: Point, c: Point) -> Point:
    """Compute the unit normal of a triangle; it points to the viewer who sees a, b, c counter-clockwise."""
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


@dataclass(slots=True)
class Mesh:
    """Triangles of one tile by texture name, with shared vertices; axes are east, north and up, in metres."""

    vertices: bytearray = field(default_factory=bytearray)
    triangles: dict[str, list[int]] = field(default_factory=dict)

    def add_vertex(self, point: Point, facing: Point, *, uv: tuple[float, float], colour: Tint) -> int:
        """Add a vertex with its unit normal `facing`; return its index.

        Up becomes +y and north becomes -z: a 3D Tiles runtime turns glTF's y-up back to z-up
        (3D Tiles 1.1, "glTF transforms").
        """
        (x, y, z), (east, north, up) = point, facing
        self.vertices += VERTEX_STRUCT.pack(x, z, -y, east, up, -north, *uv, *colour, 255)
        return len(self.vertices) // VERTEX_STRUCT.size - 1

    def add_face(
        self,
        texture: str,
        corners: Sequence[Point],
        *,
        uvs: Sequence[tuple[float, float]],
        tints: Sequence[Tint],
    ) -> None:
        """Add a flat convex face; its corners are counter-clockwise as seen from outside."""
        facing = compute_normal(corners[0], corners[1], corners[2])
        triangles = self.triangles.setdefault(texture, [])
        first = last = -1
        for point, uv, colour in zip(corners, uvs, tints, strict=True):
            at = self.add_vertex(point, facing, uv=uv, colour=colour)
            if last > first:
                triangles += (first, last, at)
            first, last = (at if first < 0 else first), at

    def bounds(self) -> tuple[list[float], list[float]]:
        """Return the lowest and highest position exactly as stored in single precision, in the y-up axes of glTF."""
        values = struct.unpack(f"<{len(self.vertices) // 4}f", self.vertices)
        axes = [values[axis :: VERTEX_STRUCT.size // 4] for axis in range(3)]
        return [min(axis) for axis in axes], [max(axis) for axis in axes]

    def box(self) -> tuple[Point, Point]:
        """Return the lowest and highest corner, in metres east, north, up."""
        low, high = self.bounds()
        return (low[0], -high[2], low[1]), (high[0], -low[2], high[1])


@dataclass(slots=True)
class GlbBuffer:
    """Binary chunk of a GLB and its buffer views; each view starts at a multiple of four bytes."""

    body: bytearray = field(default_factory=bytearray)
    views: list[dict[str, int]] = field(default_factory=list)

    def add(self, payload: bytes, **purpose: int) -> int:
        """Append `payload`; return the index of its buffer view."""
        self.body += bytes(-len(self.body) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.body), "byteLength": len(payload), **purpose})
        self.body += payload
        return len(self.views) - 1


def build_glb(mesh: Mesh, textures: Mapping[str, bytes], *, texture_folder: str | None = None) -> bytes:
    """Build a GLB with embedded images or, with `texture_folder`, with images as URIs in that folder."""
    binary = GlbBuffer()
    accessors = _add_vertices(mesh, binary)
    attributes = {name: at for at, name in enumerate(("POSITION", "NORMAL", "TEXCOORD_0", "COLOR_0"))}
    primitives = []
    for at, triangles in enumerate(mesh.triangles.values()):
        primitives.append({"attributes": attributes, "indices": len(accessors), "material": at})
        accessors.append(_add_indices(triangles, binary))
    names = list(mesh.triangles)
    images = [
        _build_image(name, binary, textures[name] if texture_folder is None else None, texture_folder) for name in names
    ]
    return _pack_glb(
        {
            "asset": {"version": "2.0", "generator": "tilesync demo"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": primitives}],
            "materials": [_build_material(name, at) for at, name in enumerate(names)],
            "textures": [{"sampler": 0, "source": at} for at in range(len(images))],
            "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 10497, "wrapT": 10497}],
            "images": images,
            "accessors": accessors,
            "bufferViews": binary.views,
            "buffers": [{"byteLength": len(binary.body)}],
        },
        bytes(binary.body),
    )


def _add_vertices(mesh: Mesh, binary: GlbBuffer) -> list[dict[str, object]]:
    """Add the vertices; return the accessors of the four interleaved attributes that all primitives share."""
    view = binary.add(bytes(mesh.vertices), byteStride=VERTEX_STRUCT.size, target=34962)
    shared = {"bufferView": view, "count": len(mesh.vertices) // VERTEX_STRUCT.size}
    low, high = mesh.bounds()
    return [
        {**shared, "byteOffset": 0, "componentType": 5126, "type": "VEC3", "min": low, "max": high},
        {**shared, "byteOffset": 12, "componentType": 5126, "type": "VEC3"},
        {**shared, "byteOffset": 24, "componentType": 5126, "type": "VEC2"},
        {**shared, "byteOffset": 32, "componentType": 5121, "type": "VEC4", "normalized": True},
    ]


def _add_indices(triangles: list[int], binary: GlbBuffer) -> dict[str, object]:
    kind, wide = ("I", 5125) if max(triangles) >= 0xFFFF else ("H", 5123)
    view = binary.add(struct.pack(f"<{len(triangles)}{kind}", *triangles), target=34963)
    return {"bufferView": view, "count": len(triangles), "componentType": wide, "type": "SCALAR"}


def _build_material(name: str, texture: int) -> dict[str, object]:
    surface = {"baseColorTexture": {"index": texture}, "metallicFactor": 0, "roughnessFactor": 0.9}
    return {"name": name, "pbrMetallicRoughness": surface}


def _build_image(name: str, binary: GlbBuffer, payload: bytes | None, texture_folder: str | None) -> dict[str, object]:
    if payload is None:
        return {"uri": f"{texture_folder}{quote(name)}.png"}
    return {"bufferView": binary.add(payload), "mimeType": "image/png"}


def _pack_glb(document: dict[str, object], body: bytes) -> bytes:
    """Pack a document and its buffer as GLB: header, JSON padded with spaces, BIN padded with zeros (glTF 2.0, 4.4)."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body += bytes(-len(body) % 4)
    return b"".join(
        (
            struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(body)),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(body), b"BIN\0"),
            body,
        )
    )
