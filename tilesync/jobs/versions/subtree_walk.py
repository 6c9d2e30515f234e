"""What implicit tilesets ask for: their subtrees say it, one after another, as soon as they are held.

Source: 3D Tiles 1.1, "Implicit Tiling": templates are relative to the tileset, the URIs of a subtree's buffers to the
subtree; a content's URI may be replaced by metadata with the semantic CONTENT_URI.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from tilesync.core.gzip import gunzip_chunks_if_packed
from tilesync.errors import BlobDamaged
from tilesync.jobs.versions.file_check import MAX_REFERENCES_IN_MEMORY
from tilesync.model import ROOT, Diagnostic, ParsedContent, Role, Version
from tilesync.protocols import Catalog, StoredFiles
from tilesync.tiles.availability import SubtreeContents as Announced
from tilesync.tiles.availability import expand_subtree
from tilesync.tiles.implicit_tiling import (
    Cell,
    ImplicitTiling,
    Subtree,
    fill_template,
    find_missing_variables,
    parse_subtree,
)
from tilesync.tiles.json_documents import Document
from tilesync.tiles.references import ReferenceCollector
from tilesync.tiles.uris import ResolvedUri, redact_uri, resolve

MAX_SUBTREE_BYTES = 1 << 28
"""Bytes of a subtree, and of its buffers together, at most: they are read whole."""

MAX_CHILD_SUBTREES = 1 << 20
"""Child subtrees that one subtree may ask for: a few bytes can announce many more."""

MAX_CONTENTS_PER_SUBTREE = 1 << 22
"""Contents that one subtree may ask for."""

MAX_REPEATED_FILES = 1 << 20
"""Files that subtrees may announce, all in all, where they serve a tile that is not their first."""

FILES_PER_REPEAT = 64
"""As many files a subtree counts as that is followed again: so much time it takes, a third of a millisecond."""

FIRST_CHECKPOINT_FILES = 1 << 14
"""Files that subtrees may ask for before the first look at whether they are there."""

_CONTENT_URI_WARNING = (
    "its subtrees may name contents by CONTENT_URI, relative to the folder of their version: a reader that knows it"
    " must begin with the tileset.json there, not with the one at the top"
)
_BRANCHES_PER_BATCH = 500
_ROOT_CELL = Cell(0, 0, 0)


@dataclass(frozen=True, slots=True)
class _ImplicitRoot:
    """An implicit root tile; `content_uris` is what the tileset's schema says."""

    root_id: int
    tileset: str
    tiling: ImplicitTiling
    content_uri_properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _PendingSubtree:
    """A subtree that a root asks for; `name` is its file, `awaits` the file that it needs next: its own or a buffer."""

    root: _ImplicitRoot
    cell: Cell
    name: str
    awaited_name: str


class SubtreeWalk:
    """Follows the subtrees of one version through the files that are held, and records what they ask for.

    A subtree file may serve several tiles, and is followed for each. It keeps in memory which subtrees wait for their
    files; the next one begins with the tilesets again, and what an
    earlier one recorded of a file is void then: schema, buffers and templates may have changed.
    """

    def __init__(self, version: Version, catalog: Catalog, files: StoredFiles) -> None:
        self._version = version
        self._catalog = catalog
        self._files = files
        self._started_tilesets: set[str] = set()
        self._seen_subtrees: set[tuple[int, str]] = set()
        self._empty_subtrees: set[tuple[int, str]] = set()
        self._cleared_sources: set[str] = set()
        self._extended_sources: set[str] = set()
        self._waiting: list[_PendingSubtree] = []
        self._stack: list[Iterator[_PendingSubtree | None]] = []
        self._root_count = 0
        self._repeated_files = 0
        self._announced_files = 0
        self._next_checkpoint = FIRST_CHECKPOINT_FILES
        self._tileset = ROOT
        self._is_stopped = False

    def advance(self, *, is_final: bool = False) -> set[str]:
        """Follow what can be followed now; the files that are found to ask for more. Reads held files.

        `last`: nothing more comes, so a schema that is not there is taken for one that says nothing, what has been
        asked for is there or missing, and only what viewers come to from the root is followed, which may lead to more.
        """
        waiting, self._waiting = self._waiting, []
        while True:
            begun = len(self._started_tilesets)
            for tileset in self._find_new_tilesets(is_final=is_final):
                waiting += self._start_tileset(tileset, is_final=is_final)
            self._follow_all(waiting, is_final=is_final)
            waiting = []
            if not is_final or len(self._started_tilesets) == begun:
                break
        grown, self._extended_sources = self._extended_sources, set()
        return grown

    def _find_new_tilesets(self, *, is_final: bool) -> list[str]:
        """The tilesets to take up. Once everything is there those that nothing leads to are left alone: what they
        claim costs time, and must not end the following of those that viewers come to.
        """
        if self._is_stopped:
            return []
        found = [
            name
            for name in self._catalog.references.list_implicit_tilesets(self._version)
            if name not in self._started_tilesets
        ]
        if not found or not is_final:
            return found
        reached = set(self._catalog.references.list_implicit_tilesets(self._version, only_reached=True))
        return [name for name in found if name in reached]

    def _follow_all(self, waiting: Iterable[_PendingSubtree], *, is_final: bool) -> None:
        self._stack.append(iter(waiting))
        while self._stack and self._can_continue(is_final=is_final):
            branches = list(_take_until_pause(self._stack[-1]))
            if not branches:
                self._stack.pop()
            self._stack += [self._follow_branch(branch) for branch in self._select_ready(filter(None, branches))]

    def _can_continue(self, *, is_final: bool) -> bool:
        """Whether more may be asked for: a few bytes can announce a million files, which are not asked for before it is
        known that those asked for so far are there. From one look to the next their number doubles.
        """
        if self._announced_files < self._next_checkpoint:
            return True
        if not is_final:
            return False
        self._next_checkpoint = 2 * self._announced_files
        announced, lacking = self._catalog.references.count_announced(self._version)
        if lacking * 16 > announced * 15:
            sentence = (
                f"its subtrees announce {FIRST_CHECKPOINT_FILES:,} files or more, of which hardly any is there:"
                " they are given up"
            )
            self._add_diagnostic(self._tileset, "unreadable", sentence)
            self._is_stopped = True
            self._stack, self._waiting = [], []
        return not self._is_stopped

    def _select_ready(self, branches: Iterable[_PendingSubtree]) -> list[_PendingSubtree]:
        """The branches that can be followed now; the others wait."""
        some = list(branches)
        held = self._find_stored({branch.awaited_name for branch in some})
        self._waiting += [branch for branch in some if branch.awaited_name not in held]
        return [branch for branch in some if branch.awaited_name in held]

    # --- tilesets ---

    def _start_tileset(self, tileset: str, *, is_final: bool) -> list[_PendingSubtree]:
        """Take up the implicit roots of a tileset, once its schema is there to do so."""
        schemas = self._catalog.references.list_targets(self._version, tileset, Role.SCHEMA)
        held = self._find_stored(schemas)
        if len(held) < len(schemas) and not is_final:
            return []
        self._started_tilesets.add(tileset)
        document = self._parse_document(tileset)
        uris = dict(document.content_uri_properties)
        for schema in held:
            uris.update(self._parse_document(schema).content_uri_properties)
        branches = list[_PendingSubtree]()
        if uris and tileset == ROOT and document.implicit_tilings:
            self._add_diagnostic(tileset, "pointer", _CONTENT_URI_WARNING)
        asked = self._make_collector(tileset)
        for implicit in document.implicit_tilings:
            for sentence in find_missing_variables(implicit):
                self._add_diagnostic(tileset, "template", sentence)
            self._root_count += 1
            root = _ImplicitRoot(self._root_count, tileset, implicit, uris)
            branches += self._make_branches(
                root, _ROOT_CELL, fill_template(implicit.subtree_template, _ROOT_CELL), asked
            )
        self._save_references(tileset, asked)
        return branches

    def _parse_document(self, name: str) -> Document:
        """A held document, as far as it can be read: what it is was judged when it passed."""
        self._clear_earlier_references(name)
        document = Document(lambda role, uri: None)
        try:
            for chunk in gunzip_chunks_if_packed(self._files.chunks(self._version, name)):
                document.feed(chunk)
            document.finish()
        except BlobDamaged as error:
            self._add_diagnostic(name, "unreadable", f"{name}: {error}")
        return document

    # --- subtrees ---

    def _make_branches(
        self, root: _ImplicitRoot, cell: Cell, uri: str, collector: ReferenceCollector
    ) -> Iterator[_PendingSubtree]:
        """The branch of a cell, once it is clear which file it is; what lies in an archive is not walked."""
        collector(Role.SUBTREE, uri)
        target = resolve(uri, root.tileset, self._version.container_url)
        if (
            isinstance(target, ResolvedUri)
            and not target.archive_path
            and (root.root_id, target.name) not in self._empty_subtrees
        ):
            yield _PendingSubtree(root, cell, target.name, target.name)

    def _follow_branch(self, branch: _PendingSubtree) -> Iterator[_PendingSubtree | None]:
        """Record what one held subtree asks for; the branches behind it, or itself while a buffer of it is not held.
        None is a pause, after as much as is recorded at once.
        """
        self._clear_earlier_references(branch.name)
        try:
            yield from self._expand_branch(branch)
        except BlobDamaged as error:
            self._add_diagnostic(branch.name, "unreadable", str(error))

    def _expand_branch(self, branch: _PendingSubtree) -> Iterator[_PendingSubtree | None]:
        root = branch.root
        self._tileset = root.tileset
        if (root.root_id, branch.name) in self._empty_subtrees:
            return
        subtree = parse_subtree(self._read_file(branch.name), branch.name)
        buffers = self._read_buffers(subtree)
        if isinstance(buffers, str):
            yield replace(branch, awaited_name=buffers)
            return
        found = self._expand_within_limits(branch, subtree, buffers)
        if not self._should_follow(branch, found):
            return
        for sentence in found.problems:
            self._add_diagnostic(branch.name, "availability", sentence)
        asked = self._make_collector(root.tileset)
        for uri in found.contents:
            asked(Role.CONTENT, uri)
            self._announced_files += 1
            if len(asked) >= MAX_REFERENCES_IN_MEMORY:
                self._save_references(branch.name, asked, is_final=False)
                yield None
        for cell, uri in found.subtrees:
            yield from self._make_branches(root, cell, uri, asked)
            self._announced_files += 1
            if len(asked) >= MAX_REFERENCES_IN_MEMORY:
                self._save_references(branch.name, asked, is_final=False)
                yield None
        self._save_references(branch.name, asked)

    def _should_follow(self, branch: _PendingSubtree, contents: Announced) -> bool:
        """Whether a subtree is followed at its cell: at the first one always; at others, since a template may lack a
        variable, within the available levels, until that is too much. One that announces nothing does so everywhere.
        """
        root, key = branch.root, (branch.root.root_id, branch.name)
        if not contents.count:
            self._empty_subtrees.add(key)
        first = key not in self._seen_subtrees
        self._seen_subtrees.add(key)
        if first or not contents.count:
            return True
        if branch.cell.level >= root.tiling.available_levels:
            self._add_diagnostic(
                branch.name, "cycle", "it is asked for below the available levels again, and not followed there"
            )
            return False
        self._repeated_files += contents.count + FILES_PER_REPEAT
        if self._repeated_files > MAX_REPEATED_FILES:
            sentence = "it serves too many tiles: not all of what they ask for is known"
            self._add_diagnostic(branch.name, "unreadable", sentence)
            self._empty_subtrees.add(key)
            return False
        return True

    def _read_buffers(self, subtree: Subtree) -> dict[str, bytes] | str:
        """The buffers that a subtree needs, by URI; the name of one that is not held."""
        names = dict[str, str]()
        for uri in subtree.needed_uris:
            target = resolve(uri, subtree.name, self._version.container_url)
            if not isinstance(target, ResolvedUri):
                raise BlobDamaged(f"{subtree.name}: its buffer {redact_uri(uri)} leads elsewhere")
            names[uri] = target.name
        held = self._find_stored(names.values())
        if missing := next((name for name in names.values() if name not in held), None):
            return missing
        buffers, total = dict[str, bytes](), 0
        for uri, name in names.items():
            buffers[uri] = self._read_file(name)
            total += len(buffers[uri])
            if total > MAX_SUBTREE_BYTES:
                raise BlobDamaged(f"{subtree.name}: its buffers have more than {MAX_SUBTREE_BYTES:,} bytes")
        return buffers

    def _expand_within_limits(
        self, branch: _PendingSubtree, subtree: Subtree, buffers: Mapping[str, bytes]
    ) -> Announced:
        """What a subtree announces, counted first where it could be too much: it can be walked but once."""
        implicit = branch.root.tiling

        def again() -> Announced:
            return expand_subtree(
                subtree, implicit, branch.cell, buffers, content_uri_properties=branch.root.content_uri_properties
            )

        found, children = again(), (8 if implicit.is_octree else 4) ** implicit.subtree_levels
        if children > MAX_CHILD_SUBTREES and _exceeds(again().subtrees, MAX_CHILD_SUBTREES):
            raise BlobDamaged(f"{branch.name}: it asks for more than {MAX_CHILD_SUBTREES:,} child subtrees")
        if children * len(implicit.content_templates) > MAX_CONTENTS_PER_SUBTREE and _exceeds(
            again().contents, MAX_CONTENTS_PER_SUBTREE
        ):
            raise BlobDamaged(f"{branch.name}: it asks for more than {MAX_CONTENTS_PER_SUBTREE:,} contents")
        return found

    # --- held files, and the catalog ---

    def _find_stored(self, names: Iterable[str]) -> set[str]:
        return set(self._catalog.find_stored(self._version, list(names)))

    def _read_file(self, name: str) -> bytes:
        size = self._files.size(self._version, name)
        if size is None:
            raise BlobDamaged(f"{name}: it is not where it was left")
        if size > MAX_SUBTREE_BYTES:
            raise BlobDamaged(f"{name}: a subtree, or a buffer of one, of more than {MAX_SUBTREE_BYTES:,} bytes")
        return self._files.read(self._version, name)

    def _make_collector(self, tileset: str) -> ReferenceCollector:
        return ReferenceCollector(tileset, self._version.container_url)

    def _clear_earlier_references(self, source: str) -> None:
        """What earlier ones told of a file does not hold any more."""
        if source not in self._cleared_sources:
            self._cleared_sources.add(source)
            self._catalog.references.add(self._version, source, ParsedContent(), replace_existing=True, derived=True)

    def _save_references(self, source: str, collector: ReferenceCollector, *, is_final: bool = True) -> None:
        references, remarks = collector.drain(is_final=is_final)
        if references or remarks:
            self._extended_sources.add(source)
            grown = ParsedContent(references=references, diagnostics=remarks)
            self._catalog.references.add(self._version, source, grown, derived=True)

    def _add_diagnostic(self, source: str, problem: str, detail: str) -> None:
        grown = ParsedContent(diagnostics=(Diagnostic(problem, detail),))
        self._catalog.references.add(self._version, source, grown, derived=True)


def _take_until_pause(branches: Iterator[_PendingSubtree | None]) -> Iterator[_PendingSubtree | None]:
    """Some of the branches; the first of them alone, where it is a pause."""
    for branch in islice(branches, _BRANCHES_PER_BATCH):
        yield branch
        if branch is None:
            return


def _exceeds(items: Iterator[object], limit: int) -> bool:
    return next(islice(items, limit, None), None) is not None
