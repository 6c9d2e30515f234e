"""Files that a local destination holds, and the one door from a blob name to a path."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from tilesync.errors import DestinationError, UnsafeName
from tilesync.model import Held, Trace, Version
from tilesync.protocols import Catalog, Glance
from tilesync.rules.names import folders, problem
from tilesync.stores.disk import NO_FOLLOW, mapped, real_folder, trace_of

VERSIONS = "versions"

AT_A_GLANCE = 256
"""Files of one look: on a slow disk each may take some milliseconds."""

READ = 1 << 20
"""Bytes read at a time."""


def _piece(size: int) -> int:
    """How much of a file is read at a time: the room for a large piece costs more than a small file."""
    return min(READ, max(1 << 16, size + 1))


def left_there(path: str, held: Held) -> Trace | None:
    """The trace of a file that has the size and mtime with which it was left; None when there is no such file."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    trace = trace_of(found)
    same = (found.st_size, trace.mtime_ns) == (held.size, held.mtime_ns)
    return trace if same and stat.S_ISREG(found.st_mode) else None


class Door:
    """The only way from a blob name to a path: below a version's folder, through real folders only.

    The folders of the versions stand below the folder `within` of the root; where that is None all versions share the
    root itself. A folder is looked at once; one that is a symlink is refused, so nothing outside the destination is
    touched.
    """

    def __init__(self, root: Path, *, within: str | None = VERSIONS) -> None:
        self._root = str(root)
        self._within = within
        self._sound: OrderedDict[tuple[str, str], str] = OrderedDict()

    def path(self, version: str, name: str, *, make: bool = False) -> str:
        """The path of a file; its folders are made when `make`.

        Raises UnsafeName for a name that no folder can hold safely, DestinationError when a symlink or a file stands
        where a folder is needed.
        """
        if why := problem(name, windows=os.name == "nt"):
            raise UnsafeName(f"{name!r} {why}")
        folder, _, leaf = name.rpartition("/")
        known = self._sound.get((version, folder))
        if known is None:
            known = self._enter(version, folder, make=make)
        return f"{known}{os.sep}{leaf}"

    def _lead(self, version: str) -> tuple[str, ...]:
        return () if self._within is None else (self._within, version)

    def _enter(self, version: str, folder: str, *, make: bool) -> str:
        path, missing = self._root, False
        for part in (*self._lead(version), *(folder.split("/") if folder else ())):
            path = os.path.join(path, part)
            with mapped(f"cannot use the folder {path}"):
                missing = missing or not real_folder(path, make=make)
        if not missing:
            self._sound[version, folder] = path
            if len(self._sound) > 10_000:
                self._sound.popitem(last=False)
        return path

    def prune(self, version: str, name: str) -> None:
        """Remove the folders of a name that hold nothing any more."""
        self._sound.clear()
        for folder in reversed(folders(name)):
            with contextlib.suppress(OSError):  # not empty, or not there: both are fine
                os.rmdir(os.path.join(self._root, *self._lead(version), folder))

    def names(self, version: str) -> Iterator[str]:
        """What lies in the folder of a version, by names as blobs have them; symlinks are not followed."""
        top = os.path.join(self._root, *self._lead(version))
        for folder, inner, files in os.walk(top):
            links = [each for each in inner if os.path.islink(os.path.join(folder, each))]
            yield from (os.path.relpath(os.path.join(folder, each), top).replace(os.sep, "/") for each in files + links)

    def close(self, version: str) -> None:
        """Remove the folder of a version with all that is left there."""
        self._sound.clear()
        folder = os.path.join(self._root, *self._lead(version))
        if self._within is not None and os.path.lexists(folder):
            shutil.rmtree(folder)


class HeldFiles:
    """Reading: the files of the versions of a destination, as they lie there now.

    A file that is not behind the first door is looked for behind the next one; where versions share a place like that,
    a file of another inode is another file.
    """

    portable = True
    wide = 1

    def __init__(self, door: Door, *others: Door) -> None:
        self._door = door
        self._others = others

    def where(self, version: str, name: str) -> str:
        """The path at which a file of a version is read. Raises as `Door.path` does."""
        path = self._door.path(version, name)
        for door in self._others:
            if os.path.lexists(path):
                break
            path = door.path(version, name)
        return path

    def names(self, version: Version) -> Iterator[str]:
        """What lies in the folder of a version, whether it is known or not."""
        return self._door.names(version.name)

    def unchanged(self, version: Version, held: Sequence[Held]) -> list[bool]:
        """For each, whether size and mtime, and where versions share a place the inode, are as they were left."""
        return [self._is_unchanged(version.name, item) for item in held]

    def _is_unchanged(self, version: str, held: Held) -> bool:
        found = left_there(self.where(version, held.blob.name), held)
        return found is not None and (not self._others or found.inode == held.inode)

    def survey(self, version: Version) -> None:
        """Nothing: a look costs little."""

    def glances(self, version: Version, catalog: Catalog, place: str) -> Iterator[Glance]:
        """Looks at what the catalog holds, in its order, from behind the key `place` on."""
        more = True
        while more:
            batch = catalog.held(version, place, limit=AT_A_GLANCE)
            more, held = len(batch) == AT_A_GLANCE, [each for _, each in batch]
            place = batch[-1][0] if more else ""
            doubtful = [each for each, same in zip(held, self.unchanged(version, held), strict=True) if not same]
            yield Glance(len(held), doubtful, place)

    def size(self, version: Version, name: str) -> int | None:
        """The size of the file; None when there is no such regular file."""
        found = self._look(version, name)
        return found.st_size if found is not None else None

    def trace(self, version: Version, name: str) -> Trace | None:
        """The trace of the file; None when there is no such regular file."""
        found = self._look(version, name)
        return trace_of(found) if found is not None else None

    def _look(self, version: Version, name: str) -> os.stat_result | None:
        try:
            found = os.lstat(self.where(version.name, name))
        except OSError:
            return None
        except DestinationError:  # another version may have a file in the place of a folder
            if self._others:
                return None
            raise
        return found if stat.S_ISREG(found.st_mode) else None

    def feed(self, version: Version, name: str, into: Callable[[bytes], object]) -> Trace | None:
        """Give the bytes of the file, read anew, to `into`; its trace, None when there is no such regular file."""
        found = self._look(version, name)
        if found is None:
            return None
        with mapped(f"cannot read {name}"), self._open(version, name) as file:
            most = _piece(found.st_size)
            while chunk := file.read(most):
                into(chunk)
            return trace_of(os.fstat(file.fileno()))

    def _open(self, version: Version, name: str) -> IO[bytes]:
        return open(os.open(self.where(version.name, name), os.O_RDONLY | NO_FOLLOW), "rb", buffering=0)

    def digest(self, version: Version, name: str) -> bytes | None:
        """SHA-256 of the file, read anew; None when there is no such regular file."""
        sha256 = hashlib.sha256()
        return None if self.feed(version, name, sha256.update) is None else sha256.digest()

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """The bytes of one file from `offset` on, piece by piece."""
        with mapped(f"cannot read {name}"), self._open(version, name) as file:
            most = _piece(os.fstat(file.fileno()).st_size)
            file.seek(offset)
            while chunk := file.read(most):
                yield chunk

    def read(self, version: Version, name: str) -> bytes:
        """The bytes of one file."""
        with mapped(f"cannot read {name}"), self._open(version, name) as file:
            return file.read()
