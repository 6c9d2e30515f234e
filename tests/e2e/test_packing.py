"""Test packages end to end: from stores, of many and of huge files, and in the readers that others wrote."""

from __future__ import annotations

import hashlib
import io
import sqlite3
import struct
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.azure_proxy import AzureFixture
from tests.support.builders import IMODEL, export, referenced_export
from tests.support.commandline import run_tilesync
from tests.support.package_readers import open_zip, read_digests, read_package, run_reader
from tests.support.packages import ENDINGS
from tests.support.s3 import BucketFixture, BucketServer
from tests.support.simulator import EXPORT, Simulator
from tilesync.core.manifest import encode_line, make_header, make_line
from tilesync.jobs.pack.job import PackInputs, PackJob
from tilesync.jobs.run.stats import RunStats
from tilesync.model import Blob, ExportFacts, ListingState, StoredFile, Version, VersionSummary
from tilesync.protocols import ReadOnlyPublication, StoredFiles
from tilesync.stores.packages.formats import INDEX_ENTRY, MANIFEST_ENTRY, PackageFormat
from tilesync.stores.packages.writing import PackageOptions, open_package_writer
from tilesync.stores.packages.zip_records import ZipMethod
from tilesync.stores.packages.zip_writer import ZipWriter

READABLE = {name: data for name, data in referenced_export(40).items() if name.isascii()}
"""An export without the empty file and the name that 3d-tiles-tools cannot read."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mirror READABLE, and pack it in each format; return the folder of the packages. The tests only read it."""
    folder = tmp_path_factory.mktemp("packed")
    with Simulator() as sim:
        sim.offer_export(READABLE)
        assert run_tilesync("mirror", IMODEL, folder / "mirror", "--allow-missing", sim=sim).exit_code == 0
    for ending in ENDINGS:
        assert run_tilesync("pack", folder / "mirror", folder / f"a.{ending}").exit_code == 0
    return folder


def assert_readable(out: Path, reader: str) -> None:
    found = read_digests(reader, out, READABLE)
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in READABLE.items()}
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize("reader", ["3d-tiles-tools", "loaders.gl"])
@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_readers_of_3tz_read_every_file(packed: Path, reader: str, compression: str, tmp_path: Path) -> None:
    """3d-tiles-tools and loaders.gl find each file by the index, with its bytes, also if it is deflated."""
    out = tmp_path / "b.3tz"
    assert run_tilesync("pack", packed / "mirror", out, "--compress", compression).exit_code == 0
    assert_readable(out, reader)


def test_3d_tiles_tools_read_an_sqlite_package(packed: Path) -> None:
    """3d-tiles-tools accept the table of a .3dtiles file, and find each file by its key, with its bytes."""
    assert_readable(packed / "a.3dtiles", "3d-tiles-tools")


@pytest.mark.parametrize("ending", ["3tz", "zip"])
def test_python_reads_zstandard(packed: Path, ending: str, tmp_path: Path) -> None:
    """Python 3.14 reads entries that are compressed with Zstandard, and finds no wrong CRC-32."""
    out = tmp_path / f"b.{ending}"
    assert run_tilesync("pack", packed / "mirror", out, "--compress", "zstd").exit_code == 0
    with open_zip(out) as package:
        assert package.testzip() is None
        methods = {name: package.getinfo(name).compress_type for name in READABLE}
    assert ZipMethod.ZSTANDARD in methods.values()
    entries = read_package(out)
    assert {name: entries[name] for name in READABLE} == READABLE


def test_programs_of_the_system_read_packages(packed: Path) -> None:
    """`unzip -t`, `tar t` and `sqlite3` find no error, and list the same names in the same order."""
    names = [MANIFEST_ENTRY, "tileset.json", *sorted(READABLE.keys() - {"tileset.json"})]
    for ending in ("zip", "3tz"):
        assert "No errors detected" in run_reader("unzip", "-t", packed / f"a.{ending}")
        listed = run_reader("unzip", "-Z1", packed / f"a.{ending}").splitlines()
        assert listed == names + ([INDEX_ENTRY] if ending == "3tz" else [])
    assert run_reader("tar", "tf", packed / "a.tar").splitlines() == names
    query = "PRAGMA integrity_check; SELECT key FROM media ORDER BY rowid"
    assert run_reader("sqlite3", packed / "a.3dtiles", query).splitlines() == ["ok", *names]


def test_unpacked_packages_are_the_version(packed: Path, tmp_path: Path) -> None:
    """Unpacked by `unzip` and `tar`, a package is the folder of the version, and its files can be read by all."""
    for program, *arguments in (
        ["unzip", "-q", packed / "a.zip", "-d", tmp_path / "zip"],
        ["tar", "xf", packed / "a.tar", "-C", tmp_path / "tar"],
    ):
        folder = tmp_path / str(program if program == "tar" else "zip")
        folder.mkdir()
        run_reader(str(program), *arguments)
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        del found[MANIFEST_ENTRY]
        assert {name: path.read_bytes() for name, path in found.items()} == READABLE
        assert {path.stat().st_mode & 0o444 for path in found.values()} == {0o444}


def test_bucket_is_packed(bucket_server: BucketServer, sim: Simulator, tmp_path: Path) -> None:
    """A version in a bucket gives a package with its manifest and its files; a lost object is a finding."""
    bucket = BucketFixture(bucket_server, tmp_path / "state")
    files = sim.offer_export(export(40))
    assert bucket.mirror(sim).exit_code == 0
    assert run_tilesync("pack", bucket.url, tmp_path / "a.zip", sim=None, **bucket.env).exit_code == 0
    entries = read_package(tmp_path / "a.zip")
    assert entries.pop(MANIFEST_ENTRY) == bucket.read(f"manifests/{EXPORT}.jsonl")
    assert entries == files
    bucket.server.client.delete_object(Bucket=bucket.name, Key=f"{bucket.prefix}versions/{EXPORT}/tiles/003.glb")
    failed = run_tilesync("pack", bucket.url, tmp_path / "b.3tz", "--json", sim=None, **bucket.env)
    assert failed.assert_failed(3, "PackFailed")["failed"] == 1
    assert not (tmp_path / "b.3tz").exists()


def test_container_is_packed(azure_store: AzureFixture, sim: Simulator, tmp_path: Path) -> None:
    """A version in an Azure container gives the same entries."""
    files = sim.offer_export(export(40))
    assert azure_store.mirror(sim).exit_code == 0
    assert azure_store.run("pack", azure_store.destination_url, str(tmp_path / "a.3tz")).exit_code == 0
    entries = read_package(tmp_path / "a.3tz")
    del entries[MANIFEST_ENTRY], entries[INDEX_ENTRY]
    assert entries == files


# --- many files, and huge ones ---


class GeneratedVersion:
    """Destination with one version, whose files are made from their names when they are read."""

    parallel_reads = 1

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes

    def manifest_names(self) -> list[str]:
        return ["v"]

    def latest(self) -> dict[str, Any]:
        return {"version": "v"}

    def manifest_chunks(self, version: str) -> Iterator[bytes]:
        summary = VersionSummary("2026-03-02T08:30:00Z", len(self.sizes), sum(self.sizes.values()))
        facts = ExportFacts("i", "c", "2026-03-01T08:30:00Z", {"id": "v"})
        yield encode_line(make_header(Version(0, "v", "v", facts, ListingState(is_complete=True), summary=summary)))
        for name, size in self.sizes.items():
            digest = hashlib.sha256()
            for chunk in self.chunks(None, name):
                digest.update(chunk)
            yield encode_line(make_line(StoredFile(Blob(name, size, "e"), digest.digest(), 0)))

    def chunks(self, version: object, name: str) -> Iterator[bytes]:
        size = self.sizes[name]
        whole, rest = divmod(size, 1 << 20)
        yield from (ZEROS for _ in range(whole))
        yield (name.encode() * (rest // len(name) + 1))[:rest]


ZEROS = bytes(1 << 20)


def pack_generated(source: GeneratedVersion, out: Path) -> None:
    options = PackageOptions(out, PackageFormat(out.suffix[1:]))
    with open_package_writer(options) as (output, writer), output.open_spool() as manifest_file:
        files, publication = cast(StoredFiles, source), cast(ReadOnlyPublication, source)
        inputs = PackInputs(files, publication, writer, output.check_space, manifest_file)
        PackJob(inputs, lambda event: None, RunStats()).run("v")
        output.commit()


@pytest.mark.scale
def test_more_files_than_a_zip_directory_counts(tmp_path: Path) -> None:
    """More than 65,535 entries need a Zip64 end record: zipfile and unzip count and read all of them."""
    sizes = {"tileset.json": 2} | {f"tiles/{number:06d}.glb": 20 + number % 50 for number in range(66_000)}
    out = tmp_path / "a.3tz"
    pack_generated(GeneratedVersion(sizes), out)
    with zipfile.ZipFile(out) as package:
        assert len(package.infolist()) == len(sizes) + 2
        assert {name: package.getinfo(name).file_size for name in sizes} == sizes
        records = list(struct.iter_unpack("<QQQ", package.read(INDEX_ENTRY)))
        last_offset = package.getinfo("tiles/065999.glb").header_offset
    assert "No errors detected" in run_reader("unzip", "-tq", out)
    assert records == sorted(records)
    offsets = {struct.pack("<QQ", *record[:2]): record[2] for record in records}
    assert offsets[hashlib.md5(b"tiles/065999.glb").digest()] == last_offset


class SparseWriter(io.FileIO):
    """File that skips zeros instead of writing them, so that a huge package needs little space."""

    def write(self, data: Any) -> int:
        if data == ZEROS:
            self.seek(len(data), io.SEEK_CUR)
            return len(data)
        return super().write(data) or 0


@pytest.mark.scale
@pytest.mark.long
def test_entry_and_offset_over_4_gib(tmp_path: Path) -> None:
    """An entry over 4 GiB and the one after it are read back: the records of both, and the bytes behind the first."""
    source = GeneratedVersion({"huge.bin": (4 << 30) + 5, "after.glb": 1000})
    out = tmp_path / "a.zip"
    with SparseWriter(out, "w") as file, io.BytesIO() as directory:
        writer = ZipWriter(file, directory, is_3tz=False)
        for name, size in source.sizes.items():
            writer.add(name, size, source.chunks(None, name))
        writer.finish()
    with zipfile.ZipFile(out) as package:
        huge, after = package.infolist()
        assert (huge.file_size, huge.compress_size, huge.header_offset) == ((4 << 30) + 5, (4 << 30) + 5, 0)
        assert after.header_offset > 4 << 30
        assert package.read(after) == b"".join(source.chunks(None, "after.glb"))
    assert str((4 << 30) + 5) in run_reader("unzip", "-l", out)
    assert "No errors detected" in run_reader("unzip", "-tq", out, "after.glb")  # of all files it takes a minute


@pytest.mark.scale
def test_sqlite_package_of_many_files(tmp_path: Path) -> None:
    """A .3dtiles file of 66,000 files has a row for each, and passes SQLite's own check."""
    sizes = {"tileset.json": 2} | {f"tiles/{number:06d}.glb": 20 + number % 50 for number in range(66_000)}
    pack_generated(GeneratedVersion(sizes), tmp_path / "a.3dtiles")
    with closing(sqlite3.connect(tmp_path / "a.3dtiles")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert dict(db.execute("SELECT key, length(content) FROM media WHERE rowid > 1")) == sizes
