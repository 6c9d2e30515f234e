"""Directory handles: open each file relative to a handle of its folder, and never follow a symlink.

If the system can open files relative to a directory (`dir_fd`), even a folder that is replaced by a symlink during a
run cannot redirect a write. If it cannot (Windows), each name is checked before its use. Only `DirectoryHandle` knows
the difference.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tilesync.runtime.safe_open import BINARY, NO_FOLLOW, WrongFileType, describe_file_type, open_regular

HAS_DIR_FD = {os.open, os.stat, os.unlink, os.mkdir, os.rmdir, os.rename, os.link} <= os.supports_dir_fd

NOT_FOUND_ERRORS = (FileNotFoundError, NotADirectoryError)
"""Errors of a `stat` of a name that does not exist."""

MAX_OPEN_HANDLES = 64
"""Maximum open handles of a tree: some systems allow a process only 256 descriptors (macOS)."""

_LIST_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_ENTER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
"""Flags to open a folder only to enter it. With O_PATH the folder need not be readable."""

_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY
"""Flags to create a file that does not exist. Nothing is opened or followed that does."""

_OPEN_FD_LINKS = "/proc/self/fd/"
"""Folder of symlinks that show the real path of each open descriptor (Linux). Source: proc(5)."""

_JUNCTION_TAG = 0xA0000003
"""Tag of a junction: a link to a folder on Windows that is not a symlink. Source: "Reparse Point Tags"."""


class DirectoryHandle:
    """An open folder. Its descriptor is closed when the last reference is gone, so never while it is in use."""

    __slots__ = ("_identity", "_name", "_parent", "_real_path", "fd", "path")

    def __init__(self, path: str, *, parent: DirectoryHandle | None = None, name: str = "") -> None:
        """Raises OSError, and WrongFileType if there is no folder. Only the topmost path may contain symlinks."""
        self.fd: int | None = None
        self.path = path
        self._parent = parent
        self._name = name
        self._real_path: str | None = None
        self._identity: tuple[int, int] | None = None
        try:
            if HAS_DIR_FD and parent is not None:
                self.fd = os.open(name, _ENTER_FLAGS | NO_FOLLOW, dir_fd=parent.fd)
            elif HAS_DIR_FD:
                self.fd = os.open(path, _ENTER_FLAGS)
            else:
                self._identify(os.stat(path, follow_symlinks=parent is None))
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP, errno.EMLINK}:
                raise
            raise self._wrong_type_error(os.lstat(path)) from error

    def _identify(self, found: os.stat_result) -> tuple[int, int]:
        """Store and return inode and device of the folder. Raises WrongFileType if it is not a folder."""
        if not stat.S_ISDIR(found.st_mode) or getattr(found, "st_reparse_tag", 0) == _JUNCTION_TAG:
            raise self._wrong_type_error(found)
        self._identity = found.st_ino, found.st_dev
        return self._identity

    def _wrong_type_error(self, found: os.stat_result) -> WrongFileType:
        kind = "a junction" if stat.S_ISDIR(found.st_mode) else describe_file_type(found.st_mode)
        return WrongFileType(errno.ENOTDIR, kind, "folder", self.path)

    def __del__(self) -> None:
        if self.fd is not None:
            os.close(self.fd)

    def is_current(self) -> bool:
        """Return whether its path still leads to it, without a symlink below the topmost folder.

        On Linux, one call reads the real path; if that is as before, no folder on the path was moved or deleted.
        Otherwise each folder on the path is checked.
        """
        try:
            real_path = os.readlink(f"{_OPEN_FD_LINKS}{self.fd}")
        except OSError:
            real_path = None
        if real_path is not None and real_path == self._real_path:
            return True
        parent = self._parent
        if parent is not None and not (self.is_in(parent) and parent.is_current()):
            return False
        self._real_path = real_path
        return True

    def is_in(self, folder: DirectoryHandle) -> bool:
        """Return whether it was opened through the handle `folder`, and is still in that folder."""
        if folder is not self._parent:
            return False
        try:
            identity = self._identity or self._identify(os.fstat(self.fd or 0))
            found = os.stat(folder.path_argument(self._name), dir_fd=folder.fd, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_ino, found.st_dev) == identity

    def path_argument(self, name: str) -> str:
        """Return the path to pass to an `os` function together with `dir_fd=self.fd`."""
        return name if self.fd is not None else os.path.join(self.path, name)

    def entry(self, name: str) -> Entry:
        """Return a name in this folder as an entry; it need not exist."""
        return Entry(self, name)

    def enter(self, name: str, *, make: bool = False, mode: int = 0o777) -> DirectoryHandle:
        """Open the folder of that name; create it if `make`.

        Raises WrongFileType if a symlink or a file has that name, FileNotFoundError, OSError.
        """
        path = os.path.join(self.path, name)
        try:
            return DirectoryHandle(path, parent=self, name=name)
        except FileNotFoundError:
            if not make:
                raise
        with suppress(FileExistsError):  # another thread created it in the meantime
            os.mkdir(self.path_argument(name), mode, dir_fd=self.fd)
        return DirectoryHandle(path, parent=self, name=name)

    def scan(self) -> list[tuple[str, bool]]:
        """List the names in the folder, each with True if it is a folder. Raises OSError."""
        if self.fd is None:
            with os.scandir(self.path) as entries:
                return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        descriptor = os.open(".", _LIST_FLAGS, dir_fd=self.fd)
        try:
            with os.scandir(descriptor) as entries:
                return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        finally:
            os.close(descriptor)

    def walk(self) -> Iterator[tuple[str, Entry]]:
        """Iterate over everything below the folder except folders, with relative paths; symlinks are not followed."""
        stack: list[tuple[str, DirectoryHandle, list[tuple[str, bool]]]] = [("", self, self.scan())]
        while stack:
            prefix, folder, remaining = stack[-1]
            if not remaining:
                stack.pop()
                continue
            name, is_folder = remaining.pop()
            if is_folder:
                inner = folder.enter(name)
                stack.append((f"{prefix}{name}/", inner, inner.scan()))
            else:
                yield f"{prefix}{name}", folder.entry(name)

    def remove(self, name: str) -> None:
        """Remove a folder and everything in it. Raises OSError, also if it is a symlink."""
        shutil.rmtree(self.path_argument(name), dir_fd=self.fd)

    def remove_empty(self, name: str) -> None:
        """Remove an empty folder. Raises OSError."""
        os.rmdir(self.path_argument(name), dir_fd=self.fd)

    def remove_empty_tree(self, name: str) -> None:
        """Remove a folder that contains only folders. Raises OSError if there is a file."""
        inner = self.enter(name)
        for child, _ in inner.scan():
            inner.remove_empty_tree(child)
        self.remove_empty(name)

    def sync(self) -> None:
        """Make renames in the folder durable, on systems that can sync a folder."""
        if self.fd is None:
            return
        descriptor = os.open(".", _LIST_FLAGS, dir_fd=self.fd)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Entry(NamedTuple):
    """A name in an open folder. All operations happen in that folder, even if its path now leads to another one."""

    folder: DirectoryHandle
    name: str

    @property
    def path(self) -> str:
        """The path, for messages."""
        return os.path.join(self.folder.path, self.name)

    def stat(self) -> os.stat_result:
        """Stat the entry; a symlink is not followed. Raises OSError."""
        return os.stat(self.folder.path_argument(self.name), dir_fd=self.folder.fd, follow_symlinks=False)

    def find_stat(self) -> os.stat_result | None:
        """Stat the entry; None if it does not exist. Raises OSError for all other errors."""
        try:
            return self.stat()
        except NOT_FOUND_ERRORS:
            return None

    def open(self, flags: int = os.O_RDONLY) -> int:
        """Open the regular file and return a descriptor. Raises WrongFileType for anything else, OSError."""
        return open_regular(self.folder.path_argument(self.name), flags, dir_fd=self.folder.fd, display_name=self.path)

    def open_unshared(self) -> int:
        """Open the regular file for writing. Raises WrongFileType also if the file has several hard links."""
        descriptor = self.open(os.O_WRONLY)
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise WrongFileType(errno.EMLINK, "a hard link", "file", self.path)
        return descriptor

    def create(self) -> int:
        """Create a new file and return a descriptor to write to it.

        An existing file is unlinked first, not truncated: it may be a hard link to a foreign file.
        """
        try:
            return self.create_new()
        except FileExistsError:
            self.unlink()
            return self.create_new()

    def create_new(self) -> int:
        """Create a new file and return a descriptor to write to it. Raises FileExistsError, OSError."""
        return os.open(self.folder.path_argument(self.name), _CREATE_FLAGS, 0o666, dir_fd=self.folder.fd)

    def move(self, to: Entry) -> None:
        """Rename the entry and replace the target. Raises OSError."""
        os.replace(
            self.folder.path_argument(self.name),
            to.folder.path_argument(to.name),
            src_dir_fd=self.folder.fd,
            dst_dir_fd=to.folder.fd,
        )

    def link(self, to: Entry) -> None:
        """Create a hard link to the entry. Raises FileExistsError, OSError, NotImplementedError."""
        if self.folder.fd is None:
            os.link(self.path, to.path)
            return
        dir_fds = {"src_dir_fd": self.folder.fd, "dst_dir_fd": to.folder.fd}
        os.link(self.name, to.name, **dir_fds, follow_symlinks=False)

    def symlink_to(self, target: str) -> None:
        """Create the entry as a symlink to a folder. Raises FileExistsError, OSError, NotImplementedError."""
        os.symlink(target, self.folder.path_argument(self.name), target_is_directory=True, dir_fd=self.folder.fd)

    def read_link(self) -> str | None:
        """Return the target of the symlink; None if the entry is not a symlink. Raises OSError."""
        found = self.find_stat()
        if found is None or not stat.S_ISLNK(found.st_mode):
            return None
        return os.readlink(self.folder.path_argument(self.name), dir_fd=self.folder.fd)

    def unlink(self) -> None:
        """Remove the entry; a missing one is no error. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(self.folder.path_argument(self.name), dir_fd=self.folder.fd)

    def set_mtime(self, modified: float) -> None:
        """Set the mtime, in seconds. Raises OSError."""
        follow_symlinks = os.utime not in os.supports_follow_symlinks
        os.utime(
            self.folder.path_argument(self.name),
            (modified, modified),
            dir_fd=self.folder.fd,
            follow_symlinks=follow_symlinks,
        )


class DirectoryTree:
    """Tree of folders below a root: opens directory handles by path, and is the only place that does.

    The path `root` may contain symlinks, since the user chose it. No symlink below it is followed, neither in `prefix`,
    which is added before every path, nor in the paths. An open handle is reused while its path still leads to it.
    Picklable: another process opens its own handles.
    """

    def __init__(self, root: str | Path, prefix: str = "") -> None:
        self._root = str(root)
        self._prefix = f"{prefix}/" if prefix else ""
        self._root_handle: DirectoryHandle | None = None
        self._handles: dict[str, DirectoryHandle] = {}

    @classmethod
    def from_path(cls, path: Path, root: Path) -> DirectoryTree:
        """Create the tree of a folder. If it is below `root`, no symlink on the way from there is followed."""
        is_inside = path.is_relative_to(root) and path != root
        return cls(root, path.relative_to(root).as_posix()) if is_inside else cls(path)

    def subtree(self, path: str) -> DirectoryTree:
        """Return the tree of a folder in this one."""
        return DirectoryTree(self._root, f"{self._prefix}{path}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DirectoryTree) and (self._root, self._prefix) == (other._root, other._prefix)

    def __hash__(self) -> int:
        return hash((self._root, self._prefix))

    def __reduce__(self) -> tuple[type[DirectoryTree], tuple[str, str]]:
        return DirectoryTree, (self._root, self._prefix[:-1])

    @property
    def path(self) -> str:
        """The path, for messages."""
        return os.path.join(self._root, self._prefix[:-1]) if self._prefix else self._root

    def folder(self, path: str = "", *, make: bool = False) -> DirectoryHandle:
        """Open the folder at a path; create it if `make`. The empty path is the top folder.

        Raises WrongFileType if a symlink or a file is on the path, FileNotFoundError if a folder is missing, OSError.
        """
        path = self._prefix + path
        handle = self._handles.get(path)
        return handle if handle is not None and handle.is_current() else self._open_folder(path, make=make)

    def find(self, path: str = "") -> DirectoryHandle | None:
        """Open the folder at a path; None if it does not exist. Raises WrongFileType, OSError."""
        try:
            return self.folder(path)
        except FileNotFoundError:
            return None

    def find_stat(self, path: str) -> os.stat_result | None:
        """Stat the entry at a path; None if it does not exist.

        Raises WrongFileType if a symlink or a file is where the path needs a folder, OSError.
        """
        parent, _, name = path.rpartition("/")
        folder = self.find(parent)
        return folder.entry(name).find_stat() if folder is not None else None

    def _open_folder(self, path: str, *, make: bool) -> DirectoryHandle:
        if len(self._handles) > MAX_OPEN_HANDLES:
            self._handles.clear()  # all of them, because each handle keeps those of the folders above it open
        folder, current_path = self._root_handle or DirectoryHandle(self._root), ""
        self._root_handle = folder
        for name in filter(None, path.split("/")):
            current_path = f"{current_path}/{name}" if current_path else name
            inner = self._handles.get(current_path)
            if inner is None or not inner.is_in(folder):
                inner = folder.enter(name, make=make)
                self._handles[current_path] = inner
            folder = inner
        self._handles[path] = folder
        return folder
