"""tilesync mirrors 3D Tiles exports of the iTwin Mesh Export service, whole and verified."""

__version__ = "0.1.0"
