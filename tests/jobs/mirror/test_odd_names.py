"""Odd names: stored where the destination can, and refused with a hint to --exclude elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.azure_proxy import AzureFixture
from tests.support.builders import export, glb, read_tree, tileset
from tests.support.s3 import BucketFixture, BucketServer
from tests.support.simulator import EXPORT, Simulator, verify
from tilesync.errors import UnsafeName
from tilesync.events import Warned
from tilesync.model import Globs, Inventory, Layout

MODES = [Inventory.LIST, Inventory.WALK]
WINDOWS = ["aux.glb", "tiles/con", "a:b.glb", "dot./x.glb", "C:x.glb"]
UNSTORABLE_NAMES = {"/lead.glb": ".//lead.glb", "x//y.glb": "x//y.glb", f"{'n' * 300}.glb": f"{'n' * 300}.glb"}
"""Names that no folder can store, and how a tileset references them."""


def export_referencing(*uris: str, **more: bytes) -> dict[str, bytes]:
    """Return an export whose root references these files."""
    return {"tileset.json": tileset("good.glb", *uris), "good.glb": glb(b"good"), **more}


@pytest.mark.parametrize("inventory", MODES)
@pytest.mark.parametrize("layout", list(Layout))
def test_names_that_only_windows_cannot_store_are_mirrored(
    tmp_path: Path, inventory: Inventory, layout: Layout
) -> None:
    """Names of Windows devices and the like are stored, with one warning that counts them and names the first ones."""
    files = {**export_referencing(*(f"./{name}" for name in WINDOWS)), **{name: glb(name.encode()) for name in WINDOWS}}
    with Simulator() as sim:
        sim.offer_export(files)
        plan = sim.dry_run(tmp_path, inventory=inventory, layout=layout)
        run = sim.mirror(tmp_path, inventory=inventory, layout=layout)
    assert (plan.exit_code, run.exit_code) == (0, 0)
    for each in (plan, run):
        (warning,) = [event.message for event in each.events_of(Warned) if "Windows" in event.message]
        assert warning.startswith("5 names that Windows cannot store: ")
    place = tmp_path if layout is Layout.FLAT else tmp_path / "versions" / EXPORT
    assert {name: (place / name).read_bytes() for name in files} == files
    assert verify(tmp_path).exit_code == 0


@pytest.mark.parametrize("inventory", MODES)
@pytest.mark.parametrize(("name", "uri"), UNSTORABLE_NAMES.items())
def test_unstorable_names_can_be_excluded(tmp_path: Path, inventory: Inventory, name: str, uri: str) -> None:
    """A folder refuses the name, with the option that excludes it; with that option the rest is mirrored."""
    files = {**export_referencing(uri), name: glb(b"odd")}
    with Simulator() as sim:
        sim.offer_export(files)
        for job in (sim.dry_run, sim.mirror):
            run = job(tmp_path, inventory=inventory)
            assert isinstance(run.error, UnsafeName), run.error
            assert repr(name)[:200] in str(run.error)
            assert "not in the container" not in str(run.error)
            assert f"--exclude {name}" in run.error.hint
        run = sim.mirror(tmp_path, inventory=inventory, globs=Globs(exclude=(name,)))
    assert run.exit_code == 0
    del files[name]
    assert read_tree(tmp_path / "versions" / EXPORT) == files


BOTH = {"tiles/0": glb(b"file"), "tiles/0/1": glb(b"below")}


@pytest.mark.parametrize("inventory", MODES)
@pytest.mark.parametrize("order", [1, -1])
def test_a_file_and_a_folder_of_one_name(tmp_path: Path, inventory: Inventory, order: int) -> None:
    """Both are named, with the option that excludes one of them; then the other is mirrored."""
    files = export_referencing(*list(BOTH)[::order], **BOTH)
    with Simulator() as sim:
        sim.offer_export(files)
        for job in (sim.mirror, sim.dry_run, sim.mirror):
            run = job(tmp_path, inventory=inventory)
            assert isinstance(run.error, UnsafeName), run.error
            message = f"{run.error} {run.error.hint}"
            assert "both a file and a folder: tiles/0, and tiles/0/1" in message
            assert "--exclude tiles/0," in message
            assert "move it away" not in message
        for number, glob in enumerate(("tiles/0", "tiles/0/**")):
            dest = tmp_path / str(number)
            run = sim.mirror(dest, inventory=inventory, globs=Globs(exclude=(glob,)))
            assert run.exit_code == 0
            expected = {
                name: data for name, data in files.items() if name not in BOTH or name == list(BOTH)[1 - number]
            }
            assert read_tree(dest / "versions" / EXPORT) == expected


@pytest.mark.parametrize("name", ["../up", "a/./b", "a\\b", "n" * 1025])
@pytest.mark.parametrize("inventory", [Inventory.LIST])
def test_excluded_names_stop_nothing(tmp_path: Path, name: str, inventory: Inventory) -> None:
    """An invalid name is refused with a message, and no error if it is excluded."""
    with Simulator() as sim:
        files = sim.offer_export(export(4))
        sim.offer_export({**files, name: b"odd"})
        assert isinstance(sim.mirror(tmp_path, inventory=inventory).error, UnsafeName)
        run = sim.mirror(tmp_path, inventory=inventory, globs=Globs(exclude=(name,)))
    assert run.exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == files


ODD = {**BOTH, **{name: glb(name.encode()) for name in [*UNSTORABLE_NAMES, *WINDOWS]}}
ODD_FILES = {**export_referencing(*BOTH, *UNSTORABLE_NAMES.values(), *(f"./{name}" for name in WINDOWS)), **ODD}


@pytest.mark.scale
@pytest.mark.parametrize("inventory", MODES)
def test_an_azure_container_stores_all_names(azure_store: AzureFixture, sim: Simulator, inventory: Inventory) -> None:
    """Every blob name of the source is a valid blob name in the destination."""
    sim.offer_export(ODD_FILES)
    plan = azure_store.mirror(sim, "--inventory", inventory, "-n")
    run = azure_store.mirror(sim, "--inventory", inventory)
    assert (plan.exit_code, run.exit_code) == (0, 0), (plan.stderr, run.stderr)
    azure_store.assert_published(EXPORT, ODD_FILES)


@pytest.mark.scale
@pytest.mark.parametrize("inventory", MODES)
def test_a_bucket_stores_nearly_all_names(
    bucket_server: BucketServer, tmp_path: Path, sim: Simulator, inventory: Inventory
) -> None:
    """A bucket stores a file and a folder of one name, long names and device names; it refuses an empty path part."""
    sim.offer_export(ODD_FILES)
    bucket = BucketFixture(bucket_server, tmp_path)
    run = bucket.mirror(sim, "--inventory", inventory)
    assert (run.exit_code, run.last_line["error"]) == (8, "UnsafeName")
    assert "--exclude /lead.glb" in run.stderr
    run = bucket.mirror(sim, "--inventory", inventory, "--exclude", "/lead.glb", "--exclude", "x//y.glb")
    assert run.exit_code == 0, run.stderr
    files = {name: data for name, data in ODD_FILES.items() if name not in {"/lead.glb", "x//y.glb"}}
    assert {name: bucket.read(f"versions/{EXPORT}/{name}") for name in files} == files
