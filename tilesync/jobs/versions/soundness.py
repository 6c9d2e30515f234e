"""Held files that are broken, or of no use for who asks for them: which of them keep a version from being published.

A file that the container holds so is mirrored so, and told. One that nothing asks for harms nobody. A broken content,
subtree, schema or model takes a part of the scene with it, so it is an error; an image or a buffer is one where nothing
proves that the container holds it so: a walk takes what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.model import Inventory, Remark, Role, Unsound, Version
from tilesync.protocols import Catalog

_OF_THE_SCENE = frozenset({Role.CONTENT, Role.SUBTREE, Role.SCHEMA, Role.MODEL})


def unusable(version: Version, catalog: Catalog) -> list[Unsound]:
    """The files that something asks for in vain; after `settle`."""
    return [each for each in catalog.references.unsound(version) if _is_error(version, each)]


def bearable(version: Version, catalog: Catalog) -> Iterator[tuple[str, Remark]]:
    """Every other file that is broken or of no use, with what is to be said of it; after `settle`."""
    for each in catalog.references.unsound(version):
        if not each.role:
            yield each.name, Remark("damaged orphan", f"{each.reason}; nothing asks for it")
        elif not _is_error(version, each):
            yield each.name, Remark("damaged", sentence(each))


def sentence(each: Unsound) -> str:
    """What is wrong with a file, and for whom."""
    return f"{each.reason}; {each.asker} asks for it ({each.role})" if each.asker else each.reason


def is_of_the_scene(each: Unsound) -> bool:
    """Whether what asks for the file is lost without it: nobody can be asked to bear that."""
    return each.role in _OF_THE_SCENE


def _is_error(version: Version, each: Unsound) -> bool:
    return is_of_the_scene(each) or (bool(each.role) and version.inventory == Inventory.WALK and not each.stated)
