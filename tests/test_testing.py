"""Test `tilesync.testing`, as a test of a user's own pipeline would use it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import tilesync as ts
from tests.support.builders import export as build_files
from tests.support.builders import read_tree
from tilesync.testing import FakeService

pytestmark = pytest.mark.e2e
"""Each test runs whole mirrors."""

FILES = build_files()
SECOND = timedelta(seconds=1)


@pytest.fixture
def service() -> Iterator[FakeService]:
    """Start a fake service."""
    with FakeService() as started:
        yield started


@pytest.mark.scale
def test_a_mirror_of_the_default_city(service: FakeService, tmp_path: Path) -> None:
    """Without files, an export is a small city; the next one differs in a few of its files."""
    first = service.add_export()
    result = ts.mirror(first.imodel, tmp_path, **service.options())
    assert (result.published, result.version, result.stats.fetched) == (True, first.id, len(first.files))
    assert read_tree(tmp_path / "versions" / first.id) == first.files
    second = service.add_export(status="InProgress")
    waiting = ts.mirror(first.imodel, tmp_path, **service.options())
    assert (waiting.published, waiting.behind, waiting.newest) == (False, True, second.id)
    second.set_status("Complete")
    after = ts.mirror(first.imodel, tmp_path, **service.options())
    assert (after.published, after.behind, after.version) == (True, False, second.id)
    assert 0 < after.stats.fetched < after.stats.reused


def test_files_from_memory_and_from_a_folder(service: FakeService, tmp_path: Path) -> None:
    """An export takes its files from a mapping or a folder; iModel, changeset and type are as given."""
    folder, imodel = tmp_path / "files", "99999999-2222-3333-4444-555555555555"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    exports = [
        service.add_export(FILES, changeset="c0ffee"),
        service.add_export(folder, imodel=imodel),
        service.add_export(str(folder), export_type="CESIUM"),
    ]
    assert [export.files for export in exports] == [FILES, FILES, FILES]
    listed = ts.exports(**service.options())
    assert [(each.id, each.imodel, each.changeset, each.type) for each in reversed(listed.exports)] == [
        (exports[0].id, exports[0].imodel, "c0ffee", "3DTiles"),
        (exports[1].id, imodel, exports[1].changeset, "3DTiles"),
        (exports[2].id, exports[0].imodel, exports[2].changeset, "CESIUM"),
    ]
    assert ts.mirror(imodel, tmp_path / "d", **service.options()).export == exports[1].id
    with pytest.raises(NotADirectoryError):
        service.add_export(tmp_path / "none")


@pytest.mark.scale
def test_every_function_that_asks_the_service(service: FakeService, tmp_path: Path) -> None:
    """Plan, link, doctor, a container link as source, and a program all reach the service."""
    export = service.add_export(FILES)
    assert len(ts.plan(export.imodel, tmp_path / "d", **service.options()).actions) == len(FILES)
    assert ts.viewer_link(export.imodel, **service.options()).url.startswith(service.url)
    assert ts.doctor(source=export.imodel, **service.options()).ok
    assert ts.mirror(export.create_link(), tmp_path / "l").published
    command = [sys.executable, "-m", "tilesync", "mirror", export.imodel, str(tmp_path / "p")]
    environ = {**os.environ, "TILESYNC_TOKEN_FILE": "/none", **service.environ()}
    assert subprocess.run(command, env=environ, check=False).returncode == 0


def test_faults_that_are_retried(service: FakeService, tmp_path: Path) -> None:
    """Busy responses and a broken body delay a mirror; `requests` tells how often it asked."""
    export = service.add_export(FILES)
    service.fail_next(429, on="api", retry_after=timedelta())
    service.fail_next(503, on="listing")
    service.fail_next(500, name="tiles/00?.glb", times=2)
    service.break_next(name="schema.json")
    service.delay_next(0.2 * SECOND, on="file")
    result = ts.mirror(export.imodel, tmp_path, **service.options())
    assert (result.published, result.stats.failed, result.stats.fetched) == (True, 0, len(FILES))
    kinds = Counter(request.kind for request in service.requests)
    assert (kinds["api"], kinds["listing"]) == (2, 2)
    asked = [request for request in service.requests if request.name == "data/schema.json"]
    assert [each.export for each in asked] == [export.id] * 2


def test_a_link_that_expires_on_the_way(tmp_path: Path) -> None:
    """Where links end during a mirror, the mirror gets fresh ones."""
    with FakeService() as service:
        export = service.add_export(FILES)

        def expire(event: ts.events.Event) -> None:
            if isinstance(event, ts.events.PageListed):
                service.expire_links()

        result = ts.mirror(export.imodel, tmp_path, on_event=expire, **service.options())
    assert (result.published, result.stats.renewals) == (True, 1)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (lambda service: service.fail_next(503, on="api", times=None), ts.errors.Unavailable),
        (lambda service: service.fail_next(404, name="tiles/001.glb", times=None), ts.errors.Incomplete),
        (lambda service: service.fail_next(422, on="api"), ts.errors.InvalidRequest),
        (lambda service: service.refuse_identity(), ts.errors.NotAuthorised),
        (lambda service: service.refuse_identity(403), ts.errors.NotAuthorised),
        (lambda service: service.delay_next(60 * SECOND, on="api", times=None), asyncio.TimeoutError),
    ],
)
def test_faults_that_end_a_mirror(
    service: FakeService, tmp_path: Path, fault: Callable[[FakeService], None], error: type[Exception]
) -> None:
    """A lasting fault raises the documented error; without the fault, the next run succeeds."""
    export = service.add_export(FILES)
    fault(service)

    async def run() -> ts.MirrorResult:
        async with asyncio.timeout(10 if error is not TimeoutError else 1):
            return await ts.aio.mirror(export.imodel, tmp_path, retry_for=SECOND, **service.options())

    with pytest.raises(error):
        asyncio.run(run())
    service.clear_faults()
    assert asyncio.run(run()).published


def test_an_export_that_is_deleted_or_replaced_on_the_way(service: FakeService, tmp_path: Path) -> None:
    """Deleting an export during its mirror raises ExportReplaced; a regenerated one becomes another version."""
    export = service.add_export(FILES)

    def delete(event: ts.events.Event) -> None:
        if isinstance(event, ts.events.VersionChosen):
            export.delete()

    with pytest.raises(ts.errors.ExportReplaced):
        ts.mirror(export.imodel, tmp_path, on_event=delete, **service.options())
    again = service.add_export(FILES)
    assert ts.mirror(again.imodel, tmp_path, **service.options()).version == again.id
    again.replace_files({**FILES, "data/schema.json": b'{"id":"other"}'})
    assert ts.mirror(again.imodel, tmp_path, **service.options()).version == f"{again.id}-2"


def test_an_unused_fault_fails_the_test() -> None:
    """Leaving the block names faults that no request met, but does not hide another error."""
    with pytest.raises(AssertionError, match=r"no request met fail_next\(503\) for \*\.glbx"), FakeService() as service:
        service.fail_next(name="*.glbx")

    def test_with_a_mistake() -> None:
        """A test of a user."""
        with FakeService() as service:
            service.fail_next(on="api")
            service.fail_next(200)

    with pytest.raises(ValueError, match="200 is no error status"):
        test_with_a_mistake()


def test_two_services_at_once(tmp_path: Path) -> None:
    """Services are independent, in threads and in a running event loop."""
    with FakeService() as one, FakeService() as other:
        exports = {one: one.add_export(FILES), other: other.add_export(build_files(5, seed=1))}

        def mirror(service: FakeService) -> int:
            dest = tmp_path / f"t{urlsplit(service.url).port}"
            return ts.mirror(exports[service].imodel, dest, **service.options()).stats.fetched

        async def gather() -> list[ts.MirrorResult]:
            runs = (
                ts.aio.mirror(export.imodel, tmp_path / f"a{urlsplit(service.url).port}", **service.options())
                for service, export in exports.items()
            )
            return await asyncio.gather(*runs)

        sizes = [len(export.files) for export in exports.values()]
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(mirror, exports)) == sizes
        assert [result.stats.fetched for result in asyncio.run(gather())] == sizes
        assert {request.export for request in one.requests} == {"", exports[one].id}


def test_it_starts_and_stops_inside_a_running_loop(tmp_path: Path) -> None:
    """A coroutine can use the service in a plain `with` block."""

    async def work() -> bool:
        with FakeService() as service:
            export = service.add_export(FILES)
            return (await ts.aio.mirror(export.imodel, tmp_path, **service.options())).published

    assert asyncio.run(work())


def test_nothing_is_left_running(tmp_path: Path) -> None:
    """After the block its port is closed, and threads and connections are gone, even those that wait for a response."""
    threads = set(threading.enumerate())
    environment = dict(os.environ)
    with FakeService(latency=timedelta(milliseconds=1)) as service:
        address = ("127.0.0.1", urlsplit(service.url).port or 0)
        export = service.add_export(FILES)
        assert ts.mirror(export.imodel, tmp_path, **service.options()).published
        service.delay_next(3600 * SECOND, on="api")
        waiting, idle = socket.create_connection(address), socket.create_connection(address)
        waiting.sendall(b"GET /mesh-export/ HTTP/1.1\r\nHost: x\r\n\r\n")
        while service.requests[-1].headers.get("host") != "x":
            time.sleep(0.01)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    with waiting, idle:
        idle.settimeout(5)
        assert idle.recv(1) == b""
    assert set(threading.enumerate()) - threads == set()
    assert dict(os.environ) == environment
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_a_proxy_for_loopback_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment sends requests for 127.0.0.1 to a proxy, the service says so, instead of a late failure."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(ts.errors.UsageError, match="http_proxy sends"), FakeService():
        pass
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with FakeService() as service:
        assert service.url.startswith("http://127.0.0.1:")
