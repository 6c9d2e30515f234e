"""Whether a version is complete by meaning: everything that its files ask for is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tilesync.errors import Incomplete
from tilesync.events import DiagnosticReported, Warned
from tilesync.jobs.versions.soundness import list_tolerated
from tilesync.jobs.versions.subtree_walk import SubtreeWalk
from tilesync.model import ROOT, Completeness, Diagnostic, Version
from tilesync.protocols import Catalog, Observer, StoredFiles
from tilesync.tiles.graph import find_cycles

REPORT_ONLY_PROBLEMS = frozenset({"padding", "query", "empty URI"})
"""Remarks that are worth a line in a report, and no warning."""


def missing_root_error() -> Incomplete:
    """The error for a container without a root tileset, however that came to light."""
    return Incomplete(
        f"the container has no {ROOT}: what it holds is no mesh export, or not a whole one",
        hint="this export was not published; is this the container, or the folder in one, of a 3D Tiles export?",
    )


def compute_completeness(version: Version, catalog: Catalog, files: StoredFiles) -> Completeness:
    """Follow the subtrees to their end, then count. What is missing can be asked for afterwards."""
    SubtreeWalk(version, catalog, files).advance(is_final=True)
    return catalog.references.compute_completeness(version)


def report_diagnostics(version: Version, catalog: Catalog, observe: Observer) -> None:
    """Tell every remark on the files of a version, and one warning for each kind of them; after `settle`."""
    counts = Counter[str]()
    first: dict[str, str] = {}
    for name, remark in _list_diagnostics(version, catalog):
        observe(DiagnosticReported(name, remark.problem, remark.detail))
        counts[remark.problem] += 1
        first.setdefault(remark.problem, f"{name}: {remark.detail}")
    for problem, count in counts.items():
        if problem not in REPORT_ONLY_PROBLEMS:
            more = f" (and {count - 1:,} more)" if count > 1 else ""
            observe(Warned(f"{problem}: {first[problem]}{more}"))


def _list_diagnostics(version: Version, catalog: Catalog) -> Iterator[tuple[str, Diagnostic]]:
    yield from catalog.references.list_diagnostics(version)
    yield from list_tolerated(version, catalog)
    for source, target in find_cycles(catalog.references.list_tileset_references(version)):
        yield source, Diagnostic("cycle", f"asks for {target}, which leads back to it")


@dataclass(frozen=True, slots=True)
class UnmetReference:
    """Something that a file asks for and that is not there. `name` is None where no copy could hold it: the asker names
    what is no safe name, or says it in a way that cannot be read. `held`: a tile without any bytes is there, all the
    same it is none.
    """

    name: str | None
    referrer: str
    message: str
    is_stored: bool = False

    @property
    def subject(self) -> str:
        """The file that it is about."""
        return self.name or self.referrer


def list_unmet(version: Version, catalog: Catalog) -> Iterator[UnmetReference]:
    """Everything that is asked for and not there; after `settle`."""
    for what, asker, role in catalog.references.list_missing(version):
        if role:
            is_empty = bool(catalog.find_stored(version, [what]))
            state = "is empty" if is_empty else "is not there"
            yield UnmetReference(what, asker, f"{what} {state}; {asker} asks for it ({role})", is_stored=is_empty)
        else:
            yield UnmetReference(None, asker, what if what.startswith(f"{asker}: ") else f"{asker}: {what}")
