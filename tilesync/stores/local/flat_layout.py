"""The flat layout: one version, at the container's own paths; the state folder has all else.

Files come in beside, in the state folder. A finished version is brought into place by renames, file by file: what was
there is replaced when tilesync had put it there, and goes into the trash when it had not.
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
from tilesync.stores.local.directory_handles import NOT_FOUND_ERRORS, DirectoryTree, Entry
from tilesync.stores.local.fs import stamp_from_stat, sync_filesystem
from tilesync.stores.local.publication import MANIFESTS_DIR, LocalPublication
from tilesync.stores.local.reader import SafePathResolver

STAGED_DIR = "staged"

StampLookup = Callable[[str], Sequence[tuple[FileStamp, bytes | None]]]


class FlatPublication(LocalPublication):
    """Leads to the one version that is in place. `doors`: to the files on their way in, and to those in place.

    `known`: how tilesync left a file of some name, its trace and its SHA-256 each time.
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
        """Nothing: the pointer is the root tileset itself."""
        return ""

    def _has_files(self, version: Version) -> bool:
        """The root tileset says so."""
        return True

    def is_complete(self, version: Version) -> bool:
        """Whether nothing of the version waits for its place."""
        return not self.has_staged_files(version)

    def has_staged_files(self, version: Version) -> bool:
        """Whether files of the version wait for their places."""
        with translate_read_errors(f"cannot look at version {version.name} on its way in"):
            return self._versions.find_stat(version.name) is not None

    def _locations(self, version: Version) -> list[tuple[DirectoryTree, str]]:
        """The manifest last: while it is there, the retirement is not through."""
        return super()._locations(version)[::-1]

    def find_blocked(self, version: Version, names: Iterable[str]) -> list[str]:
        """Those that have come in and cannot come to their place: a folder with other things than versions had there
        is in it, or something of others where a folder of theirs is to be.
        """
        with translate_read_errors(f"cannot look at what stands in {self._root}"):
            return [
                name
                for name in names
                if self._find_staged(version, name) is not None and not self._has_room(version, name)
            ]

    def _find_staged(self, version: Version, name: str) -> Entry | None:
        """A file on its way in; None where there is none. Raises OSError."""
        try:
            entry = self._staged.entry(version.name, name)
        except FileNotFoundError:
            return None
        return entry if entry.find_stat() is not None else None

    def _has_room(self, version: Version, name: str) -> bool:
        """Whether a file can come to its place when nothing but what tilesync left there gives way."""
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
        """Whether a folder, or one in it, has anything but files that tilesync left there."""
        return any(not self._is_ours(name, entry) for name, entry in self._in_place.walk(version.name, folder))

    def _is_ours(self, name: str, entry: Entry) -> bool:
        """Whether a file is as tilesync left it there, by its look, else by its bytes."""
        known, found = self._find_stamps(name), entry.stat()
        if stamp_from_stat(found) in {trace for trace, _ in known}:
            return True
        digests = {sha256 for _, sha256 in known if sha256}
        if not digests or not stat.S_ISREG(found.st_mode):
            return False
        with open(entry.open(), "rb") as file:
            return hashlib.file_digest(file, "sha256").digest() in digests

    def move_into_place(self, version: Version, names: Iterable[str], moment: str) -> list[str]:
        """Rename what has come in of a finished version to its place, in this order. May be done again.

        A file in its way that is not as tilesync left it goes into the trash; the names where that was so.
        """
        strange = []
        for name in names:
            with translate_os_errors(f"cannot place {name}"):
                staged = self._find_staged(version, name)
                if staged is not None and self._move_file_into_place(version, name, staged, moment):
                    strange.append(name)
        with translate_os_errors(f"cannot publish in {self._root}"):
            sync_filesystem(self._root)
            self._staged.remove_version(version.name)
        return strange

    def _move_file_into_place(self, version: Version, name: str, staged: Entry, moment: str) -> bool:
        """Rename one file to its place; whether something strange stood there."""
        final = self._in_place.entry(version.name, name, make=True)
        there = final.find_stat()
        is_file = there is not None and not stat.S_ISDIR(there.st_mode)
        strange = is_file and not self._is_ours(name, final)
        if strange:
            self._move_to_trash(version, name, final, moment)
        if there is not None and not is_file:
            final.folder.remove_empty_tree(final.name)  # what was left in it is in the trash already
        staged.move(final)
        staged.unlink()  # still there where it was one file under both names: rename(2) leaves both
        return strange

    def discard(self, version: Version, files: Iterable[StoredFile], moment: str) -> list[StoredFile]:
        """Move files that are in place and no part of `version` into the trash; those that went. What is no file
        there, or not behind real folders, is left alone.
        """
        gone = []
        for held in files:
            name = held.blob.name
            with (
                translate_os_errors(f"cannot delete {name}"),
                suppress(*NOT_FOUND_ERRORS, WrongFileType),
            ):  # its folder is none any more
                entry = self._in_place.entry(version.name, name)
                if stat.S_ISREG(entry.stat().st_mode):
                    self._move_to_trash(version, name, entry, moment)
                    self._in_place.prune(version.name, name)
                    gone.append(held)
        return gone

    def _move_to_trash(self, version: Version, name: str, entry: Entry, moment: str) -> None:
        above, _, leaf = f"files/{name}".rpartition("/")
        entry.move(self._trash_folder(version, moment, above).entry(leaf))

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Say which version is in place. The root tileset was laid out with the other files."""
        self._write_latest(latest)
