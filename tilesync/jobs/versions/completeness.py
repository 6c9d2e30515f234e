"""Completeness of a version: every file that its tilesets refer to is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tilesync.catalog.catalog import Catalog
from tilesync.errors import Incomplete
from tilesync.events import DiagnosticReported, Warned
from tilesync.jobs.versions.soundness import list_tolerated
from tilesync.jobs.versions.subtree_walk import SubtreeWalk
from tilesync.model import ROOT, Completeness, Diagnostic, Version
from tilesync.protocols import Observer, StoredFiles
from tilesync.tiles.graph import find_cycles

REPORT_ONLY_PROBLEMS = frozenset({"padding", "query", "empty URI"})
"""Problems that appear in the report only, without a warning."""


def missing_root_error() -> Incomplete:
    """Return the error for a container without a root tileset."""
    return Incomplete(
        f"the container has no {ROOT}: it does not hold a complete mesh export",
        hint="this export was not published; check that SOURCE is the container or folder of a 3D Tiles export",
    )


def compute_completeness(version: Version, catalog: Catalog, files: StoredFiles) -> Completeness:
    """Follow all subtrees, then count references and missing files. `list_unmet` works after this call."""
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


def list_unmet(version: Version, catalog: Catalog) -> Iterator[UnmetReference]:
    """Yield every reference to a file that is not stored; after `compute_completeness`."""
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
