"""Kinds of 3D Tiles files, their references to other files, and diagnostics about them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

ROOT = "tileset.json"
"""Name of the root tileset in every mesh export (Mesh Export API, "Streaming 3DTiles")."""


POINTER = "tileset.json"
"""Name of the pointer at the top of a destination."""


class Role(StrEnum):
    """Purpose of a reference from one file to another. `UNKNOWN`: a URI in an unknown extension."""

    CONTENT = "content"
    SUBTREE = "subtree"
    SCHEMA = "schema"
    BUFFER = "buffer"
    IMAGE = "image"
    SHADER = "shader"
    MODEL = "model"
    EXTENT = "extent"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """Kind of a file, detected from its payload, never from its name. `NONE`: unknown to tilesync."""

    TILESET = "tileset"
    SUBTREE = "subtree"
    GLB = "glb"
    GLTF = "gltf"
    B3DM = "b3dm"
    I3DM = "i3dm"
    PNTS = "pnts"
    CMPT = "cmpt"
    VECTOR = "vector"
    VOXELS = "voxels"
    GEOJSON = "geojson"
    SCHEMA = "schema"
    IMAGE = "image"
    ARCHIVE = "archive"
    JSON = "json"
    EMPTY = "empty"
    NONE = ""


class Reference(NamedTuple):
    """Reference from one file to another; `target` is the name of a blob in the same container."""

    target: str
    role: Role


class Diagnostic(NamedTuple):
    """Remark about a file that may interest a person but is no error. `problem` names it in a word or two."""

    problem: str
    detail: str


class ParsedContent(NamedTuple):
    """References and diagnostics found in the bytes of one file.

    `has_implicit_tiling`: a tileset with implicit tiling, so its subtrees have more references.
    """

    kind: Kind = Kind.NONE
    references: tuple[Reference, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    has_implicit_tiling: bool = False


class DamagedFile(NamedTuple):
    """Stored file that is broken, or unusable for the file that refers to it.

    `role` is empty if nothing refers to it; `referrer` also for the root, which every viewer opens. `has_stated_md5`:
    the container states the MD5 of these bytes.
    """

    name: str
    reason: str
    referrer: str = ""
    role: str = ""
    has_stated_md5: bool = False


DAMAGED: Final = "damaged"
"""Problem of a file whose structure is broken, in the container too."""


EMPTY_TILE: Final = "empty tile"
"""Problem of a tile with zero bytes: for a file that refers to it, it is missing."""


REQUIRED_BUFFER_BYTES: Final = "buffer"
"""Not a problem: the detail is the minimum bytes that a file needs of a buffer, a blank, and the buffer's name."""


UNPACKED_BYTES: Final = "unpacked"
"""Not a problem: the detail is the unpacked size in bytes of a file of unknown kind."""


UNFOLLOWED: Final = "unfollowed"
"""Problem of a file with URIs that lead outside the container, or whose purpose is unknown."""


ROOT_LEADS_AWAY: Final = "leads away"
"""Problem of a root tileset with contents or subtrees outside the container: no copy of it is complete."""


ABSOLUTE_URL: Final = "absolute URL"
"""Problem of a file with absolute URIs into its own container: a copy elsewhere still leads there."""


URIS_ELSEWHERE_PHRASE: Final = " URIs lead elsewhere: "
"""Text after the number of URIs in a diagnostic that counts several."""
