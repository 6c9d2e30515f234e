"""Exports of which one file, or nothing, has changed since they were mirrored into a folder."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench import Bench, Runner
from exports import CHANGED_EXPORT_COUNT, MANY_FILE_COUNT, changed_name

NOTE = (
    "tilesync publishes a whole new version, of links but for the one file, with its own manifest; the old one stays. "
    "The others change files in place."
)


def changed(bench: Bench) -> str:
    """Mirror 20,201 files of which one has changed."""
    folders = {name: bench.new_folder() for name in ("tilesync", "rclone", "azcopy")}
    bench.run(bench.peers.tilesync("small", folders["tilesync"]))
    for name in ("rclone", "azcopy"):
        shutil.copytree(folders["tilesync"] / "versions/small", folders[name])
    return bench.measure("One changed file in 20,000", _runners(bench, "small", folders, rounds=3), NOTE)


def changed_many(bench: Bench) -> str:
    """Mirror a million files of which one has changed."""
    held = bench.prepare_many_files()
    folders = {name: bench.new_folder() for name in ("tilesync", "rclone", "azcopy")}
    bench.set_newest_export("many", "many", 1)
    shutil.copytree(held, folders["tilesync"], symlinks=True, ignore=lambda path, _: _versions_of(held, path))
    link_tree(held / "versions", folders["tilesync"] / "versions")
    for name in ("rclone", "azcopy"):
        link_tree(held / "versions/many", folders[name])
    note = f"{NOTE} All three begin with links to the same mirror; none of them writes into a file that is there."
    return bench.measure(f"One changed file in {MANY_FILE_COUNT:,}", _runners(bench, "many", folders, rounds=2), note)


def _runners(bench: Bench, container: str, folders: Mapping[str, Path], *, rounds: int) -> list[Runner]:
    """Return the programs; each mirrors the next changed copy of the container in each round."""
    numbers = {name: iter(range(1, CHANGED_EXPORT_COUNT + 1)) for name in folders}

    def set_next_export() -> None:
        number = next(numbers["tilesync"])
        bench.set_newest_export(container, changed_name(container, number), number + 1)

    def rclone() -> list[str]:
        name = changed_name(container, next(numbers["rclone"]))
        return bench.peers.rclone("sync", name, str(folders["rclone"]), at_once=64)

    def azcopy() -> list[str]:
        return bench.peers.azcopy("sync", changed_name(container, next(numbers["azcopy"])), str(folders["azcopy"]))

    most = CHANGED_EXPORT_COUNT
    tilesync = Runner(
        "tilesync", lambda: bench.peers.tilesync(container, folders["tilesync"]), rounds, most, setup=set_next_export
    )
    return [tilesync, Runner("rclone sync", rclone, rounds, most), Runner("azcopy sync", azcopy, rounds, most)]


def _versions_of(held: Path, path: str) -> list[str]:
    """Return what of a folder of the mirror is linked, not copied."""
    return ["versions"] if Path(path) == held else []


def link_tree(source: Path, folder: Path) -> None:
    """Copy the content of a folder by links."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", "--link", f"{source}/.", str(folder)], check=True)


def unchanged(bench: Bench) -> str:
    """Mirror a million files without a change."""
    held = bench.prepare_many_files()
    there = str(held / "versions/many")
    runners = [
        Runner("tilesync", lambda: bench.peers.tilesync("many", held)),
        Runner("rclone sync", lambda: bench.peers.rclone("sync", "many", there, at_once=64), rounds=1),
        Runner("azcopy sync", lambda: bench.peers.azcopy("sync", "many", there), rounds=1),
    ]
    first = f"tilesync asks the API once. (Mirroring them at first: {(held.parent / 'held.txt').read_text()}.)"
    return bench.measure(f"Nothing changed in {MANY_FILE_COUNT:,} files", runners, first)
