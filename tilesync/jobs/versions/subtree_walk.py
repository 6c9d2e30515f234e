"""Walk the subtrees of implicit tilesets: as soon as a subtree is stored, find the files that it announces.

Source: 3D Tiles 1.1, "Implicit Tiling": templates are relative to the tileset, the URIs of a subtree's buffers to the
subtree; a content's URI may be replaced by metadata with the semantic CONTENT_URI.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from tilesync.catalog.catalog import Catalog
from tilesync.errors import BlobDamaged
from tilesync.jobs.versions.file_check import MAX_REFERENCES_IN_MEMORY
from tilesync.model import ROOT, Diagnostic, ParsedContent, Role, Version
from tilesync.protocols import StoredFiles
from tilesync.runtime.gzip import gunzip_chunks_if_packed
from tilesync.tiles.availability import SubtreeContents, expand_subtree
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
from tilesync.values import dataclass

MAX_SUBTREE_BYTES = 1 << 28
"""Maximum bytes of a subtree, and of all its buffers together: they are read completely into memory."""

MAX_CHILD_SUBTREES = 1 << 20
"""Maximum child subtrees of one subtree: a few bytes can announce many more."""

MAX_CONTENTS_PER_SUBTREE = 1 << 22
"""Maximum contents of one subtree."""

MAX_REPEATED_FILES = 1 << 20
"""Maximum files that subtree files may announce, in total, when they are followed again for further tiles."""

FILES_PER_REPEAT = 64
"""Cost, in files, of following a subtree file again: it takes a third of a millisecond, as that many files do."""

FIRST_CHECKPOINT_FILES = 1 << 14
"""Number of announced files after which the walk first checks whether they exist."""

_CONTENT_URI_WARNING = (
    "its subtrees may name contents by CONTENT_URI, relative to the folder of their version: a viewer that supports"
    " CONTENT_URI must open the tileset.json in that folder, not the one at the top"
)
_BRANCHES_PER_BATCH = 500
_ROOT_CELL = Cell(0, 0, 0)


@dataclass(frozen=True, slots=True)
class _ImplicitRoot:
    """An implicit root tile; `content_uri_properties` come from the schema of its tileset."""

    root_id: int
    tileset: str
    tiling: ImplicitTiling
    content_uri_properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Branch:
    """A subtree still to be followed. `name`: its file. `awaited_name`: the file it needs next, its own or a buffer."""

    root: _ImplicitRoot
    cell: Cell
    name: str
    awaited_name: str


class SubtreeWalk:
    """Follow the subtrees of one version through its stored files, and record their references in the catalog.

    A subtree file may serve several tiles, and is followed for each. Branches that wait for a file are kept in memory.
    A new walk starts at the tilesets again and clears the references that an earlier walk recorded for a file, since
    schemas, buffers and templates may have changed.
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
        self._waiting: list[_Branch] = []
        self._stack: list[Iterator[_Branch | None]] = []
        self._root_count = 0
        self._repeated_files = 0
        self._announced_files = 0
        self._next_checkpoint = FIRST_CHECKPOINT_FILES
        self._tileset = ROOT
        self._is_stopped = False

    def advance(self, *, is_final: bool = False) -> set[str]:
        """Follow the subtrees that are already stored; return the names of files that have new references.

        `is_final`: no more files will arrive. Then a missing schema counts as empty, and the walk follows only tilesets
        that viewers can reach from the root. Following one may make more of them reachable.
        """
        waiting, self._waiting = self._waiting, []
        while True:
            started_before = len(self._started_tilesets)
            for tileset in self._find_new_tilesets(is_final=is_final):
                waiting += self._start_tileset(tileset, is_final=is_final)
            self._follow_all(waiting, is_final=is_final)
            waiting = []
            if not is_final or len(self._started_tilesets) == started_before:
                break
        extended, self._extended_sources = self._extended_sources, set()
        return extended

    def _find_new_tilesets(self, *, is_final: bool) -> list[str]:
        """List the implicit tilesets that are not started yet; if `is_final`, only those reachable from the root.

        An unreachable tileset would cost time, and use up limits that are meant for those that viewers reach.
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
        reachable = set(self._catalog.references.list_implicit_tilesets(self._version, only_reached=True))
        return [name for name in found if name in reachable]

    def _follow_all(self, waiting: Iterable[_Branch], *, is_final: bool) -> None:
        self._stack.append(iter(waiting))
        while self._stack and self._can_continue(is_final=is_final):
            branches = list(_take_until_pause(self._stack[-1]))
            if not branches:
                self._stack.pop()
            self._stack += [self._follow_branch(branch) for branch in self._select_ready(filter(None, branches))]

    def _can_continue(self, *, is_final: bool) -> bool:
        """Return whether the walk may announce more files.

        A few bytes can announce a million files. So at each checkpoint the walk waits until it is known which of the
        files announced so far exist; if hardly any does, the walk stops. Each checkpoint is at twice the count of the
        one before.
        """
        if self._announced_files < self._next_checkpoint:
            return True
        if not is_final:
            return False
        self._next_checkpoint = 2 * self._announced_files
        announced, missing = self._catalog.references.count_announced(self._version)
        if missing * 16 > announced * 15:
            message = (
                f"its subtrees announce {FIRST_CHECKPOINT_FILES:,} files or more, but hardly any of them exists:"
                " the subtrees are not followed further"
            )
            self._add_diagnostic(self._tileset, "unreadable", message)
            self._is_stopped = True
            self._stack, self._waiting = [], []
        return not self._is_stopped

    def _select_ready(self, branches: Iterable[_Branch]) -> list[_Branch]:
        """Return the branches whose awaited file is stored, and keep the others for later."""
        candidates = list(branches)
        stored = self._find_stored({branch.awaited_name for branch in candidates})
        self._waiting += [branch for branch in candidates if branch.awaited_name not in stored]
        return [branch for branch in candidates if branch.awaited_name in stored]

    # --- tilesets ---

    def _start_tileset(self, tileset: str, *, is_final: bool) -> list[_Branch]:
        """Start the implicit roots of a tileset, once its schemas are stored."""
        schemas = self._catalog.references.list_targets(self._version, tileset, Role.SCHEMA)
        stored = self._find_stored(schemas)
        if len(stored) < len(schemas) and not is_final:
            return []
        self._started_tilesets.add(tileset)
        document = self._parse_document(tileset)
        uris = dict(document.content_uri_properties)
        for schema in stored:
            uris.update(self._parse_document(schema).content_uri_properties)
        branches = list[_Branch]()
        if uris and tileset == ROOT and document.implicit_tilings:
            self._add_diagnostic(tileset, "pointer", _CONTENT_URI_WARNING)
        collector = self._make_collector(tileset)
        for tiling in document.implicit_tilings:
            for message in find_missing_variables(tiling):
                self._add_diagnostic(tileset, "template", message)
            self._root_count += 1
            root = _ImplicitRoot(self._root_count, tileset, tiling, uris)
            branches += self._make_branches(
                root, _ROOT_CELL, fill_template(tiling.subtree_template, _ROOT_CELL), collector
            )
        self._save_references(tileset, collector)
        return branches

    def _parse_document(self, name: str) -> Document:
        """Parse a stored document as far as possible; it was validated when it arrived."""
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
    ) -> Iterator[_Branch]:
        """Yield the branch of a cell if its URI names a file; subtrees inside archives are not followed."""
        collector(Role.SUBTREE, uri)
        target = resolve(uri, root.tileset, self._version.container_url)
        if (
            isinstance(target, ResolvedUri)
            and not target.archive_path
            and (root.root_id, target.name) not in self._empty_subtrees
        ):
            yield _Branch(root, cell, target.name, target.name)

    def _follow_branch(self, branch: _Branch) -> Iterator[_Branch | None]:
        """Record the references of one stored subtree; yield its child branches, or itself if a buffer is missing.

        Yields None as a pause after each batch of recorded references.
        """
        self._clear_earlier_references(branch.name)
        try:
            yield from self._expand_branch(branch)
        except BlobDamaged as error:
            self._add_diagnostic(branch.name, "unreadable", str(error))

    def _expand_branch(self, branch: _Branch) -> Iterator[_Branch | None]:
        root = branch.root
        self._tileset = root.tileset
        if (root.root_id, branch.name) in self._empty_subtrees:
            return
        subtree = parse_subtree(self._read_file(branch.name), branch.name)
        buffers = self._read_buffers(subtree)
        if isinstance(buffers, str):
            yield replace(branch, awaited_name=buffers)
            return
        contents = self._expand_within_limits(branch, subtree, buffers)
        if not self._should_follow(branch, contents):
            return
        for message in contents.problems:
            self._add_diagnostic(branch.name, "availability", message)
        collector = self._make_collector(root.tileset)
        for uri in contents.contents:
            collector(Role.CONTENT, uri)
            self._announced_files += 1
            if len(collector) >= MAX_REFERENCES_IN_MEMORY:
                self._save_references(branch.name, collector, is_final=False)
                yield None
        for cell, uri in contents.subtrees:
            yield from self._make_branches(root, cell, uri, collector)
            self._announced_files += 1
            if len(collector) >= MAX_REFERENCES_IN_MEMORY:
                self._save_references(branch.name, collector, is_final=False)
                yield None
        self._save_references(branch.name, collector)

    def _should_follow(self, branch: _Branch, contents: SubtreeContents) -> bool:
        """Return whether to follow a subtree at its cell.

        A subtree file is always followed at its first cell. If the template lacks a variable, the file serves more
        cells; at these it is followed within `availableLevels`, up to MAX_REPEATED_FILES. An empty subtree is empty at
        every cell.
        """
        root, key = branch.root, (branch.root.root_id, branch.name)
        if not contents.count:
            self._empty_subtrees.add(key)
        is_first = key not in self._seen_subtrees
        self._seen_subtrees.add(key)
        if is_first or not contents.count:
            return True
        if branch.cell.level >= root.tiling.available_levels:
            self._add_diagnostic(
                branch.name, "cycle", "it is used again below the available levels, and is not followed there"
            )
            return False
        self._repeated_files += contents.count + FILES_PER_REPEAT
        if self._repeated_files > MAX_REPEATED_FILES:
            message = "it serves too many tiles: not all of their files are known"
            self._add_diagnostic(branch.name, "unreadable", message)
            self._empty_subtrees.add(key)
            return False
        return True

    def _read_buffers(self, subtree: Subtree) -> dict[str, bytes] | str:
        """Read the buffers that a subtree needs, by URI; return the name of one that is not stored yet instead."""
        names = dict[str, str]()
        for uri in subtree.needed_uris:
            target = resolve(uri, subtree.name, self._version.container_url)
            if not isinstance(target, ResolvedUri):
                raise BlobDamaged(f"{subtree.name}: its buffer {redact_uri(uri)} is outside the container")
            names[uri] = target.name
        stored = self._find_stored(names.values())
        if missing := next((name for name in names.values() if name not in stored), None):
            return missing
        buffers, total = dict[str, bytes](), 0
        for uri, name in names.items():
            buffers[uri] = self._read_file(name)
            total += len(buffers[uri])
            if total > MAX_SUBTREE_BYTES:
                raise BlobDamaged(f"{subtree.name}: its buffers have more than {MAX_SUBTREE_BYTES:,} bytes")
        return buffers

    def _expand_within_limits(self, branch: _Branch, subtree: Subtree, buffers: Mapping[str, bytes]) -> SubtreeContents:
        """Expand a subtree within the limits.

        If it could exceed one, its items are counted first, on another expansion: the iterators run only once.
        """
        tiling = branch.root.tiling

        def expand() -> SubtreeContents:
            return expand_subtree(
                subtree, tiling, branch.cell, buffers, content_uri_properties=branch.root.content_uri_properties
            )

        contents, child_count = expand(), (8 if tiling.is_octree else 4) ** tiling.subtree_levels
        if child_count > MAX_CHILD_SUBTREES and _exceeds(expand().subtrees, MAX_CHILD_SUBTREES):
            raise BlobDamaged(f"{branch.name}: it announces more than {MAX_CHILD_SUBTREES:,} child subtrees")
        if child_count * len(tiling.content_templates) > MAX_CONTENTS_PER_SUBTREE and _exceeds(
            expand().contents, MAX_CONTENTS_PER_SUBTREE
        ):
            raise BlobDamaged(f"{branch.name}: it announces more than {MAX_CONTENTS_PER_SUBTREE:,} contents")
        return contents

    # --- stored files and the catalog ---

    def _find_stored(self, names: Iterable[str]) -> set[str]:
        return set(self._catalog.find_stored(self._version, list(names)))

    def _read_file(self, name: str) -> bytes:
        size = self._files.size(self._version, name)
        if size is None:
            raise BlobDamaged(f"{name}: it no longer exists")
        if size > MAX_SUBTREE_BYTES:
            raise BlobDamaged(f"{name}: a subtree or buffer with more than {MAX_SUBTREE_BYTES:,} bytes")
        return self._files.read(self._version, name)

    def _make_collector(self, tileset: str) -> ReferenceCollector:
        return ReferenceCollector(tileset, self._version.container_url)

    def _clear_earlier_references(self, source: str) -> None:
        """Clear the references that an earlier walk recorded for a file."""
        if source not in self._cleared_sources:
            self._cleared_sources.add(source)
            self._catalog.references.add(self._version, source, ParsedContent(), replace_existing=True, derived=True)

    def _save_references(self, source: str, collector: ReferenceCollector, *, is_final: bool = True) -> None:
        references, diagnostics = collector.drain(is_final=is_final)
        if references or diagnostics:
            self._extended_sources.add(source)
            content = ParsedContent(references=references, diagnostics=diagnostics)
            self._catalog.references.add(self._version, source, content, derived=True)

    def _add_diagnostic(self, source: str, problem: str, detail: str) -> None:
        content = ParsedContent(diagnostics=(Diagnostic(problem, detail),))
        self._catalog.references.add(self._version, source, content, derived=True)


def _take_until_pause(branches: Iterator[_Branch | None]) -> Iterator[_Branch | None]:
    """Yield branches up to and including the next pause, at most _BRANCHES_PER_BATCH."""
    for branch in islice(branches, _BRANCHES_PER_BATCH):
        yield branch
        if branch is None:
            return


def _exceeds(items: Iterator[object], limit: int) -> bool:
    return next(islice(items, limit, None), None) is not None
