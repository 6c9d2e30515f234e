"""What leads to the versions of a local destination: manifests, the pointer, latest.json, the symlink."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tilesync.core.foreign_json import DOCUMENT, loads, mapping
from tilesync.core.manifest import read_latest
from tilesync.core.ownership import is_stated, owner_record, read_owner, tells_another
from tilesync.errors import DestinationError
from tilesync.model import POINTER, Version
from tilesync.runtime.os_errors import mapped, reading, unreadable
from tilesync.runtime.safe_open import WrongFileType
from tilesync.stores.base import Apart
from tilesync.stores.local.directory_handles import Entry, Folder, Tree
from tilesync.stores.local.fs import barrier, place, read_regular
from tilesync.stores.local.reader import VERSIONS
from tilesync.stores.status_files import CHECKED, OWNERSHIP, document, read_document, write_document

PARTS = "parts"
TRASH = "trash"
LATEST = "latest.json"
MANIFESTS = "manifests"
SUFFIX = ".jsonl"
CURRENT = "current"

_NO_SYMLINK = {errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""A file system or system without symlinks (symlink(2)); a folder in the place of `current`."""

_MOMENT = re.compile(r"\d{8}T\d{6}Z-")


def _compact(moment: str) -> str:
    """A moment as the beginning of a file name, in an order that is that of time."""
    return moment.replace("-", "").replace(":", "")


_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


class Publication(Apart):
    """Publishing is a fixed order of renames behind a durability barrier; each step can be done again after a kill.

    `home` has the manifests and `latest.json`, `versions` a folder for each version, `state` parts and trash.
    """

    def __init__(self, root: Path, state: Path) -> None:
        self._root = root
        self._top = self._home = Tree(root)
        self._manifests = self._home.below(MANIFESTS)
        self._versions = self._top.below(VERSIONS)
        self._state = Tree.of(state, root)

    def prefix(self, version: Version) -> str:
        """What leads from the pointer to the version's own folder."""
        return f"{VERSIONS}/{version.name}/"

    def refuse_foreign(self) -> None:
        """Raise DestinationError when a tileset, or a `latest.json`, that tilesync did not put here stands at the top.

        A manifest is there before the first pointer is, `latest.json` only after it: either says that it is ours.
        """
        with reading(f"cannot look at {self._root}"):
            places = (self._top, POINTER), (self._home, LATEST)
            there = [name for tree, name in places if tree.look(name) is not None]
        if there and self.latest() is None and not self.manifest_names():
            raise DestinationError(
                f"{self._root} holds a {there[0]} that tilesync did not write",
                hint="choose an empty folder, or one that tilesync made",
            )

    def manifest_names(self) -> list[str]:
        """The versions that have a manifest."""
        with reading(f"cannot read {self._manifests.path}"):
            folder = self._manifests.find()
            found = folder.scan() if folder is not None else ()
        return sorted(name.removesuffix(SUFFIX) for name, _ in found if name.endswith(SUFFIX))

    def retired_names(self) -> set[str]:
        """None: a version that retires leaves its place at once."""
        return set()

    def noted(self, version: Version) -> None:
        """Nothing: the files can be read again."""

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """The lines of a manifest, the first one about the version. Raises DestinationError when it cannot be read."""
        path = self._path_of(version)
        with (
            reading(f"cannot read the manifest {path}"),
            open(self._manifest(version).open(), "rb") as lines,
        ):
            try:
                while line := lines.readline(DOCUMENT + 2):
                    yield mapping(loads(line.rstrip(b"\n")))
            except ValueError as error:
                raise DestinationError(f"the manifest {path} is damaged ({error})") from error

    def _manifest(self, version: str, *, make: bool = False) -> Entry:
        return self._manifests.folder(make=make).entry(f"{version}{SUFFIX}")

    def _path_of(self, version: str) -> str:
        """The path of a manifest, for messages."""
        return os.path.join(self._manifests.path, f"{version}{SUFFIX}")

    def latest(self) -> Mapping[str, Any] | None:
        """What `latest.json` says; None when there is none, or one that is not ours. Raises Unreadable."""
        data = self._read(self._home, LATEST)
        return read_latest(data) if data is not None else None

    def owner(self) -> str | None:
        """Whose exports the destination holds: as `latest.json` tells, which every state folder shares, else the record
        of this one; None where neither does.
        """
        return read_owner(self.latest()) or read_owner(read_document(self._read(self._state, OWNERSHIP)))

    def is_vacant(self) -> bool:
        """Whether nothing of an export lies here, and nobody stated whose it is."""
        said = read_document(self._read(self._state, OWNERSHIP))
        return self.latest() is None and not self.manifest_names() and not is_stated(said) and not self._holds_files()

    def _holds_files(self) -> bool:
        """Whether a file lies in the folder of any version."""
        with reading(f"cannot look at the versions in {self._root}"):
            folder = self._versions.find()
            return folder is not None and next(folder.walk(), None) is not None

    def set_owner(self, owner: str, *, stated: bool = False) -> None:
        """Record whose exports the destination holds; `stated`: somebody said so, and it holds from now on."""
        latest = self.latest()
        with mapped(f"cannot record the owner of {self._root}"):
            if latest is not None and tells_another(latest, owner):
                self._write(self._home, LATEST, {**latest, "owner": owner})
            self._write(self._state, OWNERSHIP, owner_record(owner, stated=stated))

    def checked(self) -> Mapping[str, Any] | None:
        """What `checked.json` says of the last successful run; None when there is none."""
        return read_document(self._read(self._home, CHECKED))

    def set_checked(self, said: Mapping[str, Any]) -> None:
        """Replace `checked.json`."""
        with mapped(f"cannot write {CHECKED}"):
            self._write(self._home, CHECKED, said)

    def _write(self, tree: Tree, name: str, said: Mapping[str, Any]) -> None:
        """Put a document in place in one step. Raises OSError."""
        write_document(self._temporary(name), tree.folder().entry(name), said)

    def pointer(self) -> str | None:
        """SHA-256 of the pointer, in hexadecimal; None when there is no regular file. Raises Unreadable."""
        data = self._read(self._top, POINTER)
        return hashlib.sha256(data).hexdigest() if data is not None else None

    def _read(self, tree: Tree, name: str) -> bytes | None:
        """The bytes of a file that publishing replaces; None where none stands, or a symlink or a folder does."""
        try:
            return read_regular(tree.folder().entry(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            if isinstance(error, WrongFileType) and error.errno in {errno.ELOOP, errno.EISDIR}:
                return None
            raise unreadable(error, f"cannot read {name}") from error

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Whether the pointer and `latest.json` are those of `version`, and its manifest and files are there."""
        return (
            self.pointer() == pointer_sha256
            and (self.latest() or {}).get("version") == version.name
            and self._has_manifest(version)
            and self._is_there(version)
        )

    def _has_manifest(self, version: Version) -> bool:
        with reading(f"cannot look at the manifest of version {version.name}"):
            found = self._manifests.look(f"{version.name}{SUFFIX}")
        return found is not None and stat.S_ISREG(found.st_mode)

    def _is_there(self, version: Version) -> bool:
        """Whether there is something where the files of a finished version lie."""
        with reading(f"cannot look at version {version.name}"):
            return self._versions.find(version.name) is not None

    def complete(self, version: Version) -> bool:
        """Whether `current` leads to `version`, on a system that has symlinks for everyone."""
        with reading(f"cannot look at {CURRENT}"):
            target = self._top.folder().entry(CURRENT).target() if os.name != "nt" else None
        return os.name == "nt" or target == f"{VERSIONS}/{version.name}"

    def staged(self, version: Version) -> bool:
        """No: the files of a version come straight to their places."""
        return False

    def write_manifest(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> str:
        """Make every file durable, then put the manifest in place. Returns its SHA-256."""
        digest = hashlib.sha256()
        with mapped(f"cannot write the manifest {self._path_of(version.name)}"):
            barrier(self._root)
            final, temporary = self._manifest(version.name, make=True), self._temporary("manifest")
            with open(temporary.create(), "wb") as file:
                for line in lines:
                    data = _LINE.encode(line).encode(errors="surrogatepass")
                    digest.update(data + b"\n")
                    file.write(data + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.move(final)
            final.folder.sync()
        return digest.hexdigest()

    def _temporary(self, name: str) -> Entry:
        """Where something is written before it is renamed to its place."""
        return self._state.folder(PARTS).entry(name)

    def note(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> None:
        """Nothing is kept: the files can be read again."""

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Move the pointer, then `latest.json`, then the symlink: each one rename."""
        with mapped(f"cannot write {POINTER} in {self._root}"):
            place(self._temporary("pointer"), self._top.folder().entry(POINTER), pointer)
        self._tell_latest(latest)
        with mapped(f"cannot publish in {self._root}"):
            self._relink(version)

    def _tell_latest(self, latest: Mapping[str, Any]) -> None:
        with mapped(f"cannot write {LATEST} in {self._home.path}"):
            place(self._temporary("latest"), self._home.folder().entry(LATEST), [document(latest)])

    def retire(self, version: Version, moment: str) -> None:
        """Move a version and its manifest into the trash: the manifest first, so that what has one is always whole."""
        with mapped(f"cannot retire version {version.name}"):
            for tree, name in self._parts_of(version):
                folder = tree.find()
                if folder is not None and folder.entry(name).find() is not None:
                    inside = os.path.basename(folder.path)
                    folder.entry(name).move(self._in_trash(version, moment, inside).entry(name))
                    folder.sync()

    def _parts_of(self, version: Version) -> list[tuple[Tree, str]]:
        """What a version consists of, in the order in which it retires: folder and name of each."""
        return [(self._manifests, f"{version.name}{SUFFIX}"), (self._versions, version.name)]

    def _in_trash(self, version: Version, moment: str, *inside: str) -> Folder:
        """A folder for something of a version in the trash."""
        return self._state.folder("/".join((TRASH, f"{_compact(moment)}-{version.name}", *inside)), make=True)

    def empty_trash(self, before: str) -> None:
        """Delete what came into the trash before a moment. What someone else put there is left alone."""
        with mapped(f"cannot empty the trash in {self._state.path}"):
            trash = self._state.find(TRASH)
            for name, is_folder in trash.scan() if trash is not None else ():
                if trash is not None and is_folder and _MOMENT.match(name) and name < _compact(before):
                    trash.remove(name)

    def _relink(self, version: Version) -> None:
        """Swap `current`. A file system or system without symlinks does without; a folder of that name stays."""
        temporary = self._temporary("current")
        temporary.unlink()
        try:
            temporary.lead_to(f"{VERSIONS}/{version.name}")
            temporary.move(self._top.folder().entry(CURRENT))
        except NotImplementedError:
            pass  # a system without
        except OSError as error:
            if error.errno not in _NO_SYMLINK:
                raise
        temporary.unlink()
