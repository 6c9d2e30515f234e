"""Test links into a folder of a container: only that folder is the export."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.azurite import ACCOUNT, Azurite, BlobContent
from tests.support.builders import export, glb, make_stored_blobs, read_tree, tileset
from tests.support.commandline import run_tilesync
from tests.support.simulator import JobOutcome, Simulator
from tilesync.azure.sas import guess_folder_depths, parse_sas_link
from tilesync.errors import NotAuthorised
from tilesync.events import DiagnosticReported
from tilesync.model import Inventory, SasUrl

FOLDER = "exports/e 1"


def stored_files(dest: Path) -> dict[str, bytes]:
    """Read the files of the only version."""
    (version,) = (dest / "versions").iterdir()
    return read_tree(version)


def fill_folder(sim: Simulator) -> dict[str, bytes]:
    """Store an export in a folder of a container, beside others; return its files."""
    files = {**export(6), "tileset.json": tileset("tiles/tileset.json", "../beside.glb", "../e%201x/0.glb")}
    del files["data/empty"], files["data/schema.json"], files["data/ä b%20+#.bin"]
    beside = {"tileset.json": tileset("0.glb"), "exports/beside.glb": glb(b"0"), f"{FOLDER}x/0.glb": glb(b"1")}
    sim.containers["cont"] = make_stored_blobs({**{f"{FOLDER}/{name}": data for name, data in files.items()}, **beside})
    return files


def folder_link(sim: Simulator, folder: str = "exports/e%201", **more: str) -> str:
    """Make a link to a folder of the container."""
    query = "".join(f"&{key}={value}" for key, value in more.items())
    return sim.create_link("cont").replace("/cont?", f"/cont/{folder}/tileset.json?") + query


@pytest.mark.parametrize("inventory", [None, *Inventory])
@pytest.mark.parametrize("signed", [{}, {"sr": "d", "sdd": "2"}], ids=["container", "folder"])
def test_a_folder_is_mirrored(tmp_path: Path, inventory: Inventory | None, signed: dict[str, str]) -> None:
    """Names are relative to the folder; references out of it are reported and not followed."""
    with Simulator() as sim:
        files = fill_folder(sim)
        link = folder_link(sim, **signed)
        plan = sim.dry_run(tmp_path, link=link, inventory=inventory)
        run = sim.mirror(tmp_path, link=link, inventory=inventory, allow_missing=True)
    assert (plan.error, run.error) == (None, None)
    assert plan.stats.fetched == run.stats.fetched == len(files)
    assert stored_files(tmp_path) == files
    assert run.stats.completeness.unfollowed == 2
    assert [event.problem for event in run.events_of(DiagnosticReported)] == ["leads away"]


def mirror_with_renewals(sim: Simulator, dest: Path, folder: str) -> JobOutcome:
    """Mirror with a link that is refused at once, and a command that prints another one."""
    link = folder_link(sim)
    sim.revoke_links()
    script = dest.parent / "print.sh"
    script.write_text(f"#!/bin/sh\nprintf '%s' '{folder_link(sim, folder)}'\n")
    script.chmod(0o755)
    return sim.mirror(dest, link=link, link_command=str(script), allow_missing=True)


def test_a_renewed_link_to_another_folder_is_refused(tmp_path: Path) -> None:
    """A fresh link into the same folder continues; one into another folder is refused."""
    with Simulator() as sim:
        files = fill_folder(sim)
        run = mirror_with_renewals(sim, tmp_path / "one", "exports/e%201")
        assert (run.error, stored_files(tmp_path / "one")) == (None, files)
        for folder in ("exports/e 1", "exports/e%201/"):
            assert mirror_with_renewals(sim, tmp_path / "one", folder).error is None
        for folder in ("exports/e%201x", "others/e%201"):
            run = mirror_with_renewals(sim, tmp_path / "two", folder)
            assert isinstance(run.error, NotAuthorised)
            assert f"/cont/{folder}, not http" in str(run.error)


@pytest.mark.parametrize("inventory", Inventory)
def test_a_folder_without_a_root_is_an_error(tmp_path: Path, inventory: Inventory) -> None:
    """A missing folder, or one above the export, has no root: an error, in a plan too."""
    with Simulator() as sim:
        fill_folder(sim)
        for folder in ("exports", "nothing"):
            result = [job(tmp_path / folder, link=folder_link(sim, folder), inventory=inventory).error
                     for job in (sim.mirror, sim.dry_run)]  # fmt: skip
            assert "the container has no tileset.json" in str(result[0])
            assert result[0] is not None
            assert "folder" in result[0].hint
            assert inventory is Inventory.LIST or str(result[1]) == str(result[0])


def test_a_command_that_prints_no_link_is_named(tmp_path: Path) -> None:
    """An invalid output of --link-command is reported as output of the command."""
    with Simulator() as sim:
        fill_folder(sim)
        link = folder_link(sim)
        sim.revoke_links()
        run = sim.mirror(tmp_path, link=link, link_command="echo hello")
    assert isinstance(run.error, NotAuthorised)
    assert "the output of --link-command" in str(run.error)


def test_a_real_container_has_folders(azurite: Azurite, tmp_path: Path) -> None:
    """A real service lists a folder by its prefix, on all pages."""
    name, files = f"c{uuid.uuid4().hex[:12]}", export(5)
    azurite.create_container(
        name, {f"a/b/{each}": BlobContent(data) for each, data in files.items()} | {"a/c": BlobContent(b"beside")}
    )
    link = azurite.make_sas_link(name, life=timedelta(hours=1)).replace("?", "/a/b/tileset.json?")
    run = run_tilesync("mirror", "-", tmp_path, stdin=link)
    assert run.exit_code == 0, run.stderr
    assert stored_files(tmp_path) == files


@pytest.mark.parametrize(
    ("base", "query", "depths"),
    [
        ("https://a.blob.core.windows.net/c", "sr=c", [0]),
        ("https://a.blob.core.windows.net/c/exports/e1", "sr=c", [2]),
        ("https://a.z10.blob.storage.azure.net/c/e1", "sr=d&sdd=1", [1]),
        (f"http://127.0.0.1:10000/{ACCOUNT}/c", "sr=c", [0]),
        (f"http://127.0.0.1:10000/{ACCOUNT}/c/e1", "sr=c", [1]),
        ("https://cdn.example/lead/c", "sr=c", [0, 1]),
        ("https://cdn.example/lead/c/d/e", "sr=d&sdd=2", [2, 0, 1, 3]),
        ("https://cdn.example/c", "sr=d&sdd=9", [0]),
    ],
)
def test_the_container_is_found_in_the_path_of_a_link(base: str, query: str, depths: list[int]) -> None:
    """In Azure the container is the first part of the path, in an emulator the second; elsewhere both are tried."""
    link = SasUrl(base, query)
    assert guess_folder_depths(link) == depths
    assert parse_sas_link(f"{base}/tileset.json?{query}") == link
