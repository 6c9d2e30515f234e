"""Download of one blob: damaged, missing and broken bodies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import export, glb, make_stored_blobs, md5_base64, read_tree, tileset
from tests.support.faults import (
    blob_name,
    call_before,
    delay,
    error_response,
    flip_last_bit,
    halve_body,
    ignore_range,
    is_blob,
    is_blob_named,
    is_range_request,
    redirect,
    truncate_body,
)
from tests.support.simulator import EXPORT, Simulator, read_version
from tilesync.core import backoff
from tilesync.demo.loopback_server import FakeRequest, FakeResponse
from tilesync.errors import (
    DiskFull,
    Incomplete,
)
from tilesync.events import (
    FileFailed,
    Retried,
)
from tilesync.jobs.transfer.download import SPILL_BYTES, Download
from tilesync.model import FileStamp
from tilesync.stores.local import draft, put_target
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import write_at, write_new
from tilesync.transport.blob_client import LARGE_READ_BYTES


def test_damaged_bytes_publish_nothing(tmp_path: Path) -> None:
    """The same wrong MD5 twice with equal bytes: its own message, exit 3; the other files are kept for the next run."""
    with Simulator() as sim:
        files = sim.offer_export()
        fault = sim.add_fault(is_blob_named("tiles/002.glb"), flip_last_bit, times=None)
        run = sim.mirror(tmp_path)
        assert fault.hits == 2
        assert isinstance(run.error, Incomplete)
        (failure,) = run.events_of(FileFailed)
        assert (failure.name, failure.error) == ("tiles/002.glb", "BlobDamaged")
        assert "the same bytes came twice" in failure.message
        assert (run.stats.failed, run.stats.fetched) == (1, len(files) - 1)
        assert not (tmp_path / "tileset.json").exists()
        assert not (tmp_path / "versions" / EXPORT / "tiles/002.glb").exists()
        fault.times = 0
        sim.clear_requests()
        again = sim.mirror(tmp_path)
        assert [blob_name(r) for r in sim.blob_requests()] == ["tiles/002.glb"]
    assert again.exit_code == 0
    assert (again.stats.fetched, again.stats.kept) == (1, len(files) - 1)
    assert read_version(tmp_path) == files


def test_bytes_damaged_once_are_fetched_again(tmp_path: Path) -> None:
    """A wrong MD5 once: fetched again, correct, published."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named("tiles/002.glb"), flip_last_bit)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert read_version(tmp_path) == files
    assert len(run.events_of(Retried)) == 1


def test_a_listed_blob_that_is_missing_fails_alone(tmp_path: Path) -> None:
    """404 BlobNotFound: that file failed, all others are stored, exit 3."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named("tiles/007.glb"), error_response(404, "BlobNotFound"))
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert [failure.error for failure in run.events_of(FileFailed)] == ["BlobMissing"]
    assert len(read_version(tmp_path)) == len(files) - 1


def test_all_failures_are_counted_and_named(tmp_path: Path) -> None:
    """Every failed file is reported, and the counts add up."""
    names = ("tiles/001.glb", "tiles/004.glb", "data/empty")
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named(*names), error_response(404, "BlobNotFound"), times=3)
        run = sim.mirror(tmp_path)
    assert {failure.name for failure in run.events_of(FileFailed)} == set(names)
    stats = run.stats
    assert stats.listed == stats.fetched + stats.reused + stats.kept + stats.excluded + stats.failed == len(files)


def test_an_invalid_glb_is_not_published(tmp_path: Path) -> None:
    """Bytes that match their MD5, but are no GLB though a tile references them as .glb: exit 3."""
    with Simulator() as sim:
        sim.offer_export(
            {**export(), "tiles/tileset.json": tileset("bad.glb"), "tiles/bad.glb": b"<html>not found</html>"}
        )
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert "tiles/bad.glb" in run.events_of(FileFailed)[0].message


def test_a_disk_that_fills_up_ends_with_8_and_is_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC during the run: exit 8; files placed before are not fetched again."""
    write_one, written = write_new, [0]

    def full(*args: Any) -> FileStamp | None:
        written[0] += 1
        if written[0] > 6:
            raise OSError(28, "No space left on device")
        return write_one(*args)

    monkeypatch.setattr(put_target, "write_new", full)
    with Simulator() as sim:
        files = sim.offer_export()
        run = sim.mirror(tmp_path, transfers=1)
        assert isinstance(run.error, DiskFull)
        monkeypatch.undo()
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.blob_requests()) <= len(files) - 6
    assert read_version(tmp_path) == files


def test_a_md5_that_matches_keeps_a_file_whose_etag_changed(tmp_path: Path) -> None:
    """A file uploaded again with the same bytes is kept by its MD5 when the run plans again."""
    with Simulator() as sim:
        files = sim.offer_export()
        second = make_stored_blobs(files)
        for name, item in second.items():
            item.etag = f"0xNEW{abs(hash(name)):x}"
        sim.run_before_request(10, is_blob, lambda: sim.containers.update({EXPORT: second}))
        run = sim.mirror(tmp_path, transfers=1)
        assert len(sim.blob_requests()) == len(files) + 1
    assert run.exit_code == 0
    assert read_version(tmp_path) == files
    assert md5_base64(files["tileset.json"]) == second["tileset.json"].md5


def test_ranges_are_requested_only_for_partial_files(tmp_path: Path) -> None:
    """No Range at offset 0: a run without broken bodies sends no range."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        assert not [request for request in sim.requests if is_range_request(request)]


BIG = "tiles/big.glb"


def big(size: int = 3_000_000) -> dict[str, bytes]:
    return {**export(3), BIG: glb(random.Random(1).randbytes(size))}


def test_a_cut_body_is_resumed_at_the_byte_where_it_broke(tmp_path: Path) -> None:
    """The second request for a broken body asks for exactly the missing bytes."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(1_234_567))
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None, "bytes=1234567-"]
    assert run.exit_code == 0
    assert read_version(tmp_path) == files
    assert run.stats.transferred_bytes == sum(map(len, files.values()))


def test_a_body_that_breaks_often_is_resumed_each_time(tmp_path: Path) -> None:
    """Every request continues where the last one ended; progress renews the whole retry budget."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(600_000), times=4)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=3))
        assert sim.range_headers(BIG) == [None, *(f"bytes={600_000 * n}-" for n in range(1, 5))]
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


def test_each_ranged_request_is_conditional(tmp_path: Path) -> None:
    """Every GET of a blob has If-Match with the listed ETag, and Accept-Encoding identity."""
    with Simulator() as sim:
        sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(500_000))
        sim.mirror(tmp_path)
        for request in sim.blob_requests():
            name = request.path.partition(f"/{EXPORT}/")[2]
            assert request.headers["if-match"].startswith('"0x8D'), name
            assert request.headers["accept-encoding"] == "identity"
        assert len({r.headers["if-match"] for r in sim.blob_requests(BIG)}) == 1


def test_a_body_that_broke_is_resumed_by_the_next_run(tmp_path: Path) -> None:
    """The run ended with half a file: the next one requests only the other half."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        fault = sim.add_fault(is_blob_named(BIG), truncate_body(2_000_000))
        dead = sim.add_fault(is_blob_named(BIG), error_response(500, "InternalError"), times=None)
        first = sim.mirror(tmp_path, retry_for=timedelta(seconds=0.3))
        assert first.exit_code in {3, 6}
        assert fault.hits == 1
        dead.times = 0
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == ["bytes=2000000-"]
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


def test_a_part_of_another_etag_is_never_resumed(tmp_path: Path) -> None:
    """The blob changed between the runs: its part is dropped, the whole new blob is fetched."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(2_000_000))
        dead = sim.add_fault(is_blob_named(BIG), error_response(500, "InternalError"), times=None)
        sim.mirror(tmp_path, retry_for=timedelta(seconds=0.3))
        dead.times = 0
        files[BIG] = glb(random.Random(2).randbytes(3_000_000))
        sim.regenerate(files)
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None]
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


def test_an_ignored_range_starts_over(tmp_path: Path) -> None:
    """200 to a Range: the whole body is used from its first byte, and the file is correct."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(700_000))
        sim.add_fault(lambda r: is_blob_named(BIG)(r) and "range" in r.headers, ignore_range, times=None)
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None, "bytes=700000-"]
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


def test_a_refused_range_starts_over(tmp_path: Path) -> None:
    """416 to a Range: the received bytes are dropped, and the next request asks for the whole blob."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(700_000))
        sim.add_fault(lambda r: is_blob_named(BIG)(r) and "range" in r.headers, error_response(416, "InvalidRange"))
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None, "bytes=700000-", None]
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


def test_a_wrong_content_range_starts_over(tmp_path: Path) -> None:
    """206 with another Content-Range: its bytes are not used."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(700_000))

        def shifted(_: Any, proceed: Callable[[], Any]) -> Any:
            answer = proceed()
            answer.headers["Content-Range"] = "bytes 5-10/11"
            return answer

        sim.add_fault(lambda r: is_blob_named(BIG)(r) and "range" in r.headers, shifted)
        assert sim.mirror(tmp_path).exit_code == 0
        assert sim.range_headers(BIG)[-1] is None
    assert read_version(tmp_path) == files


def test_a_short_body_is_fetched_again(tmp_path: Path) -> None:
    """Half a body with a matching Content-Length: not placed, fetched again from the start."""
    with Simulator() as sim:
        files = sim.offer_export(md5=False)
        sim.add_fault(is_blob_named("tiles/001.glb"), halve_body)
        sim.add_fault(is_blob_named("data/schema.json"), halve_body)
        run = sim.mirror(tmp_path)
        assert len(sim.blob_requests()) == len(files) + 2
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


def test_a_body_that_is_longer_than_listed_fails_without_md5(tmp_path: Path) -> None:
    """More bytes than listed, twice the same: that file failed, exit 3."""
    with Simulator() as sim:
        sim.offer_export(md5=False)

        def longer(_: Any, proceed: Callable[[], Any]) -> Any:
            answer = proceed()
            answer.body += b"more"
            return answer

        sim.add_fault(is_blob_named("data/schema.json"), longer, times=None)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert [failure.error for failure in run.events_of(FileFailed)] == ["BlobDamaged"]
    assert "data/schema.json" not in read_version(tmp_path)


def test_wrong_bytes_in_a_resumed_body_are_found(tmp_path: Path) -> None:
    """The MD5 covers all bytes of a resumed body, including those of the first piece."""
    with Simulator() as sim:
        files = sim.offer_export(big())

        def broken(request: Any, proceed: Callable[[], Any]) -> Any:
            answer = truncate_body(700_000)(request, proceed)
            answer.body = answer.body[:9999] + b"XXXX" + answer.body[10003:]
            return answer

        sim.add_fault(is_blob_named(BIG), broken)
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None, "bytes=700000-", None]
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


def test_bytes_damaged_differently_each_time_fail(tmp_path: Path) -> None:
    """Different damage at each fetch: the file fails after four, exit 3, and the message says so."""
    with Simulator() as sim:
        sim.offer_export()
        turn = [0]

        def noise(_: Any, proceed: Callable[[], Any]) -> Any:
            answer = proceed()
            turn[0] += 1
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ turn[0]])
            return answer

        fault = sim.add_fault(is_blob_named("tiles/002.glb"), noise, times=None)
        run = sim.mirror(tmp_path)
    assert fault.hits == 4
    assert run.exit_code == 3
    assert "different bytes each time" in run.events_of(FileFailed)[0].message


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """The signature is sent only to its container: a redirect fails the file and is not requested."""
    with Simulator() as sim, Simulator() as other:
        sim.offer_export()
        sim.add_fault(is_blob_named("tiles/004.glb"), redirect(f"{other.url}/elsewhere"), times=None)
        run = sim.mirror(tmp_path)
        assert other.requests == []
    assert run.exit_code == 3


def test_a_silent_body_times_out_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that sends nothing within the read timeout is requested again."""
    from tilesync.transport import blob_client

    monkeypatch.setattr(blob_client, "BLOB_READ_TIMEOUT", timedelta(seconds=0.4))
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named("tiles/004.glb"), delay(1.2))
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert read_version(tmp_path) == files
    assert len(run.events_of(Retried)) == 1


def test_a_trickling_body_fails_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes in each attempt are no progress that renews the budget."""
    monkeypatch.setattr(backoff, "PROGRESS_WINDOW", timedelta(seconds=0.2))

    def trickle(request: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        time.sleep(0.3)
        return truncate_body(40)(request, proceed)

    with Simulator() as sim:
        sim.offer_export({**export(3), BIG: glb(bytes(4000))})
        sim.add_fault(is_blob_named(BIG), trickle, times=None)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=2))
        assert 1 < len(sim.range_headers(BIG)) < 20
    assert run.exit_code == 3
    assert [failure.error for failure in run.events_of(FileFailed)] == ["BlobUnreachable"]


def test_an_incomplete_file_never_has_its_final_name(tmp_path: Path) -> None:
    """While a body arrives, no file has its final name."""
    with Simulator() as sim:
        sim.offer_export(big())
        seen: list[bool] = []
        final = tmp_path / "versions" / EXPORT / BIG
        sim.add_fault(is_blob_named(BIG), truncate_body(1_500_000))
        sim.add_fault(is_blob_named(BIG), call_before(lambda: seen.append(final.exists())))
        sim.mirror(tmp_path)
    assert seen == [False]
    assert final.exists()


def test_a_slow_disk_limits_buffered_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If bytes arrive faster than the disk writes, each transfer buffers only a piece or two in memory."""
    add, write, fetches, most = Download._add, write_at, set[Download](), [0]

    def watched(self: Download, chunk: bytes) -> None:
        add(self, chunk)
        fetches.add(self)
        most[0] = max(most[0], sum(each._received - each._spilled for each in fetches if each._draft is not None))

    def slow(part: Entry, offset: int, data: bytes) -> None:
        time.sleep(0.02)
        write(part, offset, data)

    monkeypatch.setattr(Download, "_add", watched)
    monkeypatch.setattr(draft, "write_at", slow)
    with Simulator() as sim:
        files = sim.offer_export({**export(3), **{f"tiles/large-{n}.bin": bytes([n]) * 12_000_000 for n in range(8)}})
        assert sim.mirror(tmp_path, transfers=4).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert 0 < most[0] <= 4 * (SPILL_BYTES + 2 * LARGE_READ_BYTES)


def test_a_small_body_that_breaks_is_resumed(tmp_path: Path) -> None:
    """A body read with one call is lost with the break; after it the body is streamed, and resumed where it broke."""
    with Simulator() as sim:
        files = sim.offer_export({**export(3), "tiles/small.bin": bytes(200_000)})
        sim.add_fault(is_blob_named("tiles/small.bin"), truncate_body(150_000), times=None)
        assert sim.mirror(tmp_path).exit_code == 0
        assert sim.range_headers("tiles/small.bin") == [None, None, "bytes=150000-"]
    assert read_tree(tmp_path / "versions" / EXPORT) == files
