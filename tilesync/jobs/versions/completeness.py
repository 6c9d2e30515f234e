"""Completeness of a version: every file that its tilesets refer to is stored, and none of them is damaged.

A file that is damaged in the container is mirrored unchanged, and reported. A damaged file that nothing refers to is
harmless. A damaged content, subtree, schema or model makes a part of the scene disappear, so it is an error. A damaged
image or buffer is an error only if no MD5 proves that the container holds it like that, after a walk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tilesync.catalog.catalog import Catalog
from tilesync.errors import Incomplete
from tilesync.events import DiagnosticReported, Warned
from tilesync.model import ROOT, Completeness, DamagedFile, Diagnostic, Inventory, Role, Version
from tilesync.protocols import Observer, StoredFiles
from tilesync.tiles.graph import find_cycles
from tilesync.values import dataclass

REPORT_ONLY_PROBLEMS = frozenset({"padding", "query", "empty URI"})
"""Problems that appear in the report only, without a warning."""

_SCENE_ROLES = frozenset({Role.CONTENT, Role.SUBTREE, Role.SCHEMA, Role.MODEL})


def missing_root_error() -> Incomplete:
    """Return the error for a container without a root tileset."""
    return Incomplete(
        f"the container has no {ROOT}: it does not hold a complete mesh export",
        hint="this export was not published; check that SOURCE is the container or folder of a 3D Tiles export",
    )


def compute_completeness(version: Version, catalog: Catalog, files: StoredFiles) -> Completeness:
    """Follow all subtrees, then count references and missing files. `list_unmet` works after this call."""
    from tilesync.jobs.versions.subtree_walk import SubtreeWalk  # late: a run without changes follows no subtree

    SubtreeWalk(version, catalog, files).advance(is_final=True)
    return catalog.references.compute_completeness(version)


def report_diagnostics(version: Version, catalog: Catalog, observe: Observer) -> None:
    """Emit an event for each diagnostic of a version, and one warning per problem; after `compute_completeness`."""
    counts = Counter[str]()
    first_details: dict[str, str] = {}
    for name, diagnostic in _list_diagnostics(version, catalog):
        observe(DiagnosticReported(name, diagnostic.problem, diagnostic.detail))
        counts[diagnostic.problem] += 1
        first_details.setdefault(diagnostic.problem, f"{name}: {diagnostic.detail}")
    for problem, count in counts.items():
        if problem not in REPORT_ONLY_PROBLEMS:
            more = f" (and {count - 1:,} more)" if count > 1 else ""
            observe(Warned(f"{problem}: {first_details[problem]}{more}"))


def _list_diagnostics(version: Version, catalog: Catalog) -> Iterator[tuple[str, Diagnostic]]:
    yield from catalog.references.list_diagnostics(version)
    yield from list_tolerated(version, catalog)
    for source, target in find_cycles(catalog.references.list_tileset_references(version)):
        yield source, Diagnostic("cycle", f"refers to {target}, which leads back to it")


@dataclass(frozen=True, slots=True)
class UnmetReference:
    """A reference to a file that is not stored.

    `name` is None if no copy can hold the file: its name is not safe, or the reference cannot be read.
    `is_stored`: the file is there but has no bytes, which is no valid tile.
    """

    name: str | None
    referrer: str
    message: str
    is_stored: bool = False

    @property
    def subject(self) -> str:
        """Name of the missing file, or of the referrer if it has no usable name."""
        return self.name or self.referrer


def list_unmet(version: Version, catalog: Catalog, completeness: Completeness) -> Iterator[UnmetReference]:
    """Yield every reference to a file that is not stored; `completeness` is the result of `compute_completeness`."""
    if not completeness.missing:
        return
    for target, referrer, role in catalog.references.list_missing(version):
        if role:
            is_empty = bool(catalog.find_stored(version, [target]))
            state = "is empty" if is_empty else "is not there"
            yield UnmetReference(
                target, referrer, f"{target} {state}; {referrer} refers to it ({role})", is_stored=is_empty
            )
        else:
            yield UnmetReference(
                None, referrer, target if target.startswith(f"{referrer}: ") else f"{referrer}: {target}"
            )


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
