"""Warnings about filters: globs that match nothing, and filters that leave only the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import referenced_export
from tests.support.simulator import Simulator, both_inventories
from tilesync.model import Globs, Inventory, Layout, Selector


@both_inventories
@pytest.mark.parametrize("plan", [False, True])
def test_a_glob_without_matches_is_warned_of(tmp_path: Path, inventory: Inventory, plan: bool) -> None:
    """One warning for each, in a run and in its plan, with the number of files; a walk adds what it cannot know. A glob
    that matches anything, also an excluded file, gives no warning.
    """
    globs = Globs(include=("tiles/*",), exclude=("*.jpg", "*/00[1-3].glb", "*/001.glb"))
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        run = (sim.dry_run if plan else sim.mirror)(tmp_path, inventory=inventory, globs=globs)
    assert run.error is None
    (message,) = run.warnings
    assert message.startswith(f"--exclude '*.jpg' matches none of the {len(files)} files that ")
    assert ("only excluded files reference" in message) is (inventory is Inventory.WALK)
    assert ("textures" in message) is (plan and inventory is Inventory.WALK)


@both_inventories
@pytest.mark.parametrize("layout", list(Layout))
def test_a_first_version_of_the_root_alone_is_warned_of(tmp_path: Path, inventory: Inventory, layout: Layout) -> None:
    """Without an earlier version it is published, with a warning."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        run = sim.mirror(tmp_path, inventory=inventory, globs=Globs(include=("*.glbb",)), layout=layout)
    assert run.error is None
    assert [("'*.glbb' matches none" in message, "only the root" in message) for message in run.warnings] == [
        (True, False),
        (False, True),
    ]


def test_filters_of_a_copy_are_compared_with_those_of_its_source(tmp_path: Path) -> None:
    """With the same filters for a mirror and a copy of it, there is no warning about files that the mirror excluded."""
    some, more = Globs(exclude=("*/001.glb",)), Globs(exclude=("*/001.glb", "*/0x1.glb"))
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        assert sim.mirror(tmp_path / "one", globs=some).error is None
        for globs, count in ((some, 0), (more, 1)):
            run = sim.mirror(
                tmp_path / f"copy{count}", source_mirror=tmp_path / "one", selector=Selector(), globs=globs
            )
            assert run.error is None
            assert len(run.warnings) == count
