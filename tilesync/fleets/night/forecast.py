"""Forecast of a night: what is to be moved, and whether it fits the disks and the window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

from tilesync.core.wording import format_age, format_count, format_size
from tilesync.model import ROOT, Resolution
from tilesync.model.history import HeldVersion
from tilesync.values import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that a mirror has to move at most, as far as they are known. Unchanged files may be reused.

    `is_known`: the size is that of the service, or of the export that is held.
    """

    bytes: int
    is_changed: bool = True
    is_known: bool = True


def estimate_transfer(resolution: Resolution, held: HeldVersion | None, folder: str | None = None) -> Estimate:
    """Estimate the transfer of an export, with the size that the service states, else that of the held version.

    `folder`: the destination, if it is one; where nothing is there any more, nothing is held.
    """
    export = resolution.export
    is_there = folder is None or any(path_exists(Path(folder) / name) for name in ("manifests", ROOT))
    if held is not None and is_there and (held.export, held.modified) == (export.id, export.modified):
        return Estimate(0, is_changed=False)
    size = export.size if export.size is not None else held.bytes if held is not None else None
    return Estimate(0, is_known=False) if size is None else Estimate(size)


@dataclass(frozen=True, slots=True)
class NightForecast:
    """Forecast of a night: numbers of mirrors, and bytes of those with a known size.

    `unsized`: changed mirrors whose size is not known. `warnings`: what will not fit.
    """

    mirrors: int
    changed: int
    unsized: int
    bytes: int
    warnings: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """The forecast as a sentence."""
        unchanged = self.mirrors - self.changed
        if not self.changed:
            return f"{format_count(self.mirrors, 'mirror')}: nothing to move"
        unsized = f", and {self.unsized:,} of unknown size" if self.unsized else ""
        return (
            f"{format_count(self.mirrors, 'mirror')}: {self.changed:,} with a new export, at most"
            f" {format_size(self.bytes)}{unsized}; {unchanged:,} unchanged"
        )


def make_forecast(
    estimates: Iterable[tuple[Estimate, Path | None]], *, left: timedelta | None, bytes_per_s: float | None
) -> NightForecast:
    """Make the forecast. `estimates`: each with the folder of its destination, None for a store.

    `left`: time until the end of the window. `bytes_per_s`: rate of an earlier night, if known.
    """
    rows = list(estimates)
    changed = [estimate for estimate, _ in rows if estimate.is_changed]
    total = sum(estimate.bytes for estimate in changed)
    warnings = list(_find_full_disks(rows))
    if left is not None and bytes_per_s and total / bytes_per_s > left.total_seconds():
        needed = timedelta(seconds=total / bytes_per_s)
        warnings.append(
            f"at the rate of earlier nights this takes {format_age(needed)}, and the window ends in {format_age(left)}:"
            " the next night continues"
        )
    return NightForecast(
        len(rows), len(changed), sum(not estimate.is_known for estimate in changed), total, tuple(warnings)
    )


def _find_full_disks(rows: Iterable[tuple[Estimate, Path | None]]) -> Iterator[str]:
    """Yield a warning for each file system that has less free space than its mirrors may need."""
    needed: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for estimate, dest in rows:
        if dest is not None and estimate.bytes and (folder := find_existing(dest)) is not None:
            try:
                device = os.stat(folder).st_dev
            except OSError:
                continue
            needed[device] = needed.get(device, 0) + estimate.bytes
            folders.setdefault(device, folder)
    yield from _compare_with_free_space(needed, folders)


def _compare_with_free_space(needed: Mapping[int, int], folders: Mapping[int, Path]) -> Iterator[str]:
    for device, size in needed.items():
        try:
            free = shutil.disk_usage(folders[device]).free
        except OSError:
            continue
        if size > free:
            yield (
                f"up to {format_size(size)} are to be stored on the file system of {folders[device]}, which has"
                f" {format_size(free)} free"
            )


def find_existing(path: Path) -> Path | None:
    """Return the path or the nearest of its parents that exists; None if none does, or none may be looked at."""
    return next((each for each in (path, *path.parents) if path_exists(each)), None)


def path_exists(path: Path) -> bool:
    """Return whether a path exists; False if that cannot be found out: its own mirror will say why."""
    try:
        return path.exists()
    except OSError:
        return False
