"""Exports that are open: names, order, and the end of the previous ones."""

from __future__ import annotations

import pytest

from tests.support.live_exports import FakeContainer, make_context, make_files, make_resolution, run
from tilesync.errors import ExportReplaced
from tilesync.model import Export
from tilesync.serving.live.open_exports import RETIRE_AFTER_S, OpenExport, OpenExports


def open_as_current(exports: OpenExports, export: Export, now_s: float) -> OpenExport:
    files = make_files(FakeContainer({}), make_context(), version=export.id)
    opened = OpenExport(exports.next_name(export), export, files, container_url="")
    exports.replace_current(opened, now_s)
    return opened


def test_previous_exports_stay_open() -> None:
    """The previous exports stay for RETIRE_AFTER_S, the last replaced first; then their names are gone for good."""

    async def work() -> None:
        exports = OpenExports()
        for number in range(3):
            open_as_current(exports, make_resolution(f"e{number}").export, number * 1000.0)
        assert [opened.name for opened in exports] == ["e2", "e1", "e0"]
        await exports.retire_old(RETIRE_AFTER_S + 1000)
        assert [opened.name for opened in exports] == ["e2", "e1"]
        with pytest.raises(ExportReplaced):
            exports.find("e0")
        assert exports.find("never") is None
        with pytest.raises(ExportReplaced):
            exports.resolve("e0")
        assert [exports.resolve(text).name for text in ("e1", "current")] == ["e1", "e2"]
        assert exports.next_name(make_resolution("e0").export) == "e0-2"

    run(work)


def test_return_to_an_older_export() -> None:
    """An export that becomes the current one again is no longer about to be retired."""

    async def work() -> None:
        exports = OpenExports()
        first = open_as_current(exports, make_resolution("e0").export, 0)
        open_as_current(exports, make_resolution("e1").export, 10)
        assert exports.find_export(first.export) is first
        exports.replace_current(first, 20)
        await exports.retire_old(10 * RETIRE_AFTER_S)
        assert [opened.name for opened in exports] == ["e0"]

    run(work)


def test_same_export_generated_again() -> None:
    """An export of the same id with another time is another one, and so is one that is gone."""
    exports = OpenExports()

    async def work() -> None:
        opened = open_as_current(exports, make_resolution("e0", modified="1").export, 0)
        assert exports.find_export(make_resolution("e0", modified="2").export) is None
        opened.files.replaced = ExportReplaced("gone")
        assert exports.find_export(opened.export) is None

    run(work)
