"""What files of 3D Tiles are, what they ask for, and what is to be said of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

ROOT = "tileset.json"
"""The name of the root tileset in every mesh export (Mesh Export API, "Streaming 3DTiles")."""


POINTER = "tileset.json"
"""The name of the pointer at the top of a destination."""


class Role(StrEnum):
    """What one file asks another for. `UNKNOWN`: a URI in an extension that tilesync does not know."""

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
    """What a file is, told by its payload, never by its name. `NONE`: nothing that tilesync knows."""

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
    """One file asks for another: `target` is the name of a blob of the same container."""

    target: str
    role: Role


class Diagnostic(NamedTuple):
    """Something about a file that a person may want to know and that is no error. `problem` is one word for it."""

    problem: str
    detail: str


class ParsedContent(NamedTuple):
    """What the bytes of one file say. `implicit`: it is a tileset with implicit tiling, so its subtrees say more."""

    kind: Kind = Kind.NONE
    references: tuple[Reference, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    has_implicit_tiling: bool = False


class DamagedFile(NamedTuple):
    """A held file that is broken, or of no use for who asks for it. `role` is empty where nothing asks, `asker` also
    of the root, which every viewer asks for. `stated`: the container states the MD5 of these bytes.
    """

    name: str
    reason: str
    referrer: str = ""
    role: str = ""
    has_stated_md5: bool = False


DAMAGED: Final = "damaged"
"""The problem of a file whose structure is broken, and that the container holds so."""


EMPTY_TILE: Final = "empty tile"
"""The problem of a tile without any bytes: for who asks for it, it is missing."""


REQUIRED_BUFFER_BYTES: Final = "buffer"
"""No problem: the detail says how many bytes a file needs another to have at least, and its name, after a blank."""


UNPACKED_BYTES: Final = "unpacked"
"""No problem: the detail says how many bytes a file of no known kind has once it is unpacked."""


UNFOLLOWED: Final = "unfollowed"
"""The problem of a file with URIs that lead elsewhere, or stand where nobody knows what they are."""


ROOT_LEADS_AWAY: Final = "leads away"
"""The problem of the root where contents or subtrees of it lie elsewhere: no copy of the container is all of it."""


ABSOLUTE_URL: Final = "absolute URL"
"""The problem of a file with URIs that lead back to its container, from wherever a copy of it stands."""


URIS_ELSEWHERE_PHRASE: Final = " URIs lead elsewhere: "
"""What stands behind the number of URIs in a remark on several of them."""
