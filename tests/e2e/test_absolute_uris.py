"""URIs that lead back to the container or away from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.broken_exports import TILE, failure_messages, implicit, mirror, remarked_problems, subtree
from tests.support.builders import read_manifest, tileset
from tests.support.commandline import run_tilesync
from tests.support.simulator import EXPORT, Simulator, both_inventories, verify
from tilesync.events import DiagnosticReported, FileFailed
from tilesync.model import Inventory


def make_absolute_uris(home: str) -> list[str]:
    """Return every form of an absolute URI to the container."""
    path = home.partition("//")[2].partition("/")[2]
    link = f"{home}/c.glb?sv=2024-05-04&se=2026-11-29T07%3A48%3A27Z&sr=c&sp=rl&sig=s3cret%3D"
    return [f"{home}/a.glb", f"/{path}/b.glb", link, f"{home.partition(':')[2]}/d.glb", f"../{path}/e%20f.glb"]


@both_inventories
def test_absolute_uris_into_the_container_are_refused(inventory: Inventory, tmp_path: Path) -> None:
    """URIs that lead back to the container: exit 3, each is counted, one diagnostic without a secret."""
    with Simulator() as sim:
        uris = make_absolute_uris(f"{sim.url}/{EXPORT}")
        sim.offer_export(
            {"tileset.json": tileset(*uris), **{f"{name}.glb": TILE for name in ("a", "b", "c", "d", "e f")}}
        )
        run = sim.mirror(tmp_path, inventory=inventory)
        assert (run.exit_code, run.stats.completeness.unfollowed) == (3, len(uris))
        (failure,) = run.events_of(FileFailed)
        assert (failure.name, failure.error) == ("tileset.json", "LeadsAway")
        assert failure.message.startswith(
            f"tileset.json: {len(uris)} URIs lead elsewhere: the first, {uris[0]} points back"
        )
        assert (
            len(
                [diagnostic for diagnostic in run.events_of(DiagnosticReported) if diagnostic.problem == "absolute URL"]
            )
            == 1
        )
        assert not (tmp_path / "tileset.json").exists()
        allowed = sim.mirror(tmp_path, inventory=inventory, allow_missing=True)
    assert (allowed.exit_code, allowed.stats.completeness.missing) == (0, 0)
    assert "s3cret" not in json.dumps([str(event) for event in (*run.events, *allowed.events)])
    pointer = json.loads((tmp_path / "tileset.json").read_bytes())
    assert [child["content"]["uri"] for child in pointer["root"]["children"]] == [
        f"versions/{EXPORT}/{name}.glb" for name in ("a", "b", "c", "d", "e%20f")
    ]
    assert len(read_manifest(tmp_path, EXPORT)[0]["elsewhere"]) == 1
    assert verify(tmp_path).exit_code == 0


@both_inventories
def test_absolute_uris_of_a_tileset_below_are_refused(inventory: Inventory, tmp_path: Path) -> None:
    """Absolute URIs of an external tileset are refused; if published on request, a copy is published too."""
    with Simulator() as sim:
        home = f"{sim.url}/{EXPORT}"
        sim.offer_export({"tileset.json": tileset("e.json"), "e.json": tileset(f"{home}/a.glb"), "a.glb": TILE})
        run = sim.mirror(tmp_path / "a", inventory=inventory)
        assert (run.exit_code, set(failure_messages(run))) == (3, {"e.json"})
        assert sim.mirror(tmp_path / "a", inventory=inventory, allow_missing=True).exit_code == 0
    assert run_tilesync("mirror", tmp_path / "a", tmp_path / "b", "--json").exit_code == 0


@both_inventories
@pytest.mark.parametrize(
    "uri", ["/v1/3dtiles/datasets/x/files/y.json?session=abc", "https://h.invalid/a.glb?sig=s3cret"]
)
def test_a_root_with_references_to_other_hosts_only_is_refused(uri: str, inventory: Inventory, tmp_path: Path) -> None:
    """An export whose root references other hosts only: exit 3, unless allowed."""
    files = {"tileset.json": tileset(uri, "a.glb"), "a.glb": TILE}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, run.stats.completeness.unfollowed, set(failure_messages(run))) == (3, 1, {"tileset.json"})
    assert "session" not in str(run.events)
    assert "s3cret" not in str(run.events)
    assert mirror(files, tmp_path / "b", inventory, allow_missing=True).exit_code == 0


@both_inventories
def test_template_uris_to_other_hosts_are_checked(inventory: Inventory, tmp_path: Path) -> None:
    """Template URIs of contents and subtrees are checked like other URIs."""
    for number, uris in enumerate([("https://h.invalid/{level}", "c/{level}/{x}/{y}.glb"),
                                   ("s/{level}/{x}/{y}", "https://h.invalid/{level}/{x}/{y}.glb")]):  # fmt: skip
        files = {"tileset.json": implicit(*uris), "s/0/0/0": subtree()}
        run = mirror(files, tmp_path / str(number), inventory)
        assert (run.exit_code, run.stats.completeness.unfollowed) == (3, 1)


@both_inventories
def test_uris_to_other_hosts_below_the_root_are_counted(inventory: Inventory, tmp_path: Path) -> None:
    """An external tileset with URIs to other hosts gives one diagnostic with their number."""
    uris = [f"https://h.invalid/{number}.glb" for number in range(30)]
    run = mirror({"tileset.json": tileset("e.json"), "e.json": tileset(*uris)}, tmp_path, inventory)
    assert (run.exit_code, run.stats.completeness.unfollowed) == (0, 30)
    assert remarked_problems(run) == {("e.json", "unfollowed")}
    assert len(run.events_of(DiagnosticReported)) == 1


def test_references_of_orphans_do_not_count_as_unfollowed(tmp_path: Path) -> None:
    """Only references in the closure of the root count as unfollowed."""
    files = {"tileset.json": tileset("a.glb"), "a.glb": TILE, "old.json": tileset("https://h.invalid/a.glb")}
    run = mirror(files, tmp_path, Inventory.LIST)
    assert (run.exit_code, run.stats.completeness.unfollowed) == (0, 0)
