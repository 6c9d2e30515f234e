"""Directory handles: everything below a folder is reached from a handle of its own folder, and no symlink is followed.

Where the system opens relative to a directory (`dir_fd`), what is swapped for a link while a run goes on leads nowhere.
Where it does not (Windows) each name is looked at before it is used: that stands in `Folder` alone.
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
"""What a look at a name raises that is not there."""

MAX_OPEN_HANDLES = 64
"""Directory handles that a tree keeps open: a process may have 256 descriptors in all (macOS)."""

_LIST_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_ENTER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
"""Opens a folder to enter it, for which its name need not be readable where the system has O_PATH."""

_OPEN_FD_LINKS = "/proc/self/fd/"
"""Here a link says where an open folder lies (Linux). Source: proc(5)."""

_JUNCTION_TAG = 0xA0000003
"""What leads elsewhere on Windows and is no symlink. Source: "Reparse Point Tags"."""


class DirectoryHandle:
    """An open folder. Its handle is closed with the last reference to it, so one in use is never closed."""

    __slots__ = ("_identity", "_name", "_parent", "_real_path", "fd", "path")

    def __init__(self, path: str, *, parent: DirectoryHandle | None = None, name: str = "") -> None:
        """Raises OSError, WrongFileType where no folder stands. The topmost one may be reached through links."""
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
        """What tells it from all other folders. Raises WrongFileType where it is none."""
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
        """Whether its path still leads to it, and through folders alone, from the topmost one on.

        Where the kernel says where it lies, one question tells that neither it was moved or deleted since the last time
        nor any folder above it; else each is looked at.
        """
        try:
            place = os.readlink(f"{_OPEN_FD_LINKS}{self.fd}")
        except OSError:
            place = None
        if place is not None and place == self._real_path:
            return True
        parent = self._parent
        if parent is not None and not (self.is_in(parent) and parent.is_current()):
            return False
        self._real_path = place
        return True

    def is_in(self, folder: DirectoryHandle) -> bool:
        """Whether it still stands in this folder, the handle of which it was opened by."""
        if folder is not self._parent:
            return False
        try:
            identity = self._identity or self._identify(os.fstat(self.fd or 0))
            found = os.stat(folder.path_argument(self._name), dir_fd=folder.fd, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_ino, found.st_dev) == identity

    def path_argument(self, name: str) -> str:
        """The first argument of a call that takes the handle as `dir_fd`."""
        return name if self.fd is not None else os.path.join(self.path, name)

    def entry(self, name: str) -> Entry:
        """A name in this folder, whether something has it or not."""
        return Entry(self, name)

    def enter(self, name: str, *, make: bool = False, mode: int = 0o777) -> DirectoryHandle:
        """The folder of that name, made when `make`. Raises WrongFileType where a symlink or a file stands, OSError."""
        path = os.path.join(self.path, name)
        try:
            return DirectoryHandle(path, parent=self, name=name)
        except FileNotFoundError:
            if not make:
                raise
        with suppress(FileExistsError):  # another thread was here in the meantime
            os.mkdir(self.path_argument(name), mode, dir_fd=self.fd)
        return DirectoryHandle(path, parent=self, name=name)

    def scan(self) -> list[tuple[str, bool]]:
        """The names in it, and of each whether it is a folder. Raises OSError."""
        if self.fd is None:
            with os.scandir(self.path) as found:
                return [(each.name, each.is_dir(follow_symlinks=False)) for each in found]
        descriptor = os.open(".", _LIST_FLAGS, dir_fd=self.fd)
        try:
            with os.scandir(descriptor) as entries:
                return [(each.name, each.is_dir(follow_symlinks=False)) for each in entries]
        finally:
            os.close(descriptor)

    def walk(self) -> Iterator[tuple[str, Entry]]:
        """All that is no folder below here, each with its name from here; symlinks are told, not followed."""
        waiting: list[tuple[str, DirectoryHandle, list[tuple[str, bool]]]] = [("", self, self.scan())]
        while waiting:
            lead, folder, left = waiting[-1]
            if not left:
                waiting.pop()
                continue
            name, is_folder = left.pop()
            if is_folder:
                inner = folder.enter(name)
                waiting.append((f"{lead}{name}/", inner, inner.scan()))
            else:
                yield f"{lead}{name}", folder.entry(name)

    def remove(self, name: str) -> None:
        """Remove a folder with all that is in it. Raises OSError, also where it is a symlink."""
        shutil.rmtree(self.path_argument(name), dir_fd=self.fd)

    def remove_empty(self, name: str) -> None:
        """Remove an empty folder. Raises OSError."""
        os.rmdir(self.path_argument(name), dir_fd=self.fd)

    def remove_empty_tree(self, name: str) -> None:
        """Remove a folder in which there is nothing but folders. Raises OSError where there is a file."""
        inner = self.enter(name)
        for each, _ in inner.scan():
            inner.remove_empty_tree(each)
        self.remove_empty(name)

    def sync(self) -> None:
        """Make renames in it durable, where the system lets a folder be synced."""
        if self.fd is None:
            return
        descriptor = os.open(".", _LIST_FLAGS, dir_fd=self.fd)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Entry(NamedTuple):
    """A name in an open folder. All that is done with it happens in that folder, wherever its path leads by now."""

    folder: DirectoryHandle
    name: str

    @property
    def path(self) -> str:
        """Its path, for messages."""
        return os.path.join(self.folder.path, self.name)

    def stat(self) -> os.stat_result:
        """What stands there; a symlink itself. Raises OSError."""
        return os.stat(self.folder.path_argument(self.name), dir_fd=self.folder.fd, follow_symlinks=False)

    def find_stat(self) -> os.stat_result | None:
        """What stands there, None where nothing does. Raises OSError where that cannot be told."""
        try:
            return self.stat()
        except NOT_FOUND_ERRORS:
            return None

    def open(self, flags: int = os.O_RDONLY) -> int:
        """A descriptor of the regular file. Raises WrongFileType for everything else, OSError."""
        return open_regular(self.folder.path_argument(self.name), flags, dir_fd=self.folder.fd, display_name=self.path)

    def open_unshared(self) -> int:
        """Likewise, to write to. Raises WrongFileType, too, for a file with another name elsewhere."""
        descriptor = self.open(os.O_WRONLY)
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise WrongFileType(errno.EMLINK, "a hard link", "file", self.path)
        return descriptor

    def create(self) -> int:
        """A descriptor of a new file, to write to. What stood there gives way: it may be another's under this name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY
        try:
            return os.open(self.folder.path_argument(self.name), flags, 0o666, dir_fd=self.folder.fd)
        except FileExistsError:
            self.unlink()
            return os.open(self.folder.path_argument(self.name), flags, 0o666, dir_fd=self.folder.fd)

    def move(self, to: Entry) -> None:
        """Rename it, and replace what stands there. Raises OSError."""
        os.replace(
            self.folder.path_argument(self.name),
            to.folder.path_argument(to.name),
            src_dir_fd=self.folder.fd,
            dst_dir_fd=to.folder.fd,
        )

    def link(self, to: Entry) -> None:
        """Give it another name. Raises FileExistsError, OSError, NotImplementedError."""
        if self.folder.fd is None:
            os.link(self.path, to.path)
            return
        where = {"src_dir_fd": self.folder.fd, "dst_dir_fd": to.folder.fd}
        os.link(self.name, to.name, **where, follow_symlinks=False)

    def symlink_to(self, target: str) -> None:
        """Make it a symlink to a folder. Raises FileExistsError, OSError, NotImplementedError."""
        os.symlink(target, self.folder.path_argument(self.name), target_is_directory=True, dir_fd=self.folder.fd)

    def read_link(self) -> str | None:
        """Where a symlink leads; None where none stands. Raises OSError."""
        found = self.find_stat()
        if found is None or not stat.S_ISLNK(found.st_mode):
            return None
        return os.readlink(self.folder.path_argument(self.name), dir_fd=self.folder.fd)

    def unlink(self) -> None:
        """Remove it; missing is no error. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(self.folder.path_argument(self.name), dir_fd=self.folder.fd)

    def set_mtime(self, modified: float) -> None:
        """Set its mtime, in seconds. Raises OSError."""
        follow = os.utime not in os.supports_follow_symlinks
        os.utime(
            self.folder.path_argument(self.name), (modified, modified), dir_fd=self.folder.fd, follow_symlinks=follow
        )


class DirectoryTree:
    """The folders below one, found by their names: the only way from a path to a directory handle.

    `root` may be reached through links, as its user named it; nothing below it is: neither the names of `lead`, with
    which all begins, nor what is asked for. A handle that was opened before is used again while its path leads to it.
    Picklable: another process opens its own.
    """

    def __init__(self, root: str | Path, prefix: str = "") -> None:
        self._root = str(root)
        self._prefix = f"{prefix}/" if prefix else ""
        self._root_handle: DirectoryHandle | None = None
        self._handles: dict[str, DirectoryHandle] = {}

    @classmethod
    def from_path(cls, path: Path, root: Path) -> DirectoryTree:
        """The tree of a folder; where it lies below `root`, no link leads there from it."""
        inside = path.is_relative_to(root) and path != root
        return cls(root, path.relative_to(root).as_posix()) if inside else cls(path)

    def subtree(self, path: str) -> DirectoryTree:
        """The tree of a folder in this one."""
        return DirectoryTree(self._root, f"{self._prefix}{path}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DirectoryTree) and (self._root, self._prefix) == (other._root, other._prefix)

    def __hash__(self) -> int:
        return hash((self._root, self._prefix))

    def __reduce__(self) -> tuple[type[DirectoryTree], tuple[str, str]]:
        return DirectoryTree, (self._root, self._prefix[:-1])

    @property
    def path(self) -> str:
        """Its path, for messages."""
        return os.path.join(self._root, self._prefix[:-1]) if self._prefix else self._root

    def folder(self, path: str = "", *, make: bool = False) -> DirectoryHandle:
        """The folder at a path of names between slashes, made when `make`; of the empty path the topmost one.

        Raises WrongFileType where a symlink or a file stands, FileNotFoundError where nothing does, OSError.
        """
        path = self._prefix + path
        known = self._handles.get(path)
        return known if known is not None and known.is_current() else self._open_folder(path, make=make)

    def find(self, path: str = "") -> DirectoryHandle | None:
        """Likewise; None where nothing stands."""
        try:
            return self.folder(path)
        except FileNotFoundError:
            return None

    def find_stat(self, path: str) -> os.stat_result | None:
        """What stands at a path; None where nothing does. Raises WrongFileType for what is no folder on the way,
        OSError.
        """
        above, _, name = path.rpartition("/")
        folder = self.find(above)
        return folder.entry(name).find_stat() if folder is not None else None

    def _open_folder(self, path: str, *, make: bool) -> DirectoryHandle:
        if len(self._handles) > MAX_OPEN_HANDLES:
            self._handles.clear()  # all, so that no inner folder keeps its outer ones open
        folder, so_far = self._root_handle or DirectoryHandle(self._root), ""
        self._root_handle = folder
        for name in filter(None, path.split("/")):
            so_far = f"{so_far}/{name}" if so_far else name
            inner = self._handles.get(so_far)
            if inner is None or not inner.is_in(folder):
                inner = folder.enter(name, make=make)
                self._handles[so_far] = inner
            folder = inner
        self._handles[path] = folder
        return folder
