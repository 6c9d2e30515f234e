"""The files that one document asks for, by their names in the container."""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.model import ROOT, Reference, Remark, Role
from tilesync.model.tiles import AWAY, BACK, NEEDS, SEVERAL, UNFOLLOWED
from tilesync.tiles.uris import Inside, Outside, resolve, shown

_OF_THE_SCENE = frozenset({Role.CONTENT, Role.SUBTREE})


class _Several:
    """URIs of one document that are told together: how many, and the first."""

    def __init__(self) -> None:
        self.count = 0
        self._first = ""
        self._why = ""

    def __call__(self, uri: str, why: str) -> None:
        self.count += 1
        if self.count == 1:
            self._first, self._why = shown(uri), why

    def take(self, problem: str) -> Iterator[Remark]:
        """One remark on all of them, if there were any."""
        if self.count:
            one = f"{self._first} {self._why}"
            yield Remark(problem, one if self.count == 1 else f"{self.count}{SEVERAL}the first, {one}")
        self.count = 0


class References:
    """Collects the references of one document, each once, and remarks on what its URIs cannot or should not say.

    `base` is the name of the document, `home` the bare URL of the container, empty where that is not known. What leads
    out of the container, or back to it from wherever a copy stands, is told in one remark each, at the end; a URI of an
    extension that is not known in one of its own. Source: 3D Tiles 1.1, "URIs".
    """

    def __init__(self, base: str, home: str) -> None:
        self._base = base
        self._home = home
        self._said: set[str] = set()
        self._found: dict[Reference, None] = {}
        self._remarks: dict[Remark, None] = {}
        self._away, self._back = _Several(), _Several()
        self._problem = UNFOLLOWED

    def __len__(self) -> int:
        return len(self._found) + len(self._remarks)

    def __call__(self, role: Role, uri: str) -> None:
        """Take in one URI."""
        target = resolve(uri, self._base, self._home)
        if target is None:
            if not uri.strip() and role is not Role.UNKNOWN:
                self._once("empty URI", f"a URI ({role}) is empty, which viewers take for none")
        elif isinstance(target, Outside):
            if target.unsafe and role is not Role.UNKNOWN:
                self.remark("unsafe name", f"{shown(uri)} {target.why}")
            else:
                self._away(uri, target.why)
                if role in _OF_THE_SCENE and self._base == ROOT:
                    self._problem = AWAY
        elif role is Role.UNKNOWN:
            self.remark(UNFOLLOWED, f"{shown(uri)} stands in an extension that tilesync does not know")
        else:
            self._found[Reference(target.name, role)] = None
            if target.absolute:
                self._back(uri, "leads back to the container that this is a copy of")
            if target.query:
                self._once("query", f"{shown(uri)} carries a query, which a folder knows nothing of")

    def needs(self, uri: str, length: int) -> None:
        """The file that a URI names must have so many bytes."""
        target = resolve(uri, self._base, self._home)
        if isinstance(target, Inside) and not target.inner:
            self.remark(NEEDS, f"{length} {target.name}")

    def _once(self, problem: str, detail: str) -> None:
        """Remark what one example of a document stands for."""
        if problem not in self._said:
            self._said.add(problem)
            self.remark(problem, detail)

    def remark(self, problem: str, detail: str) -> None:
        """Take in what is to be said of the document itself, once."""
        self._remarks[Remark(problem, detail)] = None

    def take(self, *, last: bool = True) -> tuple[tuple[Reference, ...], tuple[Remark, ...]]:
        """What came since the last time. `last`: nothing more comes, so what is told together is told."""
        several = (*self._away.take(self._problem), *self._back.take(BACK)) if last else ()
        taken = tuple(self._found), (*self._remarks, *several)
        self._found, self._remarks = {}, {}
        return taken
