"""Verify a container and a bucket end to end, with worker processes that read their files."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.azure_proxy import AzureFixture
from tests.support.azurite import ACCOUNT
from tests.support.builders import export
from tests.support.s3 import BucketFixture, BucketServer
from tests.support.simulator import EXPORT, Simulator
from tests.support.worker_processes import wait_for_slow_batches
from tilesync import aio
from tilesync.api.results import AuditResult
from tilesync.app.workers import PoolWorkers
from tilesync.events import Finding
from tilesync.jobs import verify
from tilesync.jobs.versions.file_check import FileVerifier
from tilesync.model import FileResult, StoredFile, Version

FILES = export(60)


@pytest.fixture
def from_workers(monkeypatch: pytest.MonkeyPatch) -> list[Finding | FileResult | None]:
    """Start workers for few files too, and wait for them; return the list that their results are added to."""
    results: list[Finding | FileResult | None] = []
    verify_files, verify_batch = FileVerifier.verify_files, PoolWorkers.verify_batch

    async def wait_and_verify(
        self: FileVerifier, version: Version, files: Sequence[StoredFile]
    ) -> dict[str, Finding | FileResult]:
        assert self._starting is not None
        await asyncio.wait([self._starting])
        return await verify_files(self, version, files)

    async def record_results(
        self: PoolWorkers, version: Version, files: Sequence[StoredFile]
    ) -> Sequence[Finding | FileResult | None]:
        batch = await verify_batch(self, version, files)
        results.extend(batch)
        return batch

    wait_for_slow_batches(monkeypatch)
    monkeypatch.setattr(verify, "MIN_FILES_FOR_WORKERS", 2)
    monkeypatch.setattr(FileVerifier, "verify_files", wait_and_verify)
    monkeypatch.setattr(PoolWorkers, "verify_batch", record_results)
    return results


@pytest.fixture
def mirrored(azure_store: AzureFixture, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> AzureFixture:
    """Mirror an export into a container, which this process can reach."""
    sim.offer_export(FILES)
    assert azure_store.mirror(sim).exit_code == 0
    azure_store.clear_requests()
    for name, value in azure_store.env.items():
        monkeypatch.setenv(name, value)
    return azure_store


def audit(store: AzureFixture) -> AuditResult:
    return asyncio.run(aio.verify(store.destination_url, azure_endpoint=f"{store.proxy.url}/{ACCOUNT}"))


def test_workers_read_each_file_once(mirrored: AzureFixture, from_workers: list[Finding | FileResult | None]) -> None:
    """An intact container is verified by workers alone, with one request for each file."""
    assert audit(mirrored).ok
    found = [each.stored.blob.name for each in from_workers if isinstance(each, FileResult)]
    assert sorted(found) == sorted(FILES)
    read = Counter(each.blob for each in mirrored.proxy.requests if "/tiles/" in each.blob)
    assert read == Counter(f"versions/{EXPORT}/{name}" for name in FILES if name.startswith("tiles/"))


def test_workers_read_a_bucket_too(
    bucket_server: BucketServer,
    tmp_path: Path,
    sim: Simulator,
    from_workers: list[Finding | FileResult | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An intact bucket is verified by workers alone."""
    sim.offer_export(FILES)
    place = BucketFixture(bucket_server, tmp_path / "state")
    assert place.mirror(sim).exit_code == 0
    for name, value in place.env.items():
        monkeypatch.setenv(name, value)
    assert asyncio.run(aio.verify(place.url, endpoint_url=bucket_server.url)).ok
    found = [each.stored.blob.name for each in from_workers if isinstance(each, FileResult)]
    assert sorted(found) == sorted(FILES)


def test_what_workers_do_not_accept_is_checked_again(
    mirrored: AzureFixture, from_workers: list[Finding | FileResult | None]
) -> None:
    """A changed and a deleted file are findings, worded as without workers; all others are verified by workers."""
    lead = f"versions/{EXPORT}/tiles"
    mirrored.client.upload_blob(f"{lead}/003.glb", b"glTF no more", overwrite=True)
    mirrored.client.delete_blob(f"{lead}/004.glb")
    result = audit(mirrored)
    assert [(each.name, each.problem) for each in result.findings] == [
        ("tiles/003.glb", "size"),
        ("tiles/004.glb", "missing"),
    ]
    assert (from_workers.count(None), len(from_workers)) == (2, len(FILES))
