"""Role of a file in a tileset, by the ending of its name: a manifest has names, and no tile is read."""

from __future__ import annotations

from typing import Final

from tilesync.model import Role

TILESET: Final = "tileset"
OTHER: Final = "other"
"""Role of a file whose name does not tell it."""

_ENDINGS = {
    TILESET: "json",
    Role.SUBTREE.value: "subtree",
    Role.CONTENT.value: "b3dm cmpt geojson geom glb gltf i3dm pnts vctr",
    Role.BUFFER.value: "bin",
    Role.IMAGE.value: "basis jpeg jpg ktx ktx2 png webp",
    Role.SHADER.value: "frag glsl vert",
}
ROLES: Final = (*_ENDINGS, OTHER)
"""All roles, the most important ones first."""

_ROLE_BY_ENDING = {f".{ending}".encode(): role for role, endings in _ENDINGS.items() for ending in endings.split()}


def cut_ending(name: bytes) -> bytes:
    """Return the ending of a name with its dot; the last letter if the name has no dot."""
    return name[name.rfind(b".") :]


def find_role(ending: bytes) -> str:
    """Return the role of files whose names have this ending, as `cut_ending` returns it."""
    return _ROLE_BY_ENDING.get(ending) or _ROLE_BY_ENDING.get(ending.lower(), OTHER)
