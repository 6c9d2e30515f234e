"""What implicit tilesets ask for: their subtrees say it, one after another, as soon as they are held.

Source: 3D Tiles 1.1, "Implicit Tiling": templates are relative to the tileset, the URIs of a subtree's buffers to the
subtree; a content's URI may be replaced by metadata with the semantic CONTENT_URI.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from tilesync.core.gzip import unpacked
from tilesync.errors import BlobDamaged
from tilesync.jobs.versions.file_check import SPOOL
from tilesync.model import ROOT, Reading, Remark, Role, Version
from tilesync.protocols import Catalog, HeldFiles
from tilesync.tiles.availability import Expansion as Announced
from tilesync.tiles.availability import expand
from tilesync.tiles.implicit_tiling import Cell, Implicit, Subtree, fill, parse_subtree, variables_missing
from tilesync.tiles.json_documents import Document
from tilesync.tiles.references import References
from tilesync.tiles.uris import Inside, resolve, shown

LARGEST = 1 << 28
"""Bytes of a subtree, and of its buffers together, at most: they are read whole."""

MOST_BRANCHES = 1 << 20
"""Child subtrees that one subtree may ask for: a few bytes can announce many more."""

MOST_CONTENTS = 1 << 22
"""Contents that one subtree may ask for."""

MOST_REPEATED = 1 << 20
"""Files that subtrees may announce, all in all, where they serve a tile that is not their first."""

AGAIN = 64
"""As many files a subtree counts as that is followed again: so much time it takes, a third of a millisecond."""

FIRST = 1 << 14
"""Files that subtrees may ask for before the first look at whether they are there."""

_NOT_FROM_HERE = (
    "its subtrees may name contents by CONTENT_URI, relative to the folder of their version: a reader that knows it"
    " must begin with the tileset.json there, not with the one at the top"
)
_TOGETHER = 500
_SCENE = Cell(0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Root:
    """An implicit root tile; `content_uris` is what the tileset's schema says."""

    number: int
    tileset: str
    implicit: Implicit
    content_uris: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Branch:
    """A subtree that a root asks for; `name` is its file, `awaits` the file that it needs next: its own or a buffer."""

    root: _Root
    cell: Cell
    name: str
    awaits: str


class Expansion:
    """Follows the subtrees of one version through the files that are held, and records what they ask for.

    A subtree file may serve several tiles, and is followed for each. It keeps in memory which subtrees wait for their
    files; the next one begins with the tilesets again, and what an
    earlier one recorded of a file is void then: schema, buffers and templates may have changed.
    """

    def __init__(self, version: Version, catalog: Catalog, files: HeldFiles) -> None:
        self._version = version
        self._catalog = catalog
        self._files = files
        self._begun: set[str] = set()
        self._seen: set[tuple[int, str]] = set()
        self._barren: set[tuple[int, str]] = set()
        self._told: set[str] = set()
        self._grown: set[str] = set()
        self._waiting: list[_Branch] = []
        self._steps: list[Iterator[_Branch | None]] = []
        self._roots = 0
        self._repeated = 0
        self._asked = 0
        self._checkpoint = FIRST
        self._tileset = ROOT
        self._stopped = False

    def grow(self, *, last: bool = False) -> set[str]:
        """Follow what can be followed now; the files that are found to ask for more. Reads held files.

        `last`: nothing more comes, so a schema that is not there is taken for one that says nothing, what has been
        asked for is there or missing, and only what viewers come to from the root is followed, which may lead to more.
        """
        waiting, self._waiting = self._waiting, []
        while True:
            begun = len(self._begun)
            for tileset in self._implicit(last=last):
                waiting += self._begin(tileset, last=last)
            self._follow_all(waiting, last=last)
            waiting = []
            if not last or len(self._begun) == begun:
                break
        grown, self._grown = self._grown, set()
        return grown

    def _implicit(self, *, last: bool) -> list[str]:
        """The tilesets to take up. Once everything is there those that nothing leads to are left alone: what they
        claim costs time, and must not end the following of those that viewers come to.
        """
        if self._stopped:
            return []
        found = [name for name in self._catalog.references.implicit(self._version) if name not in self._begun]
        if not found or not last:
            return found
        reached = set(self._catalog.references.implicit(self._version, reached=True))
        return [name for name in found if name in reached]

    def _follow_all(self, waiting: Iterable[_Branch], *, last: bool) -> None:
        self._steps.append(iter(waiting))
        while self._steps and self._may_go_on(last=last):
            branches = list(_until_a_pause(self._steps[-1]))
            if not branches:
                self._steps.pop()
            self._steps += [self._follow(branch) for branch in self._ready(filter(None, branches))]

    def _may_go_on(self, *, last: bool) -> bool:
        """Whether more may be asked for: a few bytes can announce a million files, which are not asked for before it is
        known that those asked for so far are there. From one look to the next their number doubles.
        """
        if self._asked < self._checkpoint:
            return True
        if not last:
            return False
        self._checkpoint = 2 * self._asked
        announced, lacking = self._catalog.references.announced(self._version)
        if lacking * 16 > announced * 15:
            sentence = f"its subtrees announce {FIRST:,} files or more, of which hardly any is there: they are given up"
            self._remark(self._tileset, "unreadable", sentence)
            self._stopped = True
            self._steps, self._waiting = [], []
        return not self._stopped

    def _ready(self, branches: Iterable[_Branch]) -> list[_Branch]:
        """The branches that can be followed now; the others wait."""
        some = list(branches)
        held = self._held({branch.awaits for branch in some})
        self._waiting += [branch for branch in some if branch.awaits not in held]
        return [branch for branch in some if branch.awaits in held]

    # --- tilesets ---

    def _begin(self, tileset: str, *, last: bool) -> list[_Branch]:
        """Take up the implicit roots of a tileset, once its schema is there to do so."""
        schemas = self._catalog.references.of(self._version, tileset, Role.SCHEMA)
        held = self._held(schemas)
        if len(held) < len(schemas) and not last:
            return []
        self._begun.add(tileset)
        document = self._document(tileset)
        uris = dict(document.content_uris)
        for schema in held:
            uris.update(self._document(schema).content_uris)
        branches = list[_Branch]()
        if uris and tileset == ROOT and document.implicit:
            self._remark(tileset, "pointer", _NOT_FROM_HERE)
        asked = self._asking(tileset)
        for implicit in document.implicit:
            for sentence in variables_missing(implicit):
                self._remark(tileset, "template", sentence)
            self._roots += 1
            root = _Root(self._roots, tileset, implicit, uris)
            branches += self._branch(root, _SCENE, fill(implicit.subtrees, _SCENE), asked)
        self._tell(tileset, asked)
        return branches

    def _document(self, name: str) -> Document:
        """A held document, as far as it can be read: what it is was judged when it passed."""
        self._void(name)
        document = Document(lambda role, uri: None)
        try:
            for chunk in unpacked(self._files.chunks(self._version, name)):
                document.feed(chunk)
            document.finish()
        except BlobDamaged as error:
            self._remark(name, "unreadable", f"{name}: {error}")
        return document

    # --- subtrees ---

    def _branch(self, root: _Root, cell: Cell, uri: str, asked: References) -> Iterator[_Branch]:
        """The branch of a cell, once it is clear which file it is; what lies in an archive is not walked."""
        asked(Role.SUBTREE, uri)
        target = resolve(uri, root.tileset, self._version.home)
        if isinstance(target, Inside) and not target.inner and (root.number, target.name) not in self._barren:
            yield _Branch(root, cell, target.name, target.name)

    def _follow(self, branch: _Branch) -> Iterator[_Branch | None]:
        """Record what one held subtree asks for; the branches behind it, or itself while a buffer of it is not held.
        None is a pause, after as much as is recorded at once.
        """
        self._void(branch.name)
        try:
            yield from self._expand(branch)
        except BlobDamaged as error:
            self._remark(branch.name, "unreadable", str(error))

    def _expand(self, branch: _Branch) -> Iterator[_Branch | None]:
        root = branch.root
        self._tileset = root.tileset
        if (root.number, branch.name) in self._barren:
            return
        subtree = parse_subtree(self._bytes(branch.name), branch.name)
        buffers = self._buffers(subtree)
        if isinstance(buffers, str):
            yield replace(branch, awaits=buffers)
            return
        found = self._announced(branch, subtree, buffers)
        if not self._may_be_followed(branch, found):
            return
        for sentence in found.problems:
            self._remark(branch.name, "availability", sentence)
        asked = self._asking(root.tileset)
        for uri in found.contents:
            asked(Role.CONTENT, uri)
            self._asked += 1
            if len(asked) >= SPOOL:
                self._tell(branch.name, asked, last=False)
                yield None
        for cell, uri in found.subtrees:
            yield from self._branch(root, cell, uri, asked)
            self._asked += 1
            if len(asked) >= SPOOL:
                self._tell(branch.name, asked, last=False)
                yield None
        self._tell(branch.name, asked)

    def _may_be_followed(self, branch: _Branch, found: Announced) -> bool:
        """Whether a subtree is followed at its cell: at the first one always; at others, since a template may lack a
        variable, within the available levels, until that is too much. One that announces nothing does so everywhere.
        """
        root, key = branch.root, (branch.root.number, branch.name)
        if not found.count:
            self._barren.add(key)
        first = key not in self._seen
        self._seen.add(key)
        if first or not found.count:
            return True
        if branch.cell.level >= root.implicit.available_levels:
            self._remark(
                branch.name, "cycle", "it is asked for below the available levels again, and not followed there"
            )
            return False
        self._repeated += found.count + AGAIN
        if self._repeated > MOST_REPEATED:
            sentence = "it serves too many tiles: not all of what they ask for is known"
            self._remark(branch.name, "unreadable", sentence)
            self._barren.add(key)
            return False
        return True

    def _buffers(self, subtree: Subtree) -> dict[str, bytes] | str:
        """The buffers that a subtree needs, by URI; the name of one that is not held."""
        names = dict[str, str]()
        for uri in subtree.needed:
            target = resolve(uri, subtree.name, self._version.home)
            if not isinstance(target, Inside):
                raise BlobDamaged(f"{subtree.name}: its buffer {shown(uri)} leads elsewhere")
            names[uri] = target.name
        held = self._held(names.values())
        if missing := next((name for name in names.values() if name not in held), None):
            return missing
        buffers, total = dict[str, bytes](), 0
        for uri, name in names.items():
            buffers[uri] = self._bytes(name)
            total += len(buffers[uri])
            if total > LARGEST:
                raise BlobDamaged(f"{subtree.name}: its buffers have more than {LARGEST:,} bytes")
        return buffers

    def _announced(self, branch: _Branch, subtree: Subtree, buffers: Mapping[str, bytes]) -> Announced:
        """What a subtree announces, counted first where it could be too much: it can be walked but once."""
        implicit = branch.root.implicit

        def again() -> Announced:
            return expand(subtree, implicit, branch.cell, buffers, content_uris=branch.root.content_uris)

        found, children = again(), (8 if implicit.octree else 4) ** implicit.subtree_levels
        if children > MOST_BRANCHES and _exceeds(again().subtrees, MOST_BRANCHES):
            raise BlobDamaged(f"{branch.name}: it asks for more than {MOST_BRANCHES:,} child subtrees")
        if children * len(implicit.contents) > MOST_CONTENTS and _exceeds(again().contents, MOST_CONTENTS):
            raise BlobDamaged(f"{branch.name}: it asks for more than {MOST_CONTENTS:,} contents")
        return found

    # --- held files, and the catalog ---

    def _held(self, names: Iterable[str]) -> set[str]:
        return set(self._catalog.held_among(self._version, list(names)))

    def _bytes(self, name: str) -> bytes:
        size = self._files.size(self._version, name)
        if size is None:
            raise BlobDamaged(f"{name}: it is not where it was left")
        if size > LARGEST:
            raise BlobDamaged(f"{name}: a subtree, or a buffer of one, of more than {LARGEST:,} bytes")
        return self._files.read(self._version, name)

    def _asking(self, tileset: str) -> References:
        return References(tileset, self._version.home)

    def _void(self, source: str) -> None:
        """What earlier ones told of a file does not hold any more."""
        if source not in self._told:
            self._told.add(source)
            self._catalog.references.add(self._version, source, Reading(), anew=True, grown=True)

    def _tell(self, source: str, asked: References, *, last: bool = True) -> None:
        references, remarks = asked.take(last=last)
        if references or remarks:
            self._grown.add(source)
            grown = Reading(references=references, remarks=remarks)
            self._catalog.references.add(self._version, source, grown, grown=True)

    def _remark(self, source: str, problem: str, detail: str) -> None:
        grown = Reading(remarks=(Remark(problem, detail),))
        self._catalog.references.add(self._version, source, grown, grown=True)


def _until_a_pause(branches: Iterator[_Branch | None]) -> Iterator[_Branch | None]:
    """Some of the branches; the first of them alone, where it is a pause."""
    for branch in islice(branches, _TOGETHER):
        yield branch
        if branch is None:
            return


def _exceeds(found: Iterator[object], most: int) -> bool:
    return next(islice(found, most, None), None) is not None
