"""What the jobs need of a place where tiles go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tilesync.model import Blob, Held, Layout, Proof, SasUrl, Trace, Version
from tilesync.protocols.catalog import Catalog


class Draft(Protocol):
    """A blob on its way in. Nothing is visible before `commit`.

    `held` counts the bytes that are safely in; after `restart` it is 0.
    """

    held: int

    def prefix(self) -> AsyncIterator[bytes]:
        """The held bytes, for the checks of a resumed transfer."""

    async def append(self, chunk: bytes) -> None:
        """Add `chunk` after the held bytes. Cancelled half-way it may be done again."""

    async def restart(self) -> None:
        """Forget the held bytes."""

    async def commit(self, proof: Proof) -> Held:
        """Place the whole file under its final name, replacing what was there."""

    async def suspend(self) -> None:
        """Keep what is held for a later run. May be called after `commit`, and then does nothing."""


class Glance(NamedTuple):
    """A look at some files that are held: how many, and those of them that do not look as they were left. `place`:
    where the next look goes on, empty behind the last file.
    """

    files: int
    doubtful: Sequence[Held]
    place: str


class HeldFiles(Protocol):
    """The files of the versions of a destination, to be read. `portable`: they can be pickled, and read elsewhere.
    `wide`: as many are best read side by side; a store makes one wait for each.
    """

    portable: bool
    wide: int

    def survey(self, version: Version) -> None:
        """Very many files of a version will be looked at: a store is asked about all at once."""

    def size(self, version: Version, name: str) -> int | None:
        """The size of the held file in bytes; None when there is no such regular file."""

    def trace(self, version: Version, name: str) -> Trace | None:
        """What a look at the held file tells of whether it still is the same; None when there is no such file."""

    def unchanged(self, version: Version, held: Sequence[Held]) -> list[bool]:
        """For each, whether the file still is what was left there, as far as a look without reading it can tell."""

    def glances(self, version: Version, catalog: Catalog, place: str) -> Iterator[Glance]:
        """Looks at the held files of a version from `place` on, some at a time: those of a catalog, or those that are
        listed there. Raises DestinationError where there is no such place (any more).
        """

    def feed(self, version: Version, name: str, into: Callable[[bytes], object]) -> Trace | None:
        """Give the bytes of the held file, read anew, to `into`; its trace, None when there is no such file."""

    def digest(self, version: Version, name: str) -> bytes | None:
        """SHA-256 of the held file, read anew; None when there is no such regular file."""

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """The bytes of one held file from `offset` on, piece by piece. Raises DestinationError when there is none."""

    def read(self, version: Version, name: str) -> bytes:
        """The bytes of one held file. Raises DestinationError when there is none."""


class Files(HeldFiles, Protocol):
    """The files of the versions of a destination, to be read and written.

    `links`: what two versions share takes its room once. `proves_md5`: a proof must tell the MD5. `keeps_parts`: what
    has come of a file is kept for a later run. `states_encoding`: each file is served with the encoding that it has.
    """

    links: bool
    keeps_parts: bool
    proves_md5: bool
    states_encoding: bool

    def free(self) -> int | None:
        """Bytes of room left; None where that has no meaning."""

    def judge(self, names: Iterable[str]) -> None:
        """Raise UnsafeName, naming the offenders, when any of `names` cannot be held safely. Writes nothing."""

    async def put(self, version: Version, blob: Blob, data: bytes, prove: Callable[[bytes], Proof]) -> Held:
        """Place a small file whose bytes are all here, once `prove` has proven them; both happen off the loop.

        Raises what `prove` raises, and leaves everything as it was then.
        """

    async def take(self, version: Version, blob: Blob, link: SasUrl, head: bytes) -> tuple[Held | None, str]:
        """Have the store take a blob, which begins with `head`, from its container by itself; None, and why, where it
        does not. Raises Transient for what another attempt may cure.
        """

    def begun(self, version: Version, blob: Blob) -> bool:
        """Whether an earlier run, or an earlier draft, left a part of this very content."""

    def draft(self, version: Version, blob: Blob) -> Draft:
        """A draft of `blob`, continued from an earlier run when that left one for the same name and ETag."""

    def places(self, blob: Blob) -> int:
        """As how many of the transfers that may run at once a blob counts: a large one may take room in memory."""

    def share(self, version: Version, wishes: Sequence[tuple[Blob, Version, Held]]) -> list[Held | None]:
        """Place, as each blob, what another version holds, by a link or a copy, without touching what lies there.

        None for what is no longer as it was left there, or cannot be had from there.
        """

    def lying(self, version: Version, blobs: Sequence[Blob]) -> set[str]:
        """The names of those that seem to lie in the version already, as far as a look at what has an MD5 can tell."""

    def names(self, version: Version) -> Iterator[str]:
        """What lies in the folder of a version, whether it is known or not."""

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove files that an unpublished version should not have; missing is no error."""

    def tidy(self) -> None:
        """Remove what only unfinished transfers needed."""


class Published(Protocol):
    """What leads to the versions of a destination, to be read."""

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """The lines of a manifest, the first one about the version. Raises DestinationError when it cannot be read."""

    def manifest_names(self) -> list[str]:
        """The versions that have a manifest."""

    def retired_names(self) -> set[str]:
        """The retired versions whose files still lie in their place."""

    def noted(self, version: Version) -> Iterator[Mapping[str, Any]] | None:
        """What was noted of a version beside its manifest; None where nothing was."""

    def latest(self) -> Mapping[str, Any] | None:
        """What `latest.json` says; None when there is none."""

    def owner(self) -> str | None:
        """Whose exports the destination holds, as it was recorded there; None where nothing was."""

    def is_vacant(self) -> bool:
        """Whether nothing of an export lies here, and nobody stated whose it is: a recorded owner does not count."""

    def checked(self) -> Mapping[str, Any] | None:
        """What `checked.json` says of the last successful run; None when there is none."""

    def prefix(self, version: Version) -> str:
        """What leads from the pointer to the version's own folder: empty where the pointer is its root tileset."""

    def pointer(self) -> str | None:
        """SHA-256 of the pointer, in hexadecimal; None when there is none."""

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Whether the pointer is the one of `version`, and what it needs is there."""

    def complete(self, version: Version) -> bool:
        """Whether all else that names the current version names `version`."""

    def staged(self, version: Version) -> bool:
        """Whether files of `version` have come in, and are not where viewers find them."""


class Admission(Protocol):
    """Who may make a place a destination, or write to one. `adopt`: also where others have put something."""

    @property
    def adopt(self) -> bool:
        """Whether a place that is not ours may become a destination, where nothing in it is in the way."""

    def admit(self, publication: Published) -> None:
        """Raise a DestinationError where the destination is another's. Reads only."""


class Publication(Published, Protocol):
    """What leads to the versions of a destination, to be read and written."""

    def write_manifest(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> str:
        """Make every file durable, then put the manifest in place. Returns its SHA-256. May be done again."""

    def note(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> None:
        """Keep what can be told of a version without reading its files again, where reading them is dear."""

    def set_owner(self, owner: str, *, stated: bool = False) -> None:
        """Record whose exports the destination holds; `stated`: somebody said so, and it holds from now on."""

    def set_checked(self, said: Mapping[str, Any]) -> None:
        """Replace `checked.json`."""

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Move the pointer, `latest.json` and what else names the current version. May be done again."""

    def blocked(self, version: Version, names: Iterable[str]) -> list[str]:
        """Those files of a finished version that cannot be brought to where they are looked for: something of others is
        in the way. Nothing is touched.
        """

    def lay_out(self, version: Version, names: Iterable[str], moment: str) -> list[str]:
        """Bring the files of a finished version to where they are looked for, in this order. May be done again.

        The names where something else stood, which is in the trash now.
        """

    def discard(self, version: Version, files: Iterable[Held], moment: str) -> list[Held]:
        """Move files that lie where those of `version` are, and are none of them, into the trash; those that went."""

    def retire(self, version: Version, moment: str) -> None:
        """Move a version and its manifest into the trash. What is not there any more is no error. May be done again."""

    def empty_trash(self, before: str) -> None:
        """Delete what came into the trash before a moment."""


class Destination(Protocol):
    """Where tiles go. `calm`: what the last run wrote is whole, whether it was made durable or not. `shared`: other
    machines, with states of their own, may write there between the runs of this one.
    """

    calm: bool
    shared: bool
    layout: Layout

    def settle(self) -> None:
        """Everything that is recorded as held has been checked: from here on the destination is calm."""

    @property
    def catalog(self) -> Catalog:
        """The state."""

    @property
    def files(self) -> Files:
        """The files."""

    @property
    def publication(self) -> Publication:
        """What leads to them."""
