"""Reference collector: resolves the URIs of one document to names of blobs."""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.model import ROOT, Diagnostic, Reference, Role
from tilesync.model.tiles import ABSOLUTE_URL, REQUIRED_BUFFER_BYTES, ROOT_LEADS_AWAY, UNFOLLOWED, URIS_ELSEWHERE_PHRASE
from tilesync.tiles.uris import RejectedUri, ResolvedUri, redact_uri, resolve

_SCENE_ROLES = frozenset({Role.CONTENT, Role.SUBTREE})


class _UriGroup:
    """URIs of one document that share one diagnostic. It has their number and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self._first = ""
        self._reason = ""

    def __call__(self, uri: str, reason: str) -> None:
        self.count += 1
        if self.count == 1:
            self._first, self._reason = redact_uri(uri), reason

    def drain(self, problem: str) -> Iterator[Diagnostic]:
        """Yield one diagnostic for all URIs of the group, if there are any."""
        if self.count:
            example = f"{self._first} {self._reason}"
            yield Diagnostic(
                problem, example if self.count == 1 else f"{self.count}{URIS_ELSEWHERE_PHRASE}the first, {example}"
            )
        self.count = 0


class ReferenceCollector:
    """Collector of the references of one document, each once, and of diagnostics about its URIs.

    `base` is the name of the document. `container_url` is the bare URL of the container, empty if unknown. All URIs
    that lead out of the container share one diagnostic; so do all that lead viewers of a copy to the original
    container. These two come at the end. A URI of an unknown extension has its own diagnostic.
    Source: 3D Tiles 1.1, "URIs".
    """

    def __init__(self, base: str, container_url: str) -> None:
        self._base = base
        self._container_url = container_url
        self._reported_problems: set[str] = set()
        self._references: dict[Reference, None] = {}
        self._diagnostics: dict[Diagnostic, None] = {}
        self._external_uris, self._container_uris = _UriGroup(), _UriGroup()
        self._external_problem = UNFOLLOWED

    def __len__(self) -> int:
        return len(self._references) + len(self._diagnostics)

    def __call__(self, role: Role, uri: str) -> None:
        """Add the URI of a reference."""
        target = resolve(uri, self._base, self._container_url)
        if target is None:
            if not uri.strip() and role is not Role.UNKNOWN:
                self._add_once("empty URI", f"a URI ({role}) is empty, which viewers ignore")
        elif isinstance(target, RejectedUri):
            if target.has_unsafe_name and role is not Role.UNKNOWN:
                self.add_diagnostic("unsafe name", f"{redact_uri(uri)} {target.reason}")
            else:
                self._external_uris(uri, target.reason)
                if role in _SCENE_ROLES and self._base == ROOT:
                    self._external_problem = ROOT_LEADS_AWAY
        elif role is Role.UNKNOWN:
            self.add_diagnostic(UNFOLLOWED, f"{redact_uri(uri)} is in an extension that tilesync does not know")
        else:
            self._references[Reference(target.name, role)] = None
            if target.is_absolute:
                self._container_uris(uri, "points back to the original container")
            if target.has_query:
                self._add_once("query", f"{redact_uri(uri)} has a query, which a file in a folder cannot have")

    def require_length(self, uri: str, length: int) -> None:
        """Record that the file of a URI must have at least this many bytes."""
        target = resolve(uri, self._base, self._container_url)
        if isinstance(target, ResolvedUri) and not target.archive_path:
            self.add_diagnostic(REQUIRED_BUFFER_BYTES, f"{length} {target.name}")

    def _add_once(self, problem: str, detail: str) -> None:
        """Add a diagnostic, unless the document already has one of this problem."""
        if problem not in self._reported_problems:
            self._reported_problems.add(problem)
            self.add_diagnostic(problem, detail)

    def add_diagnostic(self, problem: str, detail: str) -> None:
        """Add a diagnostic of the document; an equal one is not added twice."""
        self._diagnostics[Diagnostic(problem, detail)] = None

    def drain(self, *, is_final: bool = True) -> tuple[tuple[Reference, ...], tuple[Diagnostic, ...]]:
        """Return the references and diagnostics since the last call; if `is_final`, also those of the URI groups."""
        grouped = (
            (*self._external_uris.drain(self._external_problem), *self._container_uris.drain(ABSOLUTE_URL))
            if is_final
            else ()
        )
        result = tuple(self._references), (*self._diagnostics, *grouped)
        self._references, self._diagnostics = {}, {}
        return result
