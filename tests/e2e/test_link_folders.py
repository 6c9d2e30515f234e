"""A link into a folder of a container: that folder is the export, and nothing beside it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.azurite import ACCOUNT, Azurite, Upload
from tests.support.builders import export, glb, stored, tileset, tree
from tests.support.commandline import tilesync
from tests.support.simulator import Run, Simulator
from tilesync.azure.sas import folder_depths, parse_link
from tilesync.errors import NotAuthorised
from tilesync.events import Remarked
from tilesync.model import Inventory, SasUrl

FOLDER = "exports/e 1"


def held(dest: Path) -> dict[str, bytes]:
    """The files of the only version."""
    (version,) = (dest / "versions").iterdir()
    return tree(version)


def filled(sim: Simulator) -> dict[str, bytes]:
    """Hold an export in a folder of a container, beside others; its files."""
    files = {**export(6), "tileset.json": tileset("tiles/tileset.json", "../beside.glb", "../e%201x/0.glb")}
    del files["data/empty"], files["data/schema.json"], files["data/ä b%20+#.bin"]
    beside = {"tileset.json": tileset("0.glb"), "exports/beside.glb": glb(b"0"), f"{FOLDER}x/0.glb": glb(b"1")}
    sim.containers["cont"] = stored({**{f"{FOLDER}/{name}": data for name, data in files.items()}, **beside})
    return files


def link_into(sim: Simulator, folder: str = "exports/e%201", **more: str) -> str:
    """A link to a folder of the container."""
    query = "".join(f"&{key}={value}" for key, value in more.items())
    return sim.link("cont").replace("/cont?", f"/cont/{folder}/tileset.json?") + query


@pytest.mark.parametrize("inventory", [None, *Inventory])
@pytest.mark.parametrize("signed", [{}, {"sr": "d", "sdd": "2"}], ids=["container", "folder"])
def test_a_folder_is_mirrored(tmp_path: Path, inventory: Inventory | None, signed: dict[str, str]) -> None:
    """The files below the folder come by names relative to it; what leads out of it is told, and not followed."""
    with Simulator() as sim:
        files = filled(sim)
        link = link_into(sim, **signed)
        plan = sim.preview(tmp_path, link=link, inventory=inventory)
        run = sim.mirror(tmp_path, link=link, inventory=inventory, allow_missing=True)
    assert (plan.error, run.error) == (None, None)
    assert plan.tally.fetched == run.tally.fetched == len(files)
    assert held(tmp_path) == files
    assert run.tally.completeness.unfollowed == 2
    assert [event.problem for event in run.of(Remarked)] == ["leads away"]


def renewed(sim: Simulator, dest: Path, folder: str) -> Run:
    """Mirror by a link that is refused at once, and a command that prints another one."""
    link = link_into(sim)
    sim.revoke()
    script = dest.parent / "print.sh"
    script.write_text(f"#!/bin/sh\nprintf '%s' '{link_into(sim, folder)}'\n")
    script.chmod(0o755)
    return sim.mirror(dest, link=link, link_command=str(script), allow_missing=True)


def test_a_renewed_link_leads_to_the_same_folder(tmp_path: Path) -> None:
    """A fresh link into the same folder goes on, one into another folder of the container is refused."""
    with Simulator() as sim:
        files = filled(sim)
        run = renewed(sim, tmp_path / "one", "exports/e%201")
        assert (run.error, held(tmp_path / "one")) == (None, files)
        for folder in ("exports/e 1", "exports/e%201/"):
            assert renewed(sim, tmp_path / "one", folder).error is None
        for folder in ("exports/e%201x", "others/e%201"):
            run = renewed(sim, tmp_path / "two", folder)
            assert isinstance(run.error, NotAuthorised)
            assert f"/cont/{folder}, not http" in str(run.error)


@pytest.mark.parametrize("inventory", Inventory)
def test_a_folder_without_a_root_is_told(tmp_path: Path, inventory: Inventory) -> None:
    """A folder that is not there, or one above the export, has no root: said so, in a plan too."""
    with Simulator() as sim:
        filled(sim)
        for folder in ("exports", "nothing"):
            found = [job(tmp_path / folder, link=link_into(sim, folder), inventory=inventory).error
                     for job in (sim.mirror, sim.preview)]  # fmt: skip
            assert "the container has no tileset.json" in str(found[0])
            assert found[0] is not None
            assert "folder" in found[0].hint
            assert inventory is Inventory.LIST or str(found[1]) == str(found[0])


def test_a_command_that_prints_no_link_is_named(tmp_path: Path) -> None:
    """What a command printed in place of a link is told as its output, not as what was asked for."""
    with Simulator() as sim:
        filled(sim)
        link = link_into(sim)
        sim.revoke()
        run = sim.mirror(tmp_path, link=link, link_command="echo hello")
    assert isinstance(run.error, NotAuthorised)
    assert "the output of --link-command" in str(run.error)


def test_a_real_container_has_folders(azurite: Azurite, tmp_path: Path) -> None:
    """A real service lists a folder by its prefix, whatever the page."""
    name, files = f"c{uuid.uuid4().hex[:12]}", export(5)
    azurite.fill(name, {f"a/b/{each}": Upload(data) for each, data in files.items()} | {"a/c": Upload(b"beside")})
    link = azurite.link(name, life=timedelta(hours=1)).replace("?", "/a/b/tileset.json?")
    run = tilesync("mirror", "-", tmp_path, stdin=link)
    assert run.exit == 0, run.err
    assert held(tmp_path) == files


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
def test_where_the_container_ends(base: str, query: str, depths: list[int]) -> None:
    """Azure has the container first, an emulator second; elsewhere the likeliest is tried first."""
    link = SasUrl(base, query)
    assert folder_depths(link) == depths
    assert parse_link(f"{base}/tileset.json?{query}") == link
