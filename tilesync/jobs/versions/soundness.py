"""Soundness of a version: damaged or unusable files, and which of them prevent publication.

A file that is damaged in the container is mirrored unchanged, and reported. A damaged file that nothing refers to is
harmless. A damaged content, subtree, schema or model makes a part of the scene disappear, so it is an error. A damaged
image or buffer is an error only if no MD5 proves that the container holds it like that, after a walk.
"""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.catalog.catalog import Catalog
from tilesync.model import DamagedFile, Diagnostic, Inventory, Role, Version

_SCENE_ROLES = frozenset({Role.CONTENT, Role.SUBTREE, Role.SCHEMA, Role.MODEL})


def list_unusable(version: Version, catalog: Catalog) -> list[DamagedFile]:
    """List the damaged files that prevent publication; after `compute_completeness`."""
    return [each for each in catalog.references.list_damaged(version) if _blocks_publication(version, each)]


def list_tolerated(version: Version, catalog: Catalog) -> Iterator[tuple[str, Diagnostic]]:
    """Yield the damaged files that do not prevent publication, with a diagnostic; after `compute_completeness`."""
    for each in catalog.references.list_damaged(version):
        if not each.role:
            yield each.name, Diagnostic("damaged orphan", f"{each.reason}; nothing refers to it")
        elif not _blocks_publication(version, each):
            yield each.name, Diagnostic("damaged", describe_damage(each))


def describe_damage(damaged_file: DamagedFile) -> str:
    """Describe the damage of a file, and a file that refers to it."""
    return (
        f"{damaged_file.reason}; {damaged_file.referrer} refers to it ({damaged_file.role})"
        if damaged_file.referrer
        else damaged_file.reason
    )


def is_essential(damaged_file: DamagedFile) -> bool:
    """Return whether a part of the scene is lost without the file; --allow-missing does not permit that."""
    return damaged_file.role in _SCENE_ROLES


def _blocks_publication(version: Version, damaged_file: DamagedFile) -> bool:
    return is_essential(damaged_file) or (
        bool(damaged_file.role) and version.inventory == Inventory.WALK and not damaged_file.has_stated_md5
    )
