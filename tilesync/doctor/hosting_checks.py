"""What viewers need of a place that tiles were mirrored to: from inside, then from outside, as a browser asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple
from urllib.parse import quote

from tilesync.core.gzip import PACKED
from tilesync.core.http_headers import HEAD, Serving
from tilesync.core.manifest import read_header, read_line
from tilesync.doctor import response_rules as viewing
from tilesync.doctor.protocols import Visitor
from tilesync.doctor.remedies import Mending
from tilesync.doctor.response_rules import Sample, Tried, Wanted
from tilesync.doctor.result import Result, Said
from tilesync.doctor.runner import Probe
from tilesync.errors import DestinationError
from tilesync.jobs.versions.pointer import pointer_digest
from tilesync.model import POINTER, Held, Version
from tilesync.model.storage import Answer
from tilesync.protocols import HeldFiles, Published
from tilesync.runtime.threads import in_thread

KINDS = 8
"""Files that are asked for at most, besides the one whose name must be quoted."""

ODD = frozenset(" +%#?&;=[]'()")
"""Letters in names that servers and what stands before them take for something else, beside all that is not ASCII."""

SERVING = Serving()


class Inside(NamedTuple):
    """What is held: how it may be read, or the error that says why it may not."""

    open: Callable[[], tuple[HeldFiles, Published]]
    shown: str


class Outside(NamedTuple):
    """Where viewers reach it, who asks, whether there is a state that must not be served, and what mends it all."""

    url: str
    visitor: Visitor
    wanted: Wanted
    mend: Mending
    hides: bool


class HostingChecks:
    """The checks of one place; `outside` is None where nobody said how viewers reach it."""

    def __init__(self, inside: Inside, outside: Outside | None) -> None:
        self._inside = inside
        self._outside = outside
        self._version: Version | None = None
        self._prefix = ""
        self._pointer_sha256 = ""
        self._samples: list[Sample] = []
        self._odd: str | None = None
        self._pointer: Answer | None = None
        self._tried: list[Tried] = []

    def probes(self) -> Iterator[Probe]:
        """All of them, in order."""
        yield Probe("held", self._held)
        yield Probe("pointer", self._points, ("held",))
        if self._outside is None:
            yield Probe("outside", self._unknown)
            return
        files = ("held", "public")
        yield Probe("public", self._public)
        yield Probe("current", self._current, ("public", "pointer"))
        yield Probe("pointer-caching", self._pointer_caching, ("public",))
        yield Probe("files", self._files, files)
        yield Probe("names", lambda: _now(viewing.names(self._tried, self._odd)), files)
        yield Probe("origin", self._origin, ("public",))
        yield Probe("preflight", self._preflight)
        for name, judge in (("types", viewing.types), ("encoding", viewing.encodings), ("range", viewing.ranges)):
            yield Probe(name, self._of_files(judge), files)
        yield Probe("caching", self._of_files(self._caching), files)
        if self._there.hides:
            yield Probe("state", self._hidden, ("public",))

    @property
    def _there(self) -> Outside:
        assert self._outside is not None
        return self._outside

    # --- from inside ---

    async def _held(self) -> Said:
        files, published = await in_thread(self._inside.open)
        latest = await in_thread(published.latest)
        if latest is None:
            raise DestinationError(
                f"nothing is published in {self._inside.shown}: there is no latest.json of tilesync",
                hint="run `tilesync mirror` first, or name the place that it filled",
            )
        name = str(latest["version"])
        if name not in await in_thread(published.manifest_names):
            raise DestinationError(
                f"latest.json names version {name}, which has no manifest",
                hint="`tilesync mirror` again writes it; or `tilesync rollback` to a version that is held",
            )
        await in_thread(self._look, files, published, name)
        assert self._version is not None
        return Said(f"version {name}, {self._version.files:,} files")

    def _look(self, files: HeldFiles, published: Published, name: str) -> None:
        """Read the manifest, choose what is asked for, and what the pointer must be."""
        lines = published.manifest(name)
        try:
            version = read_header(next(lines), name=name)
            chosen, self._odd = choose(map(read_line, lines))
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise DestinationError(
                f"the manifest of version {name} cannot be read ({str(error) or 'it is empty'})",
                hint="run `tilesync mirror` again: it writes it anew",
            ) from error
        self._version, self._prefix = version, published.prefix(version)
        self._samples = [_sample(files, version, held, self._prefix) for held in chosen]
        self._odd = self._prefix + self._odd if self._odd is not None else None
        self._pointer_sha256 = pointer_digest(version, files, self._prefix)
        self._held_pointer = published.pointer()

    async def _points(self) -> Said:
        assert self._version is not None
        if self._held_pointer == self._pointer_sha256:
            return Said(f"{POINTER} leads to version {self._version.name}")
        what = "is not there" if self._held_pointer is None else f"does not lead to version {self._version.name}"
        raise DestinationError(f"{POINTER} {what}", hint="run `tilesync mirror` again: it puts the pointer right")

    async def _unknown(self) -> Said:
        return Said(
            "how viewers reach this folder is not known, so no web server was asked: caching, other origins, types,"
            " encoding, parts, and whether the state hides, were not looked at",
            Result.SKIPPED,
            "give --public-url, the address under which a web server or CDN serves it",
        )

    # --- from outside ---

    async def _get(self, path: str, *, method: str = "GET", **more: str) -> Answer:
        headers = {"Origin": self._there.wanted.origin, "Accept-Encoding": "identity"}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        return await self._there.visitor.ask(method, f"{self._there.url}/{quote(path, safe='/~')}", headers)

    async def _public(self) -> Said:
        self._pointer = await self._get(POINTER)
        mend = self._there.mend.served_by(self._pointer.headers.get("server"))
        self._outside = self._there._replace(mend=mend)
        return viewing.reached(self._pointer, mend)

    def _root(self) -> Answer:
        assert self._pointer is not None
        return self._pointer

    async def _current(self) -> Said:
        assert self._version is not None
        return viewing.leads(self._root(), self._version.name, self._pointer_sha256)

    async def _pointer_caching(self) -> Said:
        return viewing.pointer_caching(self._root(), self._there.mend)

    async def _files(self) -> Said:
        for sample in self._samples:
            whole = await self._get(sample.path)
            part = await self._get(sample.path, Range="bytes=0-0")
            self._tried.append(Tried(sample, whole, part))
        return viewing.whole(self._tried)

    async def _origin(self) -> Said:
        answers = [self._root(), *(each.whole for each in self._tried if each.whole.status == 200)]
        return viewing.admits(answers, self._there.wanted, self._there.mend)

    async def _preflight(self) -> Said:
        """Also where nobody may read: a store answers by its rules for all origins."""
        if self._pointer is None:
            return Said("not looked at, since nothing answers there", Result.SKIPPED)
        asked = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "range"}
        answer = await self._get(POINTER, method="OPTIONS", **asked)
        return viewing.preflight(answer, self._there.wanted, self._there.mend)

    def _of_files(self, judge: Callable[[list[Tried], Mending], Said]) -> Callable[[], Awaitable[Said]]:
        async def look() -> Said:
            answered = [each for each in self._tried if each.whole.status == 200]
            return judge(answered, self._there.mend) if answered else Said("no file is served", Result.SKIPPED)

        return look

    def _caching(self, tried: list[Tried], mend: Mending) -> Said:
        if not self._prefix:
            return Said("the flat layout has no version that never changes", Result.SKIPPED)
        return viewing.caching(tried, mend)

    async def _hidden(self) -> Said:
        answer = await self._get(".tilesync/catalog.sqlite3", method="HEAD")
        return viewing.hidden(answer, self._there.mend)


async def _now(said: Said) -> Said:
    return said


def choose(lines: Iterator[Held]) -> tuple[list[Held], str | None]:
    """The smallest file of each kind, by the end of its name, those at the top first; and one with a name that must be
    quoted, where there is one.
    """
    kinds: dict[str, Held] = {}
    odd: Held | None = None
    for held in lines:
        name, size = held.blob.name, held.size
        if not size:
            continue
        leaf = name.rpartition("/")[2]
        kind = leaf.rpartition(".")[2].lower() if "." in leaf else ""
        if kind not in kinds or size < kinds[kind].size:
            kinds[kind] = held
        if (not name.isascii() or ODD & set(name)) and (odd is None or size < odd.size):
            odd = held
    first = sorted(kinds, key=lambda kind: (kind not in {"json", "glb"}, kind))[:KINDS]
    chosen = [kinds[kind] for kind in first]
    if odd is not None and odd not in chosen:
        chosen.append(odd)
    return chosen, odd.blob.name if odd is not None else None


def _sample(files: HeldFiles, version: Version, held: Held, prefix: str) -> Sample:
    head = b""
    for chunk in files.chunks(version, held.blob.name):
        head += chunk[:HEAD]
        if len(head) >= HEAD:
            break
    packed = head.startswith(PACKED)
    return Sample(prefix + held.blob.name, held.size, held.sha256, packed, SERVING.label(held.lying, head[:HEAD]))
