"""Files on their way into a local destination: drafts, parts and rename."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import get_ident

from tilesync.core.gzip import PACKED
from tilesync.core.safe_names import plain, problem, refuse
from tilesync.errors import BlobDamaged, DestinationError
from tilesync.model import Blob, Content, Held, Proof, SasUrl, Trace, Unpacked, Version
from tilesync.runtime.os_errors import mapped, reading, translate
from tilesync.runtime.threads import in_thread
from tilesync.stores.local.directory_handles import Entry, Tree
from tilesync.stores.local.fs import BatchWriter, copied, linked, trace_of, write_at, write_whole
from tilesync.stores.local.gunzip import Unpacking, is_packed, pieces_of, unpack
from tilesync.stores.local.reader import READ, Door, HeldFiles, left_there

_LEAD = 160
"""Bytes kept for `/versions/<version>/` and the terminator."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where small files are put, each written beside and then renamed. Picklable: other processes put theirs there.

    `unpacks`: a gzip payload lies there unpacked.
    """

    door: Door
    parts: Tree
    unpacks: bool = False

    def put(self, version: str, blob: Blob, data: bytes, prove: Callable[[bytes], Proof]) -> Held:
        """Place a file, once `prove` has proven its bytes. Raises what that raises, UnsafeName, DestinationError."""
        return self.take(version, blob, data, prove(data))

    def take(self, version: str, blob: Blob, data: bytes, proof: Proof) -> Held:
        """Place a file whose bytes are proven. Raises UnsafeName, DestinationError."""
        doing = "write"
        try:  # `mapped` would cost a tenth of what a small file takes
            temporary = self.parts.folder().entry(f"whole-{os.getpid()}-{get_ident()}")
            held = self._unpacked(temporary, blob, data, proof) if self.unpacks and data.startswith(PACKED) else None
            held = held or Held(blob, proof.sha256, *write_whole(temporary, data, blob.last_modified))
            doing = "place"
            temporary.move(self.door.entry(version, blob.name, make=True))
        except OSError as error:
            raise translate(error, f"cannot {doing} {blob.name} in version {version}") from error
        return held

    def _unpacked(self, temporary: Entry, blob: Blob, data: bytes, proof: Proof) -> Held | None:
        """The file, unpacked; None where the payload is broken: since it is proven, the container holds it so."""
        try:
            trace, size, sha256 = unpack([data], temporary, blob.last_modified)
        except BlobDamaged:
            return None
        return Held(blob, sha256, *trace, Unpacked(size, proof.sha256))


class LocalFiles(HeldFiles):
    """Reading and writing: files come in behind the first door. `judge` refuses names that cannot be held."""

    portable = False
    links = keeps_parts = True
    proves_md5 = states_encoding = False

    def __init__(
        self,
        doors: Sequence[Door],
        parts: Tree,
        judge: Callable[[Iterable[str]], None],
        *,
        trust_parts: bool,
    ) -> None:
        super().__init__(*doors)
        self._parts = parts
        self._shelf = Shelf(self._door, parts)
        self._unpacking = replace(self._shelf, unpacks=True)
        self._writer = BatchWriter()
        with mapped(f"cannot use {parts.path}"):
            leftover = parts.folder().scan()
            self._leftover = {name for name, _ in leftover} if trust_parts else set()
        self.judge = judge

    def held(self) -> HeldFiles:
        """What reads these files, and can be pickled."""
        return HeldFiles(self._door, *self._others)

    def shelf(self, version: Version) -> Shelf:
        """Where small files of a version are put."""
        return self._unpacking if version.content is Content.DECODED else self._shelf

    def free(self) -> int:
        """Bytes of room left for this user."""
        with mapped(f"cannot look at {self._parts.path}"):
            return shutil.disk_usage(self._parts.path).free

    def begun(self, version: Version, blob: Blob) -> bool:
        """Whether an earlier run, or an earlier draft, left a part of this very content."""
        return bool(self._leftover) and _part_of(version, blob) in self._leftover

    def draft(self, version: Version, blob: Blob) -> LocalDraft:
        """A draft; its part is keyed by name and ETag, so a stale one is never continued."""
        part = _part_of(version, blob)
        known = blob.etag or blob.md5 is not None or blob.sha256 is not None
        held = self._size_of(part) if known and part in self._leftover else 0
        with mapped(f"cannot use {self._parts.path}"):
            return LocalDraft(self, version, blob, self._parts.folder().entry(part), held)

    def _size_of(self, part: str) -> int:
        """Bytes of a part that an earlier draft left; of one that has another name elsewhere none count."""
        self._leftover.discard(part)
        try:
            found = self._parts.folder().entry(part).stat()
        except OSError:
            return 0
        return found.st_size if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else 0

    def keep(self, part: Entry) -> None:
        """Another draft of the same content may go on with this part."""
        self._leftover.add(part.name)

    async def put(self, version: Version, blob: Blob, data: bytes, prove: Callable[[bytes], Proof]) -> Held:
        """Place a small file, together with others."""
        return await self._writer.run(partial(self.shelf(version).put, version.name, blob, data, prove))

    def place(self, version: str, blob: Blob, part: Entry) -> Trace:
        """Rename a finished part to its final name, with the blob's Last-Modified. Returns its trace."""
        with mapped(f"cannot place {blob.name} in version {version}"):
            if blob.last_modified is not None:
                part.date(blob.last_modified)
            final = self._door.entry(version, blob.name, make=True)
            part.move(final)
            return trace_of(final.stat())

    async def take(self, version: Version, blob: Blob, link: SasUrl, head: bytes) -> tuple[Held | None, str]:
        """A folder takes nothing by itself."""
        return None, "a folder cannot"

    def places(self, blob: Blob) -> int:
        """One: what comes goes to the disk."""
        return 1

    def lying(self, version: Version, blobs: Sequence[Blob]) -> set[str]:
        """The names of those with an MD5 of which a file of that size lies in the version; of an unpacked one nothing
        tells.
        """
        there = {b.name for b in blobs if b.md5 is not None and self.size(version, b.name) == b.size}
        if version.content is Content.DECODED:
            there = {name for name in there if not self._is_packed(version, name)}
        return there

    def _is_packed(self, version: Version, name: str) -> bool:
        with reading(f"cannot read {name}"):
            lying = self.find(version.name, name)
            return lying is not None and is_packed(lying[0])

    def share(self, version: Version, wishes: Sequence[tuple[Blob, Version, Held]]) -> list[Held | None]:
        """Place, as each blob, the file that another version holds: a hard link, or a copy where none can be made; one
        that is to be unpacked here is unpacked from there.

        None where that file is no longer what was left there, or cannot be reached: what stands in the way here is met
        by the fetch again. One that was moved here with the whole destination has another inode than it had: it counts
        when its bytes do.
        """
        return [self._share_or_not(version, *wish) for wish in wishes]

    def _share_or_not(self, version: Version, blob: Blob, of: Version, held: Held) -> Held | None:
        with suppress(DestinationError):
            return self._share(version, blob, of, held)
        return None

    def _share(self, version: Version, blob: Blob, of: Version, held: Held) -> Held | None:
        with mapped(f"cannot share {held.blob.name} of version {of.name}"):
            lying = self.find(of.name, held.blob.name)
            found = left_there(lying[1], held) if lying is not None else None
            if lying is None or found is None:
                return None
            if found.inode != held.inode and self.digest(of, held.blob.name) != held.sha256:
                return None
            source = lying[0]
            if version.content is not of.content:
                if version.content is Content.STORED and held.unpacked is not None:
                    return None
                if version.content is Content.DECODED and is_packed(source):
                    return self._unpack(version, blob, source, held)
            same = Held(blob, held.sha256, *found, held.unpacked)
            there = self.find(version.name, blob.name) if self._others else None
            if there is not None and there[0].path == source.path:
                return same
            final = self._door.entry(version.name, blob.name, make=True)
            if source.path == final.path:
                return same
            temporary = self._temporary()
            with suppress(FileExistsError):
                if linked(source, final):
                    if left_there(final.find(), held) == found:
                        return same
                    final.unlink()
                    return None
            temporary.unlink()
            if linked(source, temporary):
                if left_there(temporary.find(), held) != found:
                    return None
                temporary.move(final)
                temporary.unlink()  # still there when it replaced itself
                return same
            if copied(source, temporary) != held.sha256:
                return None
            return Held(blob, held.sha256, *self.place(version.name, blob, temporary), held.unpacked)

    def _unpack(self, version: Version, blob: Blob, source: Entry, held: Held) -> Held | None:
        """Place, unpacked, what another version holds as it is stored; None where that is not what was left there."""
        stored, temporary = hashlib.sha256(), self._temporary()

        def read() -> Iterator[bytes]:
            for piece in pieces_of(source):
                stored.update(piece)
                yield piece

        try:
            _, size, sha256 = unpack(read(), temporary, blob.last_modified)
        except BlobDamaged:
            return None
        if stored.digest() != held.sha256:
            temporary.unlink()
            return None
        return Held(blob, sha256, *self.place(version.name, blob, temporary), Unpacked(size, held.sha256))

    def _temporary(self) -> Entry:
        """A name for what is shared, in the parts; another thread has another one."""
        return self._parts.folder().entry(f"shared-{get_ident()}")

    async def placed(self, version: str, blob: Blob, part: Entry) -> Trace:
        """Place a finished part, together with others."""
        return await self._writer.run(partial(self.place, version, blob, part))

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove files that an unpublished version should not have, and folders left empty; missing is no error."""
        for name in names:
            with mapped(f"cannot remove {name}"), suppress(FileNotFoundError):
                self._door.entry(version.name, name).unlink()
            self._door.prune(version.name, name)

    def tidy(self) -> None:
        """Remove the parts that no transfer waits for any more."""
        with mapped(f"cannot tidy {self._parts.path}"):
            parts = self._parts.folder()
            for name, _ in parts.scan():
                parts.entry(name).unlink()
        self._leftover.clear()


def _part_of(version: Version, blob: Blob) -> str:
    content = (version.name, blob.name, blob.etag, blob.size, blob.md5, blob.last_modified)
    return hashlib.sha256(repr(content).encode(errors="surrogatepass")).hexdigest()[:32]


class LocalDraft:
    """A blob on its way to a file, in a part, which holds what is stored; it is unpacked when it is whole."""

    def __init__(self, files: LocalFiles, version: Version, blob: Blob, part: Entry, held: int) -> None:
        self._files = files
        self._version = version
        self._blob = blob
        self._part = part
        self.held = held

    async def prefix(self) -> AsyncIterator[bytes]:
        """The held bytes, for the checks of a resumed transfer."""
        import aiofiles

        left = self.held
        if not left:
            return
        with mapped(f"cannot read the part of {self._blob.name}"):
            async with aiofiles.open(self._part.open(), "rb") as file:
                while left and (chunk := await file.read(min(left, READ))):
                    left -= len(chunk)
                    yield chunk

    async def append(self, chunk: bytes) -> None:
        """Add `chunk` at its own offset: cut off half-way or done again, the part is right as far as it goes."""
        with mapped(f"cannot write {self._blob.name}"):
            await in_thread(write_at, self._part, self.held, chunk)
        self.held += len(chunk)

    async def restart(self) -> None:
        """Forget the held bytes."""
        if self.held:
            with mapped(f"cannot remove the part of {self._blob.name}"):
                self._part.unlink()
        self.held = 0

    async def commit(self, proof: Proof) -> Held:
        """Place the whole file under its final name."""
        if not self.held:
            await self.append(b"")
        with mapped(f"cannot read the part of {self._blob.name}"):
            packed = self._version.content is Content.DECODED and await in_thread(is_packed, self._part)
        held = await self._unpack(proof) if packed else None
        if held is None:
            held = Held(self._blob, proof.sha256, *await self._files.placed(self._version.name, self._blob, self._part))
        self.held = 0
        return held

    async def _unpack(self, proof: Proof) -> Held | None:
        """Place what the part holds, unpacked; the part stays until that is done, however it is interrupted. None where
        the payload is broken: since it is proven, the container holds it so.
        """
        beside = self._part.folder.entry(f"{self._part.name}-unpacked")
        try:
            with mapped(f"cannot unpack {self._blob.name}"):
                unpacking = Unpacking(pieces_of(self._part), beside)
                try:
                    while await in_thread(unpacking.go_on):
                        pass
                finally:
                    unpacking.give_up()
            trace = await self._files.placed(self._version.name, self._blob, beside)
        except BlobDamaged:
            return None
        finally:
            beside.unlink()
        self._part.unlink()
        return Held(self._blob, unpacking.sha256, *trace, Unpacked(unpacking.size, proof.sha256))

    async def suspend(self) -> None:
        """Keep what has arrived in the part, for a later run."""
        if self.held:
            self._files.keep(self._part)


def judge_names(names: Iterable[str], *, path_bytes: int, ours: str = "") -> None:
    """Raise UnsafeName, naming the offenders, when any of the names cannot be held in a folder. `ours`: the name of a
    folder there that is not for them.
    """
    windows, names = os.name == "nt", list(names)
    if not ours and not windows and plain(names, path_bytes=path_bytes):
        return
    bad = [
        (name, why)
        for name in names
        if (why := problem(name, path_bytes=path_bytes, windows=windows, ours=ours) or _unwritable(name))
    ]
    refuse(bad, "a folder cannot hold safely", elsewhere="; an object store can hold more names")


def _unwritable(name: str) -> str | None:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "cannot be written in this locale (try LC_ALL=C.UTF-8)"
    return None


def path_limit(root: Path) -> int:
    """Bytes that a blob name may have below `root`: what the system's longest path leaves; 0 when it has none."""
    if not hasattr(os, "pathconf"):
        return 0
    there = next(folder for folder in (root, *root.parents) if folder.is_dir())
    with mapped(f"cannot look at {there}"):
        return max(1, os.pathconf(there, "PC_PATH_MAX") - len(os.fsencode(root)) - _LEAD)


def folds_case(folder: Tree) -> bool:
    """Whether the disk takes names that differ only in case for the same."""
    with mapped(f"cannot write to {folder.path}"):
        probe = folder.folder().entry("case-Probe")
        os.close(probe.create())
        folds = folder.folder().entry("CASE-pROBE").find() is not None
        probe.unlink()
    return folds
