"""Whether a version is complete by meaning: everything that its files ask for is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tilesync.errors import Incomplete
from tilesync.events import Remarked, Warned
from tilesync.jobs.versions.soundness import bearable
from tilesync.jobs.versions.subtree_walk import Expansion
from tilesync.model import ROOT, Completeness, Remark, Version
from tilesync.protocols import Catalog, HeldFiles, Observer
from tilesync.tiles.graph import cycles

QUIET = frozenset({"padding", "query", "empty URI"})
"""Remarks that are worth a line in a report, and no warning."""


def rootless() -> Incomplete:
    """The error for a container without a root tileset, however that came to light."""
    return Incomplete(
        f"the container has no {ROOT}: what it holds is no mesh export, or not a whole one",
        hint="this export was not published; is this the container, or the folder in one, of a 3D Tiles export?",
    )


def settle(version: Version, catalog: Catalog, files: HeldFiles) -> Completeness:
    """Follow the subtrees to their end, then count. What is missing can be asked for afterwards."""
    Expansion(version, catalog, files).grow(last=True)
    return catalog.references.settle(version)


def tell_remarks(version: Version, catalog: Catalog, observe: Observer) -> None:
    """Tell every remark on the files of a version, and one warning for each kind of them; after `settle`."""
    counts = Counter[str]()
    first: dict[str, str] = {}
    for name, remark in _remarks(version, catalog):
        observe(Remarked(name, remark.problem, remark.detail))
        counts[remark.problem] += 1
        first.setdefault(remark.problem, f"{name}: {remark.detail}")
    for problem, count in counts.items():
        if problem not in QUIET:
            more = f" (and {count - 1:,} more)" if count > 1 else ""
            observe(Warned(f"{problem}: {first[problem]}{more}"))


def _remarks(version: Version, catalog: Catalog) -> Iterator[tuple[str, Remark]]:
    yield from catalog.references.remarks(version)
    yield from bearable(version, catalog)
    for source, target in cycles(catalog.references.between_tilesets(version)):
        yield source, Remark("cycle", f"asks for {target}, which leads back to it")


@dataclass(frozen=True, slots=True)
class Unmet:
    """Something that a file asks for and that is not there. `name` is None where no copy could hold it: the asker names
    what is no safe name, or says it in a way that cannot be read. `held`: a tile without any bytes is there, all the
    same it is none.
    """

    name: str | None
    asker: str
    message: str
    held: bool = False

    @property
    def where(self) -> str:
        """The file that it is about."""
        return self.name or self.asker


def unmet(version: Version, catalog: Catalog) -> Iterator[Unmet]:
    """Everything that is asked for and not there; after `settle`."""
    for what, asker, role in catalog.references.missing(version):
        if role:
            is_empty = bool(catalog.held_among(version, [what]))
            state = "is empty" if is_empty else "is not there"
            yield Unmet(what, asker, f"{what} {state}; {asker} asks for it ({role})", held=is_empty)
        else:
            yield Unmet(None, asker, what if what.startswith(f"{asker}: ") else f"{asker}: {what}")
