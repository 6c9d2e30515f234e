"""Publication of a local destination: manifests, the pointer, `latest.json`, the `current` symlink, the trash."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tilesync.core.foreign_json import MAX_DOCUMENT_BYTES, parse_json, read_mapping
from tilesync.core.manifest import read_latest, translate_damage
from tilesync.core.ownership import make_owner_record, names_other_owner, read_owner
from tilesync.model import POINTER, Version
from tilesync.runtime.os_errors import to_read_error, translate_os_errors, translate_read_errors
from tilesync.runtime.safe_open import WrongFileType
from tilesync.stores.base import (
    LATEST_FILE,
    MANIFEST_SUFFIX,
    MANIFESTS_DIR,
    VERSIONS_DIR,
    DefaultLayoutMixin,
    PublicationBase,
    compact_timestamp,
)
from tilesync.stores.local.directory_handles import DirectoryHandle, DirectoryTree, Entry
from tilesync.stores.local.fs import read_regular, replace_file_durably, sync_filesystem, write_document
from tilesync.stores.status_files import CHECKED_FILE, OWNERSHIP_FILE, encode_document, parse_document

PARTS_DIR = "parts"
TRASH_DIR = "trash"
CURRENT_LINK = "current"

MANIFEST_CHUNK_BYTES = 1 << 20
"""Bytes of a manifest that are read at a time."""

_SYMLINK_ERRORS = {errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""The file system or the system has no symlinks (symlink(2)), or `current` is a folder."""

_TRASH_NAME = re.compile(r"\d{8}T\d{6}Z-")


class LocalPublication(DefaultLayoutMixin, PublicationBase):
    """Publish a version by renames in a fixed order, after a sync of the file system.

    Each step can be repeated after a kill. `_top` is DEST, which has the pointer. `_home` has the manifests and
    `latest.json`; `_versions` has a folder for each version; `_state` has the parts and the trash.
    """

    place_noun = "folder"

    def __init__(self, root: Path, state: Path) -> None:
        self._root = root
        self._top = self._home = DirectoryTree(root)
        self._manifests = self._home.subtree(MANIFESTS_DIR)
        self._versions = self._top.subtree(VERSIONS_DIR)
        self._state = DirectoryTree.from_path(state, root)

    @property
    def _display_name(self) -> str:
        return str(self._root)

    def _list_existing(self, names: Sequence[str]) -> list[str]:
        trees = {POINTER: self._top, LATEST_FILE: self._home}
        with translate_read_errors(f"cannot inspect {self._root}"):
            return [name for name in names if trees[name].find_stat(name) is not None]

    def manifest_names(self) -> list[str]:
        """List the versions that have a manifest."""
        with translate_read_errors(f"cannot read {self._manifests.path}"):
            folder = self._manifests.find()
            entries = folder.scan() if folder is not None else ()
        return sorted(name.removesuffix(MANIFEST_SUFFIX) for name, _ in entries if name.endswith(MANIFEST_SUFFIX))

    def retired_names(self) -> set[str]:
        """Return an empty set: the files of a retired version are moved to the trash at once."""
        return set()

    def read_sidecar(self, version: Version) -> None:
        """Return None: local files can be read again, so there is no sidecar index."""

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """Read the lines of a manifest; the first one is about the version. Raises DestinationError if that fails."""
        path = self._manifest_path(version)
        with (
            translate_read_errors(f"cannot read the manifest {path}"),
            open(self._manifest_entry(version).open(), "rb") as lines,
            translate_damage(path),
        ):
            while line := lines.readline(MAX_DOCUMENT_BYTES + 2):
                yield read_mapping(parse_json(line.rstrip(b"\n")))

    def manifest_chunks(self, version: str) -> Iterator[bytes]:
        """Yield the bytes of a manifest in pieces of 1 MiB. Raises DestinationError if that fails."""
        with (
            translate_read_errors(f"cannot read the manifest {self._manifest_path(version)}"),
            open(self._manifest_entry(version).open(), "rb", buffering=0) as file,
        ):
            while chunk := file.read(MANIFEST_CHUNK_BYTES):
                yield chunk

    def _manifest_entry(self, version: str, *, make: bool = False) -> Entry:
        return self._manifests.folder(make=make).entry(f"{version}{MANIFEST_SUFFIX}")

    def _manifest_path(self, version: str) -> str:
        """Return the path of a manifest, for messages."""
        return os.path.join(self._manifests.path, f"{version}{MANIFEST_SUFFIX}")

    def latest(self) -> Mapping[str, Any] | None:
        """Read `latest.json`; None if it is missing or was not written by tilesync. Raises Unreadable."""
        data = self._read(self._home, LATEST_FILE)
        return read_latest(data) if data is not None else None

    def owner(self) -> str | None:
        """Return the recorded owner of the destination, or None.

        `latest.json` has priority, since runs with another --state-dir see it too; next is the record in this state
        folder.
        """
        return read_owner(self.latest()) or read_owner(self._read_ownership())

    def _read_ownership(self) -> Mapping[str, Any] | None:
        return parse_document(self._read(self._state, OWNERSHIP_FILE))

    def _has_any_files(self) -> bool:
        with translate_read_errors(f"cannot inspect the versions in {self._root}"):
            folder = self._versions.find()
            return folder is not None and next(folder.walk(), None) is not None

    def set_owner(self, owner: str, *, stated: bool = False) -> None:
        """Record the owner of the destination; `stated`: a user stated it, so it holds for all later runs."""
        latest = self.latest()
        with translate_os_errors(f"cannot record the owner of {self._root}"):
            if latest is not None and names_other_owner(latest, owner):
                self._write_document(self._home, LATEST_FILE, {**latest, "owner": owner})
            self._write_document(self._state, OWNERSHIP_FILE, make_owner_record(owner, stated=stated))

    def last_success(self) -> Mapping[str, Any] | None:
        """Read `checked.json`, the record of the last successful run; None if it is missing."""
        return parse_document(self._read(self._home, CHECKED_FILE))

    def set_last_success(self, content: Mapping[str, Any]) -> None:
        """Replace `checked.json`."""
        with translate_os_errors(f"cannot write {CHECKED_FILE}"):
            self._write_document(self._home, CHECKED_FILE, content)

    def _write_document(self, tree: DirectoryTree, name: str, content: Mapping[str, Any]) -> None:
        """Replace a document atomically and durably. Raises OSError."""
        write_document(self._temporary(name), tree.folder().entry(name), content)

    def pointer_digest(self) -> str | None:
        """Return the SHA-256 of the pointer in hexadecimal; None if it is not a regular file. Raises Unreadable."""
        data = self._read(self._top, POINTER)
        return hashlib.sha256(data).hexdigest() if data is not None else None

    def _read(self, tree: DirectoryTree, name: str) -> bytes | None:
        """Read a file that publishing replaces; None if it is missing, a symlink or a folder."""
        try:
            return read_regular(tree.folder().entry(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            if isinstance(error, WrongFileType) and error.errno in {errno.ELOOP, errno.EISDIR}:
                return None
            raise to_read_error(error, f"cannot read {name}") from error

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Return whether the pointer and `latest.json` name `version`, and its manifest and files exist."""
        return (
            self.pointer_digest() == pointer_sha256
            and (self.latest() or {}).get("version") == version.name
            and self._has_manifest(version)
            and self._has_files(version)
        )

    def _has_manifest(self, version: Version) -> bool:
        with translate_read_errors(f"cannot inspect the manifest of version {version.name}"):
            manifest = self._manifests.find_stat(f"{version.name}{MANIFEST_SUFFIX}")
        return manifest is not None and stat.S_ISREG(manifest.st_mode)

    def _has_files(self, version: Version) -> bool:
        """Return whether the folder of a finished version exists."""
        with translate_read_errors(f"cannot inspect version {version.name}"):
            return self._versions.find(version.name) is not None

    def is_complete(self, version: Version) -> bool:
        """Return whether `current` leads to `version`; always True on Windows, where symlinks need a privilege."""
        with translate_read_errors(f"cannot inspect {CURRENT_LINK}"):
            target = self._top.folder().entry(CURRENT_LINK).read_link() if os.name != "nt" else None
        return os.name == "nt" or target == f"{VERSIONS_DIR}/{version.name}"

    def sync_files(self) -> None:
        """Sync the file system of the destination to the disk."""
        with translate_os_errors(f"cannot sync the files in {self._root} to the disk"):
            sync_filesystem(self._root)

    def write_manifest(self, version: Version, pieces: Iterable[bytes]) -> str:
        """Sync all files to the disk, then put the manifest in place. Returns its SHA-256 in hexadecimal."""
        digest = hashlib.sha256()
        with translate_os_errors(f"cannot write the manifest {self._manifest_path(version.name)}"):
            sync_filesystem(self._root)
            final, temporary = self._manifest_entry(version.name, make=True), self._temporary("manifest")
            with open(temporary.create(), "wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            temporary.move(final)
            final.folder.sync()
        return digest.hexdigest()

    def _temporary(self, name: str) -> Entry:
        """Return the entry of a temporary file, which is renamed into place when it is complete."""
        return self._state.folder(PARTS_DIR).entry(name)

    def write_sidecar(self, version: Version, pieces: Iterable[bytes]) -> None:
        """Do nothing: local files can be read again, so no sidecar index is needed."""

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Replace the pointer, then `latest.json`, then the symlink: one rename each."""
        with translate_os_errors(f"cannot write {POINTER} in {self._root}"):
            replace_file_durably(self._temporary("pointer"), self._top.folder().entry(POINTER), pointer)
        self._write_latest(latest)
        with translate_os_errors(f"cannot publish in {self._root}"):
            self._update_current_link(version)

    def _write_latest(self, latest: Mapping[str, Any]) -> None:
        with translate_os_errors(f"cannot write {LATEST_FILE} in {self._home.path}"):
            replace_file_durably(
                self._temporary("latest"), self._home.folder().entry(LATEST_FILE), [encode_document(latest)]
            )

    def retire(self, version: Version, moment: str) -> None:
        """Move a version and its manifest to the trash.

        The manifest goes first, so that a version with a manifest is always complete.
        """
        with translate_os_errors(f"cannot retire version {version.name}"):
            for tree, name in self._locations(version):
                folder = tree.find()
                if folder is not None and folder.entry(name).find_stat() is not None:
                    folder_name = os.path.basename(folder.path)
                    folder.entry(name).move(self._trash_folder(version, moment, folder_name).entry(name))
                    folder.sync()

    def _locations(self, version: Version) -> list[tuple[DirectoryTree, str]]:
        """Return the tree and name of each part of a version, in the order of retirement."""
        return [(self._manifests, f"{version.name}{MANIFEST_SUFFIX}"), (self._versions, version.name)]

    def _trash_folder(self, version: Version, moment: str, *subfolders: str) -> DirectoryHandle:
        """Create the trash folder for a part of a version."""
        return self._state.folder(
            "/".join((TRASH_DIR, f"{compact_timestamp(moment)}-{version.name}", *subfolders)), make=True
        )

    def empty_trash(self, before: str) -> None:
        """Delete trash from before a timestamp. Foreign files in the trash folder are kept."""
        with translate_os_errors(f"cannot empty the trash in {self._state.path}"):
            trash = self._state.find(TRASH_DIR)
            for name, is_folder in trash.scan() if trash is not None else ():
                if trash is not None and is_folder and _TRASH_NAME.match(name) and name < compact_timestamp(before):
                    trash.remove(name)

    def _update_current_link(self, version: Version) -> None:
        """Replace the `current` symlink. Do nothing without symlink support, or if `current` is a folder."""
        temporary = self._temporary("current")
        temporary.unlink()
        try:
            temporary.symlink_to(f"{VERSIONS_DIR}/{version.name}")
            temporary.move(self._top.folder().entry(CURRENT_LINK))
        except NotImplementedError:
            pass  # the system has no symlinks
        except OSError as error:
            if error.errno not in _SYMLINK_ERRORS:
                raise
        temporary.unlink()
