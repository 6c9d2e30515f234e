"""State of a fleet: the places of its mirrors, given once, and what their last runs did."""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tilesync.api.inputs import default_state_root
from tilesync.catalog.history import decode_history, encode_history
from tilesync.catalog.sqlite import Database
from tilesync.errors import DestinationError, DiskFull, UsageError
from tilesync.model.history import MirrorHistory
from tilesync.runtime.os_errors import to_destination_error
from tilesync.values import dataclass

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mirror (
  key TEXT PRIMARY KEY, entry TEXT NOT NULL, imodel TEXT, itwin TEXT, name TEXT NOT NULL, templates TEXT NOT NULL,
  places TEXT NOT NULL, history TEXT NOT NULL, max_age_s REAL, vanished TEXT, place_name TEXT NOT NULL) WITHOUT ROWID;
"""
SCHEMA_VERSION: Final = 1

FILE_NAME: Final = "fleet.sqlite3"

RATE_KEY: Final = "bytes per second"
FILE_KEY: Final = "file"
RUNNING_KEY: Final = "running"


@dataclass(frozen=True, slots=True)
class KnownMirror:
    """A mirror that the fleet has seen.

    `key` identifies it: the name of its entry, and for the iModels of an iTwin the id. `name` is the display name now.
    `places` are its destinations, given once for the `templates` that the file had then, and for the display name of
    that day, `place_name`. `vanished`: since when its iTwin does not list it any more, in ISO 8601.
    """

    key: str
    entry: str
    name: str
    places: tuple[str, ...]
    templates: tuple[str, ...] = ()
    imodel: str | None = None
    itwin: str | None = None
    history: MirrorHistory = field(default_factory=MirrorHistory)
    max_age_s: float | None = None
    vanished: str | None = None
    place_name: str = ""


def make_key(entry: str, imodel: str | None = None) -> str:
    """Make the key of a mirror; `imodel`: its id, if the entry is for a whole iTwin."""
    return entry if imodel is None else f"{entry}/{imodel}"


def is_state_file_name(name: str) -> bool:
    """Return whether a file of this name would be the database of a fleet, or one that SQLite keeps beside it."""
    return name.casefold() in {f"{FILE_NAME}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")}


def default_fleets_root() -> Path | None:
    """Return the parent of the default state folders of fleets; None if this user has no home folder."""
    root = default_state_root()
    return root.parent / "fleets" if root is not None else None


def default_state_dir(fleet_file: Path) -> Path:
    """Return the folder for the state of a fleet file. Raises UsageError if this user has no home folder."""
    root = default_fleets_root()
    if root is None:
        raise UsageError(
            "no folder is set for the state of the fleet: this user has no home folder",
            hint="write state-dir into [fleet], or set HOME or XDG_STATE_HOME",
        )
    path = fleet_file.absolute()
    return root / f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


class FleetState:
    """Database of a fleet. Several processes may use it at the same time. Blocks; use it in a `with` block."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._path = folder / FILE_NAME
        self._database = self._open(folder, read_only=read_only)

    @staticmethod
    def _open(folder: Path, *, read_only: bool) -> Database | None:
        path = folder / FILE_NAME
        if not read_only:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise DestinationError(
                    f"the folder for the state of the fleet cannot be made ({error})", hint=_ACCESS_HINT
                ) from error
        with _as_fleet_state(path):
            if read_only and not _exists(path):
                return None
            return Database(path, SCHEMA, schema_version=SCHEMA_VERSION, read_only=read_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            self._database.close()

    def mirrors(self) -> dict[str, KnownMirror]:
        """Return all mirrors that were ever seen, by their key."""
        if self._database is None:
            return {}
        with _as_fleet_state(self._path):
            rows = self._database.query(f"SELECT {', '.join(_COLUMNS)} FROM mirror ORDER BY key")
            return {row[0]: _read_row(row) for row in rows}

    def save(self, mirrors: Iterable[KnownMirror]) -> None:
        """Store mirrors in one transaction; the history is stored only for new ones (`save_history`)."""
        rows = [_make_row(mirror) for mirror in mirrors]
        updates = ", ".join(f"{name}=excluded.{name}" for name in _COLUMNS if name not in {"key", "history"})
        with _as_fleet_state(self._path), self._writable().transaction() as db:
            db.executemany(
                f"INSERT INTO mirror ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
                f" ON CONFLICT (key) DO UPDATE SET {updates}",
                rows,
            )

    def save_histories(self, histories: Sequence[tuple[str, MirrorHistory]]) -> None:
        """Store the histories of mirrors by their keys, in one transaction."""
        with _as_fleet_state(self._path), self._writable().transaction() as db:
            db.executemany(
                "UPDATE mirror SET history=? WHERE key=?",
                [(encode_history(history), key) for key, history in histories],
            )

    def read_rate(self) -> float | None:
        """Return the bytes per second of an earlier night; None if no night has moved enough."""
        value = self._database.get_value(RATE_KEY) if self._database is not None else None
        try:
            rate = float(value or 0)
        except ValueError:
            return None
        return rate if 0 < rate < math.inf else None

    def begin_run(self, fleet_file: Path) -> str:
        """Record that this process runs the fleet; return another fleet file whose state this is, or an empty text."""
        other = self._writable().get_value(FILE_KEY) or ""
        path = str(fleet_file.absolute())
        self._writable().set_value(FILE_KEY, path)
        self._writable().set_value(RUNNING_KEY, json.dumps([os.getpid(), socket.gethostname()]))
        return other if other != path and os.path.exists(other) else ""

    def end_run(self) -> None:
        """Record that the fleet runs no longer."""
        self._writable().set_value(RUNNING_KEY, "")

    def is_running(self) -> bool:
        """Return whether a process of this machine runs the fleet now."""
        value = self._database.get_value(RUNNING_KEY) if self._database is not None else None
        try:
            pid, host = json.loads(value or "[0, null]")
            if not pid or host != socket.gethostname():
                return False
            os.kill(int(pid), 0)
        except PermissionError:  # the process of another user
            return True
        except (ValueError, TypeError, OSError):
            return False
        return True

    def store_rate(self, bytes_per_s: float) -> None:
        """Store the bytes per second of this night."""
        self._writable().set_value(RATE_KEY, f"{bytes_per_s:.0f}")

    def _writable(self) -> Database:
        assert self._database is not None, "the state is opened for reading"
        return self._database


def _exists(path: Path) -> bool:
    """Return whether a file exists. Raises OSError if that cannot be known, or a file is in place of its folder."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _as_fleet_state(path: Path) -> Iterator[None]:
    """Translate errors of the database to those of the state of a fleet, which cannot be rebuilt as a catalog can."""
    try:
        yield
    except OSError as error:
        subject = f"the state of the fleet in {path.parent} cannot be used"
        raise to_destination_error(error, subject, hint=_ACCESS_HINT) from error
    except (DestinationError, ValueError, TypeError) as error:
        reason = str(error).replace("the catalog", "the state of the fleet")
        if not isinstance(error, DestinationError):
            reason = f"the state of the fleet is damaged ({error})"
        if isinstance(error, DiskFull):
            raise DiskFull(reason) from error
        if _is_refused_access(error.__cause__):
            reason = f"the state of the fleet in {path.parent} cannot be used ({error.__cause__})"
            raise DestinationError(reason, hint=_ACCESS_HINT) from error
        hint = error.hint if isinstance(error, DestinationError) and "damaged" not in reason else _DAMAGE_HINT
        raise DestinationError(reason, hint=hint.format(path=path) if hint else None) from error


def _is_refused_access(cause: BaseException | None) -> bool:
    """Return whether this user may not open or change the state."""
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorcode & 0xFF in _ACCESS_ERRORS
    return isinstance(cause, PermissionError)


_ACCESS_ERRORS: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})

_ACCESS_HINT: Final = "run it as the user of the fleet, or write another state-dir into [fleet]"

_DAMAGE_HINT: Final = (
    "move {path} away: places are then made from the templates again, so that mirrors whose iModel was renamed get new"
    " ones; nothing that is mirrored is lost"
)

_COLUMNS: Final = (
    "key",
    "entry",
    "imodel",
    "itwin",
    "name",
    "templates",
    "places",
    "history",
    "max_age_s",
    "vanished",
    "place_name",
)


def _make_row(mirror: KnownMirror) -> tuple[Any, ...]:
    values = {name: getattr(mirror, name) for name in _COLUMNS}
    values |= {name: json.dumps(values[name], ensure_ascii=False) for name in ("templates", "places")}
    values["history"] = encode_history(mirror.history)
    return tuple(values[name] for name in _COLUMNS)


def _read_row(row: Sequence[Any]) -> KnownMirror:
    values = dict(zip(_COLUMNS, row, strict=True))
    values |= {name: _read_texts(values[name]) for name in ("templates", "places")}
    values["history"] = decode_history(values["history"])
    return KnownMirror(**values)


def _read_texts(stored: str) -> tuple[str, ...]:
    """Read a list of texts. Raises ValueError, TypeError."""
    texts = json.loads(stored)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a list of texts is something else")
    return tuple(texts)
