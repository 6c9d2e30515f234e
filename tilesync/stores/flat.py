"""The flat layout: one version, at the container's own paths; the state folder has all else.

Files come in beside, in the state folder. A finished version is brought into place by renames, file by file: what was
there is replaced when tilesync had put it there, and goes into the trash when it had not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tilesync.errors import DestinationError
from tilesync.model import Held, Trace, Version
from tilesync.stores.disk import barrier, mapped
from tilesync.stores.held import Door, trace_of
from tilesync.stores.publication import Publication

STAGED = "staged"


class FlatPublication(Publication):
    """Leads to the one version that is in place. `doors`: to the files on their way in, and to those in place.

    `is_ours`: whether tilesync left a file so, by its name and trace.
    """

    def __init__(
        self, root: Path, state: Path, doors: Sequence[Door], is_ours: Callable[[str, Trace], bool] | None = None
    ) -> None:
        super().__init__(root, state)
        self._home = state
        self._versions = state / STAGED
        self._staged, self._in_place = doors
        self._is_ours = is_ours or (lambda name, trace: False)

    def prefix(self, version: Version) -> str:
        """Nothing: the pointer is the root tileset itself."""
        return ""

    def _is_there(self, version: Version) -> bool:
        """The root tileset says so."""
        return True

    def complete(self, version: Version) -> bool:
        """Whether nothing of the version waits for its place."""
        return not (self._versions / version.name).exists()

    def lay_out(self, version: Version, names: Iterable[str], moment: str) -> None:
        """Rename what has come in of a finished version to its place, in this order. May be done again.

        A file in its way that is not as tilesync left it goes into the trash.
        """
        for name in names:
            with mapped(f"cannot place {name}"):
                staged = self._staged.path(version.name, name)
                if os.path.lexists(staged):
                    self._put(version, name, staged, moment)
        with mapped(f"cannot publish in {self._root}"):
            barrier(self._root)
            self._staged.close(version.name)

    def _put(self, version: Version, name: str, staged: str, moment: str) -> None:
        final = self._in_place.path(version.name, name, make=True)
        try:
            there = os.lstat(final)
        except FileNotFoundError:
            there = None
        if there is not None and not self._is_ours(name, trace_of(there)):
            self._throw_away(version, name, final, moment)
        os.replace(staged, final)
        if os.path.lexists(staged):  # one file under both names: rename(2) leaves both
            os.unlink(staged)

    def discard(self, version: Version, files: Iterable[Held], moment: str) -> list[Held]:
        """Move files that are in place and no part of `version` into the trash; those that went."""
        gone = []
        for held in files:
            name = held.blob.name
            with mapped(f"cannot delete {name}"), suppress(DestinationError):  # its folder is none any more
                path = self._in_place.path(version.name, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    self._throw_away(version, name, path, moment)
                    self._in_place.prune(version.name, name)
                    gone.append(held)
        return gone

    def _throw_away(self, version: Version, name: str, path: str, moment: str) -> None:
        trash = self._in_trash(version, moment) / "files" / name
        trash.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, trash)

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Say which version is in place. The root tileset was laid out with the other files."""
        with mapped(f"cannot publish in {self._root}"):
            self._tell_latest(latest)
