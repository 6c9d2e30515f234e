"""Open and compare a local destination."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

from tilesync.stores.local.destination import LocalDestination, open_local


def open_destination(root: Path, state_dir: Path | None = None) -> AbstractContextManager[LocalDestination]:
    return open_local(root, state_dir=state_dir)


def snapshot_tree(folder: Path) -> dict[str, bytes | str | None]:
    """Snapshot everything below a folder: bytes of files, targets of symlinks."""
    snapshot: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        is_link = path.is_symlink()
        content = os.readlink(path) if is_link else path.read_bytes() if path.is_file() else None
        snapshot[path.relative_to(folder).as_posix()] = content
    return snapshot
