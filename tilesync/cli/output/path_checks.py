"""Refuse an output file that cannot be written, or would overwrite a file that tilesync keeps or reads."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from itertools import combinations
from pathlib import Path

from tilesync.api.inputs import default_state_root
from tilesync.cli.output.atomic_file import check_replaceable, find_standard_stream
from tilesync.core.ownership import RESERVED_NAMES
from tilesync.errors import UsageError
from tilesync.monitoring.metrics import check_metrics_file
from tilesync.runtime.safe_open import open_regular
from tilesync.values import dataclass

_OUTPUT_FILE_START = re.compile(
    rb'\{\n  "kind": "(?:finished|failed|fleet-finished)"|\{"time": "[^"]{1,40}", "kind": "|# HELP tilesync_'
    rb"|<!doctype html>\n<!-- tilesync status -->"
)
"""First bytes of a report, of a log, of metrics, or of a status page."""


@dataclass(frozen=True)
class OutputFiles:
    """Output files of a command line. `folders`: the folders that tilesync fills or reads. `fleet_file`: the file of
    the fleet, if the command reads one. Reserved as a whole: `state_dir`, that of the fleet file, and the default
    folders for the state of object stores and of fleets.
    """

    report: Path | None
    log_file: Path | None
    folders: tuple[Path, ...] = ()
    state_dir: Path | None = None
    metrics_file: Path | None = None
    page: Path | None = None
    fleet_file: Path | None = None

    def check(self) -> None:
        """Raise UsageError if a file must not be written, or the report, the metrics or the page cannot be written.

        Changes nothing.
        """
        paths = {
            "--report": self.report,
            "--log-file": self.log_file,
            "--metrics-file": self.metrics_file,
            "--page": self.page,
        }
        named = {option: path for option, path in paths.items() if path is not None}
        states = self._list_state_folders() if named else []
        for option, path in named.items():
            self._refuse_fleet_path(option, path, states)
            self._refuse_protected_path(option, path)
        for (option, path), (other_option, other) in combinations(named.items(), 2):
            if _share_one_file(path, other):
                raise UsageError(
                    f"{option} and {other_option} name the same file: {path}", hint="give each its own file"
                )
        if self.report is not None:
            _check_writable(self.report, "report", "--report")
        if self.metrics_file is not None:
            check_metrics_file(self.metrics_file)
            _check_writable(self.metrics_file, "metrics file", "--metrics-file")
        if self.page is not None:
            _check_writable(self.page, "page", "--page")

    def _refuse_fleet_path(self, option: str, path: Path, states: list[Path]) -> None:
        """Refuse a path in a state folder, or one of the files of a fleet."""
        from tilesync.fleets.state import is_state_file_name

        for state in states:
            if _path_within(path, state) is not None or os.path.realpath(path) == os.path.realpath(state):
                raise UsageError(f"{option} {path} is in the state folder {state}", hint="choose another folder")
        if is_state_file_name(os.path.basename(os.path.realpath(path))):
            raise UsageError(
                f"{option} {path} has the name of a file with the state of a fleet",
                hint="choose another name, such as report.json",
            )
        if self.fleet_file is not None and _share_one_file(path, self.fleet_file):
            raise UsageError(
                f"{option} {path} would overwrite the fleet file", hint="choose another name, such as report.json"
            )

    def _refuse_protected_path(self, option: str, path: Path) -> None:
        for folder in (*self.folders, *_enclosing_destinations(path)):
            parts = _path_within(path, folder)
            if (parts and parts[0].lower() in RESERVED_NAMES) or any(
                _is_same_file(path, folder / name) for name in RESERVED_NAMES
            ):
                raise UsageError(
                    f"{option} {path} would overwrite a file that tilesync keeps in {folder}",
                    hint="choose another folder, or another name, such as report.json",
                )
            if parts and not (folder / "manifests").is_dir() and _is_foreign_file(path):
                raise UsageError(
                    f"{option} {path} would overwrite a file in {folder} that is no report, log, metrics file or status"
                    " page",
                    hint="choose another folder, or a name that no file there has",
                )

    def _list_state_folders(self) -> list[Path]:
        from tilesync.fleets.file.reader import find_state_dir
        from tilesync.fleets.state import default_fleets_root

        of_file = find_state_dir(self.fleet_file) if self.fleet_file is not None else None
        return [*filter(None, (self.state_dir, of_file, default_state_root(), default_fleets_root()))]


def _check_writable(path: Path, what: str, option: str) -> None:
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder for the {what} {path}", hint=f"check {option}")
    try:
        check_replaceable(path)
    except OSError as error:
        raise UsageError(f"the {what} {path} cannot be written ({error.strerror})", hint=f"check {option}") from None


def find_local_folders(texts: Iterable[object]) -> tuple[Path, ...]:
    """Return the words of a command line that name local folders."""
    local = [text for text in map(str, filter(None, texts)) if "://" not in text and "\0" not in text]
    return tuple(path for path in (Path(os.path.expanduser(text)) for text in local) if os.path.isdir(path))


def _enclosing_destinations(path: Path) -> list[Path]:
    """Return the destinations that contain a path, also those that the command does not name."""
    real = os.path.realpath(path)
    return [folder for folder in Path(real).parents if _is_destination(folder)]


def _is_destination(folder: Path) -> bool:
    published = os.path.isdir(folder / "manifests") and os.path.isfile(folder / "latest.json")
    return published or os.path.isdir(folder / ".tilesync")


def _path_within(path: Path, folder: Path) -> tuple[str, ...] | None:
    """Return the parts of a path relative to a folder, with all links followed; None if it is outside.

    Folders are compared by identity, not by name: a bind mount or another case gives one folder two names.
    """
    real = Path(os.path.realpath(path))
    for above in (real, *real.parents):
        if _is_same_file(above, folder):
            return real.relative_to(above).parts
    return None


def _is_same_file(path: Path, other: Path) -> bool:
    """Return whether two paths lead to the same file or folder, hard links included."""
    with suppress(OSError):
        return os.path.samefile(path, other)
    return False


def _share_one_file(path: Path, other: Path) -> bool:
    """Return whether two outputs would share one file. Devices, FIFOs and standard output may take both."""
    with suppress(OSError):
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or find_standard_stream(found) is not None:
            return False
    return _is_same_file(path, other) or os.path.realpath(path) == os.path.realpath(other)


def _is_foreign_file(path: Path) -> bool:
    """Return whether a path holds a file that is no report, log or metrics file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(open_regular(path, follow_symlinks=True), "rb") as file:
            return _OUTPUT_FILE_START.match(file.read(80)) is None
    except FileNotFoundError:
        return False
    except OSError:
        return True
