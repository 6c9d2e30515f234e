"""Files as the server sends them: pins of cached files end once, and ranges are exact."""

from __future__ import annotations

from tests.support.live_exports import FakeContainer, make_context, make_files, read, run
from tilesync.model.storage import ObjectHeaders
from tilesync.serving.live.blob_files import BytesFile
from tilesync.serving.tilesets import FileFacts


def test_pin_ends_once() -> None:
    """A file that is closed twice is unpinned once, so that another response still holds it."""

    async def work() -> None:
        context = make_context()
        files = make_files(FakeContainer({"a": b"0123456789"}), context)
        first, second = await files.open("a"), await files.open("a")
        await first.aclose()
        await first.aclose()
        assert not context.cache.reserve(context.cache.max_bytes - 100)
        await second.aclose()
        assert context.cache.reserve(context.cache.max_bytes)

    run(work)


def test_ranges() -> None:
    """A range of bytes at hand is exact."""

    async def work() -> None:
        file = BytesFile(FileFacts(10, '"e"', ObjectHeaders("text/plain")), b"0123456789")
        assert await read(file, 2, 5) == b"234"
        assert await read(file) == b"0123456789"

    run(work)
