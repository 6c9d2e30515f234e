"""Held files that are broken, or of no use for who asks for them: which of them keep a version from being published.

A file that the container holds so is mirrored so, and told. One that nothing asks for harms nobody. A broken content,
subtree, schema or model takes a part of the scene with it, so it is an error; an image or a buffer is one where nothing
proves that the container holds it so: a walk takes what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.model import DamagedFile, Diagnostic, Inventory, Role, Version
from tilesync.protocols import Catalog

_SCENE_ROLES = frozenset({Role.CONTENT, Role.SUBTREE, Role.SCHEMA, Role.MODEL})


def list_unusable(version: Version, catalog: Catalog) -> list[DamagedFile]:
    """The files that something asks for in vain; after `settle`."""
    return [each for each in catalog.references.list_damaged(version) if _blocks_publication(version, each)]


def list_tolerated(version: Version, catalog: Catalog) -> Iterator[tuple[str, Diagnostic]]:
    """Every other file that is broken or of no use, with what is to be said of it; after `settle`."""
    for each in catalog.references.list_damaged(version):
        if not each.role:
            yield each.name, Diagnostic("damaged orphan", f"{each.reason}; nothing asks for it")
        elif not _blocks_publication(version, each):
            yield each.name, Diagnostic("damaged", describe_damage(each))


def describe_damage(damaged_file: DamagedFile) -> str:
    """What is wrong with a file, and for whom."""
    return (
        f"{damaged_file.reason}; {damaged_file.referrer} asks for it ({damaged_file.role})"
        if damaged_file.referrer
        else damaged_file.reason
    )


def is_essential(damaged_file: DamagedFile) -> bool:
    """Whether what asks for the file is lost without it: nobody can be asked to bear that."""
    return damaged_file.role in _SCENE_ROLES


def _blocks_publication(version: Version, damaged_file: DamagedFile) -> bool:
    return is_essential(damaged_file) or (
        bool(damaged_file.role) and version.inventory == Inventory.WALK and not damaged_file.has_stated_md5
    )
