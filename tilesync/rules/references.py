"""The files that one document asks for, by their names in the container."""

from __future__ import annotations

from tilesync.model import NEEDS, Reference, Remark, Role
from tilesync.rules.uris import Inside, Outside, resolve, shown


class References:
    """Collects the references of one document, each once, and remarks on what its URIs cannot or should not say.

    `base` is the name of the document, `home` the bare URL of the container, empty where that is not known. A URI of an
    extension that is not known, or that leaves the container, is remarked as unfollowed. Source: 3D Tiles 1.1, "URIs".
    """

    def __init__(self, base: str, home: str) -> None:
        self._base = base
        self._home = home
        self._said: set[str] = set()
        self._found: dict[Reference, None] = {}
        self._remarks: dict[Remark, None] = {}

    def __len__(self) -> int:
        return len(self._found) + len(self._remarks)

    def __call__(self, role: Role, uri: str) -> None:
        """Take in one URI."""
        target = resolve(uri, self._base, self._home)
        if target is None:
            if not uri.strip() and role is not Role.UNKNOWN:
                self._once("empty URI", f"a URI ({role}) is empty, which viewers take for none")
        elif isinstance(target, Outside):
            unsafe = target.unsafe and role is not Role.UNKNOWN
            self.remark("unsafe name" if unsafe else "unfollowed", f"{shown(uri)} {target.why}")
        elif role is Role.UNKNOWN:
            self.remark("unfollowed", f"{shown(uri)} stands in an extension that tilesync does not know")
        else:
            self._found[Reference(target.name, role)] = None
            if target.absolute:
                self._once("absolute URL", f"{shown(uri)} leads back to the container that this is a copy of")
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

    def take(self) -> tuple[tuple[Reference, ...], tuple[Remark, ...]]:
        """What came since the last time."""
        taken = tuple(self._found), tuple(self._remarks)
        self._found, self._remarks = {}, {}
        return taken
