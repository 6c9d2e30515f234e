"""Open the writer of a package, by its format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tilesync.protocols import ArchiveWriter
from tilesync.stores.archives.compression import Compression, make_compressor
from tilesync.stores.archives.formats import ArchiveFormat
from tilesync.stores.archives.package_file import PackageFile, open_package_file


@dataclass(frozen=True)
class PackageOptions:
    """Package to write: its path, its format and compression, and whether an existing file is replaced."""

    out: Path
    archive_format: ArchiveFormat
    compression: Compression = Compression.NONE
    overwrite: bool = False


@contextmanager
def open_package(options: PackageOptions) -> Iterator[tuple[PackageFile, ArchiveWriter]]:
    """Open the temporary file of a package, and its writer. Raises as `open_package_file` does, and UsageError."""
    compressor = make_compressor(options.compression, options.archive_format)
    with open_package_file(options.out, overwrite=options.overwrite) as package, ExitStack() as exits:
        if options.archive_format is ArchiveFormat.SQLITE:
            from tilesync.stores.archives.sqlite_writer import SqliteWriter

            database = SqliteWriter(package.path, package.file, display_name=str(options.out))
            exits.callback(database.close)
            yield package, database
        elif options.archive_format is ArchiveFormat.TAR:
            from tilesync.stores.archives.tar_writer import TarWriter

            yield package, TarWriter(package.file)
        else:
            from tilesync.stores.archives.zip_writer import ZipWriter

            directory = exits.enter_context(package.open_spool())
            is_3tz = options.archive_format is ArchiveFormat.TZ3
            yield package, ZipWriter(package.file, directory, is_3tz=is_3tz, compressor=compressor)
