"""Reference collector: the files that one document references, by their names in the container."""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.model import ROOT, Diagnostic, Reference, Role
from tilesync.model.tiles import ABSOLUTE_URL, REQUIRED_BUFFER_BYTES, ROOT_LEADS_AWAY, UNFOLLOWED, URIS_ELSEWHERE_PHRASE
from tilesync.tiles.uris import RejectedUri, ResolvedUri, redact_uri, resolve

_SCENE_ROLES = frozenset({Role.CONTENT, Role.SUBTREE})


class _UriGroup:
    """URIs of one document that share one diagnostic: their number and the first of them."""

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
    """Collect the references of one document, each once, and diagnostics of its URIs.

    `base` is the name of the document, `container_url` the bare URL of the container, empty where it is not known. URIs
    that leave the container, and URIs that point back to the original container from any copy, get one diagnostic for
    each group, at the end; each URI of an unknown extension gets its own. Source: 3D Tiles 1.1, "URIs".
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
        """Add one URI."""
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
        """Require that the file of a URI has at least this many bytes."""
        target = resolve(uri, self._base, self._container_url)
        if isinstance(target, ResolvedUri) and not target.archive_path:
            self.add_diagnostic(REQUIRED_BUFFER_BYTES, f"{length} {target.name}")

    def _add_once(self, problem: str, detail: str) -> None:
        """Add a diagnostic of a kind that a document gets only once, for its first example."""
        if problem not in self._reported_problems:
            self._reported_problems.add(problem)
            self.add_diagnostic(problem, detail)

    def add_diagnostic(self, problem: str, detail: str) -> None:
        """Add a diagnostic of the document itself, once."""
        self._diagnostics[Diagnostic(problem, detail)] = None

    def drain(self, *, is_final: bool = True) -> tuple[tuple[Reference, ...], tuple[Diagnostic, ...]]:
        """Return references and diagnostics since the last call. `is_final`: also the grouped diagnostics."""
        grouped = (
            (*self._external_uris.drain(self._external_problem), *self._container_uris.drain(ABSOLUTE_URL))
            if is_final
            else ()
        )
        result = tuple(self._references), (*self._diagnostics, *grouped)
        self._references, self._diagnostics = {}, {}
        return result
