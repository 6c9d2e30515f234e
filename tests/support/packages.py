"""Builders of packages with the modules of Python, as other programs write them."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tilesync.core.manifest import encode_line, make_header, make_line
from tilesync.model import Blob, ExportFacts, StoredFile, Version, VersionSummary
from tilesync.stores.packages.formats import INDEX_ENTRY, MANIFEST_ENTRY
from tilesync.stores.packages.zip_records import INDEX_RECORD, hash_index_name, index_sort_key

ENDINGS = ("3tz", "zip", "tar", "3dtiles")

METHODS = {"stored": zipfile.ZIP_STORED, "deflate": zipfile.ZIP_DEFLATED}

KINDS = [(ending, "stored") for ending in ENDINGS] + [("zip", "deflate"), ("3tz", "deflate")]
"""Formats, each with the methods of compression that it knows."""

VERSION = "e1"


def write_package(path: Path, files: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> Path:
    """Write a package of these files, in this order; its name decides the format. `method`: of a Zip file."""
    if path.suffix == ".tar":
        return write_tar(path, files)
    if path.suffix == ".3dtiles":
        return write_sqlite(path, files)
    return write_zip(path, files, method=method, index=path.suffix == ".3tz")


def write_zip(path: Path, files: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED, index: bool = False) -> Path:
    """Write a Zip file, with `index` that of a .3tz file as its last entry."""
    records = []
    with zipfile.ZipFile(path, "w", method) as package:
        for name, data in files.items():
            info = _make_info(name, method)
            package.writestr(info, data)
            records.append((hash_index_name(name), info.header_offset))
        if index:
            records.sort(key=lambda record: index_sort_key(record[0]))
            package.writestr(_make_info(INDEX_ENTRY), b"".join(INDEX_RECORD.pack(*record) for record in records))
    return path


def _make_info(name: str, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = method
    return info


def write_tar(path: Path, files: Mapping[str, bytes], *, tar_format: int = tarfile.PAX_FORMAT) -> Path:
    """Write a tar file."""
    with tarfile.open(path, "w", format=tar_format) as package:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            package.addfile(info, io.BytesIO(data))
    return path


def write_sqlite(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a .3dtiles file."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE media (key TEXT PRIMARY KEY, content BLOB)")
        database.executemany("INSERT INTO media VALUES (?, ?)", files.items())
    return path


def with_manifest(files: Mapping[str, bytes], *, version: str = VERSION) -> dict[str, bytes]:
    """Return the files of a version, with its manifest in front."""
    described = Version(
        0,
        version,
        version,
        ExportFacts("i1", "c1", "2026-03-01T08:30:00Z", {"id": version, "displayName": "Bridge"}),
        container_url="https://a.example/c",
        summary=VersionSummary("2026-03-02T00:00:00Z", len(files), sum(map(len, files.values()))),
    )
    lines = [make_header(described), *(make_line(make_stored_file(name, data)) for name, data in files.items())]
    return {MANIFEST_ENTRY: b"".join(map(encode_line, lines)), **files}


def make_stored_file(name: str, data: bytes) -> StoredFile:
    """Return a stored file of these bytes, as the manifest describes it."""
    return StoredFile(Blob(name, len(data), "e"), hashlib.sha256(data).digest(), 0)


def pack_folder(dest: Path, out: Path, *, method: int = zipfile.ZIP_STORED, foreign: bool = False) -> Path:
    """Pack the current version of a folder that tilesync filled; `foreign`: without its manifest."""
    version = json.loads((dest / "latest.json").read_bytes())["version"]
    manifest = (dest / "manifests" / f"{version}.jsonl").read_bytes()
    names = [json.loads(line)["name"] for line in manifest.splitlines()[1:]]
    names.sort(key=lambda name: name != "tileset.json")
    files = {name: (dest / "versions" / version / name).read_bytes() for name in names}
    return write_package(out, files if foreign else {MANIFEST_ENTRY: manifest, **files}, method=method)
