"""Uploads: PUTs from a folder, and copies from container to container."""

from __future__ import annotations

from pathlib import Path

from bench import Bench, Runner
from exports import FEWER_FILE_COUNT, MANY_FILE_COUNT, PUT_BYTES, PUT_COUNT

from workloads.downloads import tilesync

PUT_TITLE = f"{PUT_COUNT:,} PUTs of {PUT_BYTES >> 10} KB"


def uploads(bench: Bench) -> str:
    """Upload files into a container, from a folder and from another container."""
    note = (
        "From a folder that tilesync filled. tilesync reads each file, proves it by its SHA-256, sends its MD5, and"
        " publishes a version with manifest and pointer; rclone and azcopy send the MD5. Of rclone the best number."
    )
    held = bench.prepare_upload_folder()
    azcopy = Runner("azcopy", lambda: bench.peers.upload("azcopy", held, bench.only_container()))
    first = bench.measure(PUT_TITLE, [*put_clients(bench), azcopy], note)
    note = "Both through this machine, every byte verified."
    return first + "\n" + bench.measure("20,201 small files, container to container", copy_and_download(bench), note)


def put_clients(bench: Bench) -> list[Runner]:
    """Return tilesync, and rclone with its best number."""
    held = bench.prepare_upload_folder()
    return [
        Runner("tilesync", lambda: bench.peers.upload("tilesync", held, bench.only_container())),
        bench.fastest((64, 128, 200), lambda count: _rclone_upload(bench, held, count)),
    ]


def copy_and_download(bench: Bench) -> list[Runner]:
    """Return tilesync from container to container, and from the container into a folder."""
    download = tilesync(bench, "small")
    download.name = "tilesync, container to folder"
    return [_container_copy(bench, "small", "tilesync, container to container"), download]


def growth(bench: Bench) -> str:
    """Copy ten times the files, container to container."""
    runners = [
        _container_copy(bench, "fewer", f"tilesync, {FEWER_FILE_COUNT:,} files", rounds=1),
        _container_copy(bench, "many", f"tilesync, {MANY_FILE_COUNT:,} files", rounds=1),
    ]
    return bench.measure("Tiny files, container to container", runners, "Peak memory is that of all its processes.")


def _rclone_upload(bench: Bench, held: Path, count: int) -> Runner:
    name = f"rclone --transfers {count}"
    return Runner(name, lambda: bench.peers.upload("rclone", held, bench.only_container(), at_once=count))


def _container_copy(bench: Bench, container: str, name: str, *, rounds: int = 3) -> Runner:
    return Runner(name, lambda: bench.peers.copy_container(container, bench.only_container()), rounds)
