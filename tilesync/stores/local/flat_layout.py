"""Flat layout: one version at the container's own paths; everything else is in the state folder.

New files are staged in the state folder. A finished version is published by renaming file by file. A file in the way is
replaced if tilesync wrote it, and goes to the trash if not.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tilesync.core.safe_names import list_parent_folders
from tilesync.model import FileStamp, StoredFile, Version
from tilesync.runtime.os_errors import translate_os_errors, translate_read_errors
from tilesync.runtime.safe_open import WrongFileType
from tilesync.stores.base import MANIFESTS_DIR
from tilesync.stores.local.directory_handles import NOT_FOUND_ERRORS, DirectoryTree, Entry
from tilesync.stores.local.fs import stamp_from_stat, sync_filesystem
from tilesync.stores.local.publication import LocalPublication
from tilesync.stores.local.reader import SafePathResolver

STAGED_DIR = "staged"

StampLookup = Callable[[str], Sequence[tuple[FileStamp, bytes | None]]]


class FlatPublication(LocalPublication):
    """Publication of the one version in place.

    `resolvers`: of the staged files, and of the files in place. `find_stamps`: for a name, the stamp and the SHA-256 of
    each file that tilesync left there.
    """

    def __init__(
        self, root: Path, state: Path, resolvers: Sequence[SafePathResolver], find_stamps: StampLookup | None = None
    ) -> None:
        super().__init__(root, state)
        self._home = self._state
        self._manifests, self._versions = self._home.subtree(MANIFESTS_DIR), self._home.subtree(STAGED_DIR)
        self._staged, self._in_place = resolvers
        self._find_stamps: StampLookup = find_stamps or (lambda name: [])

    def prefix(self, version: Version) -> str:
        """Return the empty string: the pointer is the root tileset itself."""
        return ""

    def _has_files(self, version: Version) -> bool:
        """Return True: the root tileset, which the caller checked, is the proof."""
        return True

    def is_complete(self, version: Version) -> bool:
        """Return whether no file of the version is still staged."""
        return not self.has_staged_files(version)

    def has_staged_files(self, version: Version) -> bool:
        """Return whether the version has staged files."""
        with translate_read_errors(f"cannot inspect the staged files of version {version.name}"):
            return self._versions.find_stat(version.name) is not None

    def _locations(self, version: Version) -> list[tuple[DirectoryTree, str]]:
        """Return the locations with the manifest last: while it exists, the version is not fully retired."""
        return super()._locations(version)[::-1]

    def find_blocked(self, version: Version, names: Iterable[str]) -> list[str]:
        """Return the staged files that cannot be moved into place, because something foreign is in the way.

        That is a folder with foreign files at the path of a file, or a foreign file at the path of a folder.
        """
        with translate_read_errors(f"cannot inspect {self._root}"):
            return [
                name
                for name in names
                if self._find_staged(version, name) is not None and not self._has_room(version, name)
            ]

    def _find_staged(self, version: Version, name: str) -> Entry | None:
        """Find a staged file; None if there is none. Raises OSError."""
        try:
            entry = self._staged.entry(version.name, name)
        except FileNotFoundError:
            return None
        return entry if entry.find_stat() is not None else None

    def _has_room(self, version: Version, name: str) -> bool:
        """Return whether a file can be moved into place and only files of tilesync are replaced."""
        try:
            found = self._in_place.entry(version.name, name).find_stat()
        except FileNotFoundError:
            return True
        except WrongFileType:
            return any(self._is_replaceable(version, folder) for folder in list_parent_folders(name))
        return found is None or not stat.S_ISDIR(found.st_mode) or not self._has_foreign_files(version, name)

    def _is_replaceable(self, version: Version, name: str) -> bool:
        try:
            entry = self._in_place.entry(version.name, name)
        except (*NOT_FOUND_ERRORS, WrongFileType):
            return False
        found = entry.find_stat()
        return found is not None and not stat.S_ISDIR(found.st_mode) and self._is_ours(name, entry)

    def _has_foreign_files(self, version: Version, folder: str) -> bool:
        """Return whether a folder contains, at any depth, a file that tilesync did not leave there."""
        return any(not self._is_ours(name, entry) for name, entry in self._in_place.walk(version.name, folder))

    def _is_ours(self, name: str, entry: Entry) -> bool:
        """Return whether tilesync left this file: by its stamp, or else by its SHA-256, as after a copy of DEST."""
        known_files, found = self._find_stamps(name), entry.stat()
        if stamp_from_stat(found) in {stamp for stamp, _ in known_files}:
            return True
        digests = {sha256 for _, sha256 in known_files if sha256}
        if not digests or not stat.S_ISREG(found.st_mode):
            return False
        with open(entry.open(), "rb") as file:
            return hashlib.file_digest(file, "sha256").digest() in digests

    def move_into_place(self, version: Version, names: Iterable[str], moment: str) -> list[str]:
        """Rename the staged files of a finished version into place, in this order. Can be repeated after a kill.

        Foreign files in the way go to the trash; their names are returned.
        """
        foreign = []
        for name in names:
            with translate_os_errors(f"cannot move {name} into place"):
                staged = self._find_staged(version, name)
                if staged is not None and self._move_file_into_place(version, name, staged, moment):
                    foreign.append(name)
        with translate_os_errors(f"cannot publish in {self._root}"):
            sync_filesystem(self._root)
            self._staged.remove_version(version.name)
        return foreign

    def _move_file_into_place(self, version: Version, name: str, staged: Entry, moment: str) -> bool:
        """Rename one file into place; return True if a foreign file there went to the trash."""
        final = self._in_place.entry(version.name, name, make=True)
        existing = final.find_stat()
        is_file = existing is not None and not stat.S_ISDIR(existing.st_mode)
        is_foreign = is_file and not self._is_ours(name, final)
        if is_foreign:
            self._move_to_trash(version, name, final, moment)
        if existing is not None and not is_file:
            final.folder.remove_empty_tree(final.name)  # its files are in the trash already
        staged.move(final)
        staged.unlink()  # rename(2) does nothing if both names are hard links to one file
        return is_foreign

    def discard(self, version: Version, files: Iterable[StoredFile], moment: str) -> list[StoredFile]:
        """Move files in place that are not part of `version` to the trash, and return those that were moved.

        A name that is not a regular file, or has a symlink as a folder, is skipped.
        """
        moved = []
        for stored in files:
            name = stored.blob.name
            with (
                translate_os_errors(f"cannot delete {name}"),
                suppress(*NOT_FOUND_ERRORS, WrongFileType),
            ):  # something else is at the path of its folder now
                entry = self._in_place.entry(version.name, name)
                if stat.S_ISREG(entry.stat().st_mode):
                    self._move_to_trash(version, name, entry, moment)
                    self._in_place.prune(version.name, name)
                    moved.append(stored)
        return moved

    def _move_to_trash(self, version: Version, name: str, entry: Entry, moment: str) -> None:
        parent, _, leaf = f"files/{name}".rpartition("/")
        entry.move(self._trash_folder(version, moment, parent).entry(leaf))

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Write `latest.json` only: the root tileset was moved into place with the other files."""
        self._write_latest(latest)
