"""What leads to the versions of a local destination: manifests, the pointer, latest.json, the symlink."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tilesync.errors import DestinationError
from tilesync.model import POINTER, Version
from tilesync.rules.ownership import owner_record, read_owner, tells_another
from tilesync.stores.apart import Apart
from tilesync.stores.disk import barrier, create, mapped, place, read_regular, real_folder, sync_folder
from tilesync.stores.held import VERSIONS
from tilesync.stores.status_files import CHECKED, OWNERSHIP, document, read_document, write_document

PARTS = "parts"
TRASH = "trash"
LATEST = "latest.json"
MANIFESTS = "manifests"
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
        self._home = root
        self._versions = root / VERSIONS
        self._temporary = state / PARTS
        self._trash = state / TRASH
        self._ownership = state / OWNERSHIP

    def prefix(self, version: Version) -> str:
        """What leads from the pointer to the version's own folder."""
        return f"{VERSIONS}/{version.name}/"

    def refuse_foreign(self) -> None:
        """Raise DestinationError when a tileset, or a `latest.json`, that tilesync did not put here stands at the top.

        A manifest is there before the first pointer is, `latest.json` only after it: either says that it is ours.
        """
        there = [path.name for path in (self._root / POINTER, self._home / LATEST) if os.path.lexists(path)]
        if there and self.latest() is None and not self.manifest_names():
            raise DestinationError(
                f"{self._root} holds a {there[0]} that tilesync did not write",
                hint="choose an empty folder, or one that tilesync made",
            )

    def manifest_names(self) -> list[str]:
        """The versions that have a manifest."""
        folder = self._home / MANIFESTS
        with mapped(f"cannot read {folder}"):
            return sorted(p.stem for p in folder.glob("*.jsonl")) if folder.is_dir() else []

    def retired_names(self) -> set[str]:
        """None: a version that retires leaves its place at once."""
        return set()

    def noted(self, version: Version) -> None:
        """Nothing: the files can be read again."""

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """The lines of a manifest, the first one about the version. Raises DestinationError when it cannot be read."""
        path = self._home / MANIFESTS / f"{version}.jsonl"
        with mapped(f"cannot read the manifest {path}"), open(path, encoding="utf-8") as lines:
            try:
                yield from map(json.loads, lines)
            except ValueError as error:
                raise DestinationError(f"the manifest {path} is damaged ({error})") from error

    def latest(self) -> Mapping[str, Any] | None:
        """What `latest.json` says; None when there is none, or one that is not ours."""
        said = read_document(self._home / LATEST)
        return said if said is not None and {"version", "manifest"} <= said.keys() else None

    def owner(self) -> str | None:
        """Whose exports the destination holds: as `latest.json` tells, which every state folder shares, else the record
        of this one; None where neither does.
        """
        return read_owner(self.latest()) or read_owner(read_document(self._ownership))

    def set_owner(self, owner: str) -> None:
        """Record whose exports the destination holds."""
        latest = self.latest()
        with mapped(f"cannot record the owner of {self._root}"):
            if latest is not None and tells_another(latest, owner):
                write_document(self._temporary / LATEST, self._home / LATEST, {**latest, "owner": owner})
            write_document(self._temporary / OWNERSHIP, self._ownership, owner_record(owner))

    def checked(self) -> Mapping[str, Any] | None:
        """What `checked.json` says of the last successful run; None when there is none."""
        return read_document(self._home / CHECKED)

    def set_checked(self, said: Mapping[str, Any]) -> None:
        """Replace `checked.json`."""
        with mapped(f"cannot write {CHECKED}"):
            write_document(self._temporary / CHECKED, self._home / CHECKED, said)

    def pointer(self) -> str | None:
        """SHA-256 of the pointer, in hexadecimal; None when there is no regular file."""
        try:
            return hashlib.sha256(read_regular(str(self._root / POINTER))).hexdigest()
        except OSError:
            return None

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Whether the pointer and `latest.json` are those of `version`, and its manifest and files are there."""
        return (
            self.pointer() == pointer_sha256
            and (self.latest() or {}).get("version") == version.name
            and (self._home / MANIFESTS / f"{version.name}.jsonl").is_file()
            and self._is_there(version)
        )

    def _is_there(self, version: Version) -> bool:
        """Whether there is something where the files of a finished version lie."""
        return (self._versions / version.name).is_dir()

    def complete(self, version: Version) -> bool:
        """Whether `current` leads to `version`, on a system that has symlinks for everyone."""
        link = self._root / CURRENT
        return os.name == "nt" or (link.is_symlink() and str(link.readlink()) == f"{VERSIONS}/{version.name}")

    def write_manifest(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> str:
        """Make every file durable, then put the manifest in place. Returns its SHA-256."""
        digest = hashlib.sha256()
        path = self._home / MANIFESTS / f"{version.name}.jsonl"
        with mapped(f"cannot write the manifest {path}"):
            barrier(self._root)
            real_folder(path.parent, make=True)
            temporary = self._temporary / "manifest"
            with create(temporary) as file:
                for line in lines:
                    data = _LINE.encode(line).encode(errors="surrogatepass")
                    digest.update(data + b"\n")
                    file.write(data + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        return digest.hexdigest()

    def note(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> None:
        """Nothing is kept: the files can be read again."""

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Move the pointer, then `latest.json`, then the symlink: each one rename."""
        with mapped(f"cannot publish in {self._root}"):
            place(self._temporary / "pointer", self._root / POINTER, pointer)
            self._tell_latest(latest)
            self._relink(version)

    def _tell_latest(self, latest: Mapping[str, Any]) -> None:
        place(self._temporary / "latest", self._home / LATEST, [document(latest)])

    def retire(self, version: Version, moment: str) -> None:
        """Move a version and its manifest into the trash: the manifest first, so that what has one is always whole."""
        trash = self._in_trash(version, moment)
        with mapped(f"cannot retire version {version.name}"):
            for folder, name in self._parts_of(version):
                if os.path.lexists(folder / name):
                    (trash / folder.name).mkdir(parents=True, exist_ok=True)
                    os.rename(folder / name, trash / folder.name / name)
                    sync_folder(folder)

    def _parts_of(self, version: Version) -> list[tuple[Path, str]]:
        """What a version consists of, in the order in which it retires: folder and name of each."""
        return [(self._home / MANIFESTS, f"{version.name}.jsonl"), (self._versions, version.name)]

    def _in_trash(self, version: Version, moment: str) -> Path:
        """Where something of a version lies in the trash."""
        return self._trash / f"{_compact(moment)}-{version.name}"

    def empty_trash(self, before: str) -> None:
        """Delete what came into the trash before a moment. What someone else put there is left alone."""
        with mapped(f"cannot empty {self._trash}"):
            for entry in os.listdir(self._trash) if self._trash.is_dir() else ():
                if _MOMENT.match(entry) and entry < _compact(before) and (self._trash / entry).is_dir():
                    shutil.rmtree(self._trash / entry)

    def _relink(self, version: Version) -> None:
        """Swap `current`. A file system or system without symlinks does without; a folder of that name stays."""
        temporary = self._temporary / "current"
        temporary.unlink(missing_ok=True)
        try:
            os.symlink(f"{VERSIONS}/{version.name}", temporary, target_is_directory=True)
            os.replace(temporary, self._root / CURRENT)
        except NotImplementedError:
            pass  # a system without
        except OSError as error:
            if error.errno not in _NO_SYMLINK:
                raise
        temporary.unlink(missing_ok=True)
