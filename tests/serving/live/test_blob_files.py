"""Files as the server sends them: pins of cached files end once, and ranges are exact."""

from __future__ import annotations

from tests.support.live_exports import FakeContainer, make_context, make_files, read, run
from tilesync.model.storage import ObjectHeaders
from tilesync.serving.live.blob_files import PIECE_BYTES, BytesFile
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
        large = BytesFile(FileFacts(600_000, '"e"', ObjectHeaders("text/plain")), bytes(range(250)) * 2400)
        assert large.body is None
        assert await read(large, 1, 599_999) == (bytes(range(250)) * 2400)[1:599_999]
        assert max([len(piece) async for piece in large.chunks(0, 600_000)]) == PIECE_BYTES

    run(work)
