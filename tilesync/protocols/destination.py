"""Interface of a destination: files, drafts, publication and admission."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tilesync.model import Blob, Chunk, Digests, FileStamp, Layout, SasUrl, StoredFile, UnchangedFile, Version
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog
    from tilesync.events import Finding


class Draft(Protocol):
    """Partial download of a blob, invisible before `commit`.

    `received_bytes`: bytes that are safely stored; 0 after `restart`.
    """

    received_bytes: int

    def received_chunks(self) -> AsyncIterator[bytes]:
        """Yield the received bytes, to continue the checks of a resumed transfer."""

    async def append(self, chunk: Chunk, check: Callable[[], None] | None = None) -> None:
        """Append `chunk` to the received bytes. May be repeated after a cancellation.

        `check` is called before, in a thread: in the one that writes, if there is one. Its errors are raised.
        """

    async def restart(self) -> None:
        """Discard the received bytes."""

    async def commit(self, digests: Digests) -> StoredFile:
        """Move the whole file to its final name, replacing any previous one."""

    async def suspend(self) -> None:
        """Keep the received bytes for a later run. Does nothing after `commit`."""


class PresencePage(NamedTuple):
    """Result of checking some stored files.

    `files`: number checked. `doubtful`: those that differ from their stamp. `cursor`: start of the next page, empty
    after the last.
    """

    files: int
    doubtful: Sequence[StoredFile]
    cursor: str


MAX_WHOLE_FILE_BYTES = 1 << 22
"""Maximum size of a file that is read whole into memory."""


class WholeFile(NamedTuple):
    """All bytes of a stored file, and its stamp from before they were read."""

    data: bytes
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class StructureChecks:
    """Checks of a destination beyond its files, which only a package needs.

    `find_problems`: yields the findings about a version. `remedy`: hint if there are any.
    """

    find_problems: Callable[[str], Iterator[Finding]]
    remedy: str


class StoredFiles(Protocol):
    """Read access to the files of the versions of a destination.

    `parallel_reads`: best number of concurrent reads, since a store needs a round trip for each.
    """

    parallel_reads: int

    def worker_reader(self) -> StoredFiles | None:
        """Return a picklable reader of these files for other processes; None if they cannot read them."""

    def prepare_listing(self, version: Version) -> None:
        """Prepare for checks of very many files of a version: a store then lists them all at once."""

    def size(self, version: Version, name: str) -> int | None:
        """Return the size of a stored file in bytes; None if it is no regular file."""

    def stamp(self, version: Version, name: str) -> FileStamp | None:
        """Return the current stamp of a stored file; None if there is no such file."""

    def unchanged(self, version: Version, stored: Sequence[StoredFile]) -> list[bool]:
        """Return for each file whether its stamp is unchanged, without reading it."""

    def changed_pages(self, version: Version, catalog: Catalog) -> Iterator[list[StoredFile]]:
        """Check the stamps of all stored files that the catalog lists; yield those that differ, page by page."""

    def presence_pages(self, version: Version, catalog: Catalog, cursor: str) -> Iterator[PresencePage]:
        """Yield pages of checks of the stored files of a version, from `cursor` on.

        The files come from the catalog or from a listing. Raises DestinationError if the cursor is not valid (any
        more).
        """

    def read_into(self, version: Version, name: str, consume: Callable[[bytes], object]) -> FileStamp | None:
        """Read a stored file and pass its bytes to `consume`; return its stamp, or None if there is no such file."""

    def read_whole(self, version: Version, stored: Sequence[StoredFile]) -> Iterator[WholeFile | None]:
        """Yield each file with one read, None for those that need `read_into`, as large ones do."""

    def digest(self, version: Version, name: str) -> bytes | None:
        """Read a stored file and return its SHA-256; None if it is no regular file."""

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a stored file from `offset` on. Raises DestinationError if there is none."""

    def read(self, version: Version, name: str) -> bytes:
        """Return the bytes of a stored file. Raises DestinationError if there is none."""


class Files(StoredFiles, Protocol):
    """Read and write access to the files of the versions of a destination.

    `has_hard_links`: a file shared by versions takes its space once. `keeps_parts`: partial downloads are kept for a
    later run. `requires_md5`: only an MD5 can prove a file here. `states_encoding`: each file is served with its own
    encoding.
    """

    has_hard_links: bool
    keeps_parts: bool
    requires_md5: bool
    states_encoding: bool

    def free_bytes(self) -> int | None:
        """Return the free space in bytes; None if that has no meaning."""

    def check_names(self, names: Iterable[str]) -> None:
        """Raise UnsafeName, with the bad names, if any of `names` cannot be stored safely. Writes nothing."""

    async def put(self, version: Version, blob: Blob, data: bytes, verify: Callable[[bytes], Digests]) -> StoredFile:
        """Place a small file from memory after `verify` has accepted its bytes; both run off the event loop.

        Raises what `verify` raises, and then leaves everything unchanged.
        """

    async def copy_from_source(
        self, version: Version, blob: Blob, url: SasUrl, head: bytes
    ) -> tuple[StoredFile | None, str]:
        """Let the store copy a blob, which begins with `head`, from its container.

        Returns None and the reason if it does not. Raises Transient for a failure worth a retry.
        """

    def has_part(self, version: Version, blob: Blob) -> bool:
        """Return whether an earlier run or draft left a part of exactly this content."""

    def draft(self, version: Version, blob: Blob) -> Draft:
        """Return a draft of `blob`; it continues a previous one with the same name and ETag."""

    def transfer_slots(self, blob: Blob) -> int:
        """Return how many of the concurrent transfers a blob counts as: a large one may need memory."""

    def link_unchanged(self, version: Version, earlier: Version, files: Sequence[UnchangedFile]) -> list[UnchangedFile]:
        """Place files of the version `earlier` as hard links; return those that are in place and unchanged.

        All others are left to `share`.
        """

    def share(self, version: Version, requests: Sequence[tuple[Blob, Version, StoredFile]]) -> list[StoredFile | None]:
        """Place files of other versions as these blobs, by link or copy, without changing the originals.

        None for a file that has changed since it was stored, or cannot be shared.
        """

    def find_present(self, version: Version, blobs: Sequence[Blob]) -> set[str]:
        """Return the names of blobs with an MD5 that seem to be in the version already."""

    def names(self, version: Version) -> Iterator[str]:
        """Yield the names of files in the folder of a version, known or not."""

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove files that an unpublished version should not have; a missing file is no error."""

    def remove_parts(self) -> None:
        """Remove files that only unfinished transfers needed."""


class ReadOnlyPublication(Protocol):
    """Read access to the pointer, the manifests and the records of a destination."""

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """Yield the lines of a manifest, the header first. Raises DestinationError if it cannot be read."""

    def manifest_chunks(self, version: str) -> Iterator[bytes]:
        """Yield the exact bytes of a manifest, piece by piece. Raises DestinationError if it cannot be read."""

    def manifest_names(self) -> list[str]:
        """Return the names of versions that have a manifest."""

    def retired_names(self) -> set[str]:
        """Return the retired versions whose files are still in place."""

    def read_sidecar(self, version: Version) -> Iterator[Mapping[str, Any]] | None:
        """Yield the lines of the sidecar index of a version; None if it has none."""

    def latest(self) -> Mapping[str, Any] | None:
        """Return the content of `latest.json`, or None."""

    def owner(self) -> str | None:
        """Return the recorded owner of the destination, or None."""

    def is_vacant(self) -> bool:
        """Return whether there is no export here and nobody stated an owner; a recorded owner alone does not count."""

    def last_success(self) -> Mapping[str, Any] | None:
        """Return the content of `checked.json`, which describes the last successful run, or None."""

    def prefix(self, version: Version) -> str:
        """Return the path from the pointer to the folder of the version; empty if the pointer is its root tileset."""

    def pointer_digest(self) -> str | None:
        """Return the SHA-256 of the pointer in hexadecimal, or None."""

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Return whether the pointer is that of `version`, and its target exists."""

    def is_complete(self, version: Version) -> bool:
        """Return whether all other documents that name the current version name `version`."""

    def has_staged_files(self, version: Version) -> bool:
        """Return whether files of `version` have been downloaded but not moved to where viewers find them."""


class Admission(Protocol):
    """Decision whether a place may become a destination, or be written to.

    The jobs decide; the stores, which must not import them, ask before their first write.
    """

    @property
    def adopt(self) -> bool:
        """True if a place with foreign content may become a destination, unless that content is in the way."""

    def admit(self, publication: ReadOnlyPublication) -> None:
        """Raise a DestinationError if the destination belongs to another owner. Reads only."""


class Publication(ReadOnlyPublication, Protocol):
    """Read and write access to the pointer, the manifests and the records of a destination."""

    def sync_files(self) -> None:
        """Make the files that are stored by now durable, so that `write_manifest` has less to wait for."""

    def write_manifest(self, version: Version, pieces: Iterable[bytes]) -> str:
        """Make every file durable, then write the manifest and return its SHA-256. May be repeated.

        It comes in pieces of whole lines, which are read only then.
        """

    def write_sidecar(self, version: Version, pieces: Iterable[bytes]) -> None:
        """Write the sidecar index of a version, if reading its files again would be expensive."""

    def set_owner(self, owner: str, *, stated: bool = False) -> None:
        """Record the owner of the destination; `stated`: a person confirmed it, so it stays valid from now on."""

    def set_last_success(self, content: Mapping[str, Any]) -> None:
        """Replace `checked.json`."""

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Move the pointer, `latest.json` and all other documents that name the current version. May be repeated."""

    def find_blocked(self, version: Version, names: Iterable[str]) -> list[str]:
        """Return the files of a finished version whose final paths are blocked by foreign files. Changes nothing."""

    def move_into_place(self, version: Version, names: Iterable[str], moment: str) -> list[str]:
        """Move the files of a finished version to their final paths, in this order. May be repeated.

        Returns the names where something else was, which is in the trash now.
        """

    def discard(self, version: Version, files: Iterable[StoredFile], moment: str) -> list[StoredFile]:
        """Move stale files beside those of `version` into the trash; return the ones that were moved."""

    def retire(self, version: Version, moment: str) -> None:
        """Move a version and its manifest into the trash. A missing one is no error. May be repeated."""

    def empty_trash(self, before: str) -> None:
        """Delete what was moved into the trash before a time."""


class Destination(Protocol):
    """Destination of tiles.

    `is_intact`: the last run left everything whole, durable or not. `is_shared`: other machines with catalogs of their
    own may write to it between runs.
    """

    is_intact: bool
    is_shared: bool
    layout: Layout

    def mark_intact(self) -> None:
        """Record that every stored file has been checked, so the destination is intact."""

    @property
    def catalog(self) -> Catalog:
        """The catalog."""

    @property
    def files(self) -> Files:
        """The files."""

    @property
    def publication(self) -> Publication:
        """The pointer, manifests and records."""
