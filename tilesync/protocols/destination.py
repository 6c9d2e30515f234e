"""What the jobs need of a place where tiles go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tilesync.model import Blob, Digests, FileStamp, Layout, SasUrl, StoredFile, Version
from tilesync.protocols.catalog import Catalog


class Draft(Protocol):
    """A blob on its way in. Nothing is visible before `commit`.

    `held` counts the bytes that are safely in; after `restart` it is 0.
    """

    received_bytes: int

    def received_chunks(self) -> AsyncIterator[bytes]:
        """The held bytes, for the checks of a resumed transfer."""

    async def append(self, chunk: bytes) -> None:
        """Add `chunk` after the held bytes. Cancelled half-way it may be done again."""

    async def restart(self) -> None:
        """Forget the held bytes."""

    async def commit(self, digests: Digests) -> StoredFile:
        """Place the whole file under its final name, replacing what was there."""

    async def suspend(self) -> None:
        """Keep what is held for a later run. May be called after `commit`, and then does nothing."""


class PresencePage(NamedTuple):
    """A look at some files that are held: how many, and those of them that do not look as they were left. `place`:
    where the next look goes on, empty behind the last file.
    """

    files: int
    doubtful: Sequence[StoredFile]
    cursor: str


class StoredFiles(Protocol):
    """The files of the versions of a destination, to be read. `portable`: they can be pickled, and read elsewhere.
    `wide`: as many are best read side by side; a store makes one wait for each.
    """

    is_picklable: bool
    parallel_reads: int

    def prepare_listing(self, version: Version) -> None:
        """Very many files of a version will be looked at: a store is asked about all at once."""

    def size(self, version: Version, name: str) -> int | None:
        """The size of the held file in bytes; None when there is no such regular file."""

    def stamp(self, version: Version, name: str) -> FileStamp | None:
        """What a look at the held file tells of whether it still is the same; None when there is no such file."""

    def unchanged(self, version: Version, stored: Sequence[StoredFile]) -> list[bool]:
        """For each, whether the file still is what was left there, as far as a look without reading it can tell."""

    def presence_pages(self, version: Version, catalog: Catalog, cursor: str) -> Iterator[PresencePage]:
        """Looks at the held files of a version from `place` on, some at a time: those of a catalog, or those that are
        listed there. Raises DestinationError where there is no such place (any more).
        """

    def read_into(self, version: Version, name: str, consume: Callable[[bytes], object]) -> FileStamp | None:
        """Give the bytes of the held file, read anew, to `into`; its trace, None when there is no such file."""

    def digest(self, version: Version, name: str) -> bytes | None:
        """SHA-256 of the held file, read anew; None when there is no such regular file."""

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """The bytes of one held file from `offset` on, piece by piece. Raises DestinationError when there is none."""

    def read(self, version: Version, name: str) -> bytes:
        """The bytes of one held file. Raises DestinationError when there is none."""


class Files(StoredFiles, Protocol):
    """The files of the versions of a destination, to be read and written.

    `links`: what two versions share takes its room once. `proves_md5`: a proof must tell the MD5. `keeps_parts`: what
    has come of a file is kept for a later run. `states_encoding`: each file is served with the encoding that it has.
    """

    has_hard_links: bool
    keeps_parts: bool
    requires_md5: bool
    states_encoding: bool

    def free_bytes(self) -> int | None:
        """Bytes of room left; None where that has no meaning."""

    def check_names(self, names: Iterable[str]) -> None:
        """Raise UnsafeName, naming the offenders, when any of `names` cannot be held safely. Writes nothing."""

    async def put(self, version: Version, blob: Blob, data: bytes, verify: Callable[[bytes], Digests]) -> StoredFile:
        """Place a small file whose bytes are all here, once `prove` has proven them; both happen off the loop.

        Raises what `prove` raises, and leaves everything as it was then.
        """

    async def copy_from_source(
        self, version: Version, blob: Blob, url: SasUrl, head: bytes
    ) -> tuple[StoredFile | None, str]:
        """Have the store take a blob, which begins with `head`, from its container by itself; None, and why, where it
        does not. Raises Transient for what another attempt may cure.
        """

    def has_part(self, version: Version, blob: Blob) -> bool:
        """Whether an earlier run, or an earlier draft, left a part of this very content."""

    def draft(self, version: Version, blob: Blob) -> Draft:
        """A draft of `blob`, continued from an earlier run when that left one for the same name and ETag."""

    def transfer_slots(self, blob: Blob) -> int:
        """As how many of the transfers that may run at once a blob counts: a large one may take room in memory."""

    def share(self, version: Version, requests: Sequence[tuple[Blob, Version, StoredFile]]) -> list[StoredFile | None]:
        """Place, as each blob, what another version holds, by a link or a copy, without touching what lies there.

        None for what is no longer as it was left there, or cannot be had from there.
        """

    def find_present(self, version: Version, blobs: Sequence[Blob]) -> set[str]:
        """The names of those that seem to lie in the version already, as far as a look at what has an MD5 can tell."""

    def names(self, version: Version) -> Iterator[str]:
        """What lies in the folder of a version, whether it is known or not."""

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove files that an unpublished version should not have; missing is no error."""

    def remove_parts(self) -> None:
        """Remove what only unfinished transfers needed."""


class ReadOnlyPublication(Protocol):
    """What leads to the versions of a destination, to be read."""

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """The lines of a manifest, the first one about the version. Raises DestinationError when it cannot be read."""

    def manifest_names(self) -> list[str]:
        """The versions that have a manifest."""

    def retired_names(self) -> set[str]:
        """The retired versions whose files still lie in their place."""

    def read_sidecar(self, version: Version) -> Iterator[Mapping[str, Any]] | None:
        """What was noted of a version beside its manifest; None where nothing was."""

    def latest(self) -> Mapping[str, Any] | None:
        """What `latest.json` says; None when there is none."""

    def owner(self) -> str | None:
        """Whose exports the destination holds, as it was recorded there; None where nothing was."""

    def is_vacant(self) -> bool:
        """Whether nothing of an export lies here, and nobody stated whose it is: a recorded owner does not count."""

    def last_success(self) -> Mapping[str, Any] | None:
        """What `checked.json` says of the last successful run; None when there is none."""

    def prefix(self, version: Version) -> str:
        """What leads from the pointer to the version's own folder: empty where the pointer is its root tileset."""

    def pointer_digest(self) -> str | None:
        """SHA-256 of the pointer, in hexadecimal; None when there is none."""

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Whether the pointer is the one of `version`, and what it needs is there."""

    def is_complete(self, version: Version) -> bool:
        """Whether all else that names the current version names `version`."""

    def has_staged_files(self, version: Version) -> bool:
        """Whether files of `version` have come in, and are not where viewers find them."""


class Admission(Protocol):
    """Who may make a place a destination, or write to one. `adopt`: also where others have put something."""

    @property
    def adopt(self) -> bool:
        """Whether a place that is not ours may become a destination, where nothing in it is in the way."""

    def admit(self, publication: ReadOnlyPublication) -> None:
        """Raise a DestinationError where the destination is another's. Reads only."""


class Publication(ReadOnlyPublication, Protocol):
    """What leads to the versions of a destination, to be read and written."""

    def write_manifest(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> str:
        """Make every file durable, then put the manifest in place. Returns its SHA-256. May be done again."""

    def write_sidecar(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> None:
        """Keep what can be told of a version without reading its files again, where reading them is dear."""

    def set_owner(self, owner: str, *, stated: bool = False) -> None:
        """Record whose exports the destination holds; `stated`: somebody said so, and it holds from now on."""

    def set_last_success(self, content: Mapping[str, Any]) -> None:
        """Replace `checked.json`."""

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Move the pointer, `latest.json` and what else names the current version. May be done again."""

    def find_blocked(self, version: Version, names: Iterable[str]) -> list[str]:
        """Those files of a finished version that cannot be brought to where they are looked for: something of others is
        in the way. Nothing is touched.
        """

    def move_into_place(self, version: Version, names: Iterable[str], moment: str) -> list[str]:
        """Bring the files of a finished version to where they are looked for, in this order. May be done again.

        The names where something else stood, which is in the trash now.
        """

    def discard(self, version: Version, files: Iterable[StoredFile], moment: str) -> list[StoredFile]:
        """Move files that lie where those of `version` are, and are none of them, into the trash; those that went."""

    def retire(self, version: Version, moment: str) -> None:
        """Move a version and its manifest into the trash. What is not there any more is no error. May be done again."""

    def empty_trash(self, before: str) -> None:
        """Delete what came into the trash before a moment."""


class Destination(Protocol):
    """Where tiles go. `calm`: what the last run wrote is whole, whether it was made durable or not. `shared`: other
    machines, with states of their own, may write there between the runs of this one.
    """

    is_intact: bool
    is_shared: bool
    layout: Layout

    def mark_intact(self) -> None:
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
