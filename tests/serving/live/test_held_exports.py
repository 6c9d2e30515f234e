"""Exports that are open: names, order, and the end of the previous ones."""

from __future__ import annotations

import pytest

from tests.support.live_exports import FakeContainer, make_context, make_files, make_resolution, run
from tilesync.errors import ExportReplaced
from tilesync.model import Export
from tilesync.serving.live.held_exports import HELD_FOR_S, HeldExport, HeldExports


def hold(exports: HeldExports, export: Export, now_s: float) -> HeldExport:
    files = make_files(FakeContainer({}), make_context(), version=export.id)
    held = HeldExport(exports.next_name(export), export, files, container_url="")
    exports.switch_to(held, now_s)
    return held


def test_previous_exports_are_held() -> None:
    """The previous exports stay for HELD_FOR_S, the last replaced first; then their names are gone for good."""

    async def work() -> None:
        exports = HeldExports()
        for number in range(3):
            hold(exports, make_resolution(f"e{number}").export, number * 1000.0)
        assert [held.name for held in exports] == ["e2", "e1", "e0"]
        await exports.retire_old(HELD_FOR_S + 1000)
        assert [held.name for held in exports] == ["e2", "e1"]
        with pytest.raises(ExportReplaced):
            exports.find("e0")
        assert exports.find("never") is None
        assert exports.next_name(make_resolution("e0").export) == "e0-2"

    run(work)


def test_return_to_an_older_export() -> None:
    """An export that becomes the current one again is no longer about to be retired."""

    async def work() -> None:
        exports = HeldExports()
        first = hold(exports, make_resolution("e0").export, 0)
        hold(exports, make_resolution("e1").export, 10)
        assert exports.find_export(first.export) is first
        exports.switch_to(first, 20)
        await exports.retire_old(10 * HELD_FOR_S)
        assert [held.name for held in exports] == ["e0"]

    run(work)


def test_same_export_generated_again() -> None:
    """An export of the same id with another time is another one, and so is one that is gone."""
    exports = HeldExports()

    async def work() -> None:
        held = hold(exports, make_resolution("e0", modified="1").export, 0)
        assert exports.find_export(make_resolution("e0", modified="2").export) is None
        held.files.replaced = ExportReplaced("gone")
        assert exports.find_export(held.export) is None

    run(work)
