"""Open the writer of a package, by its format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tilesync.protocols import PackageWriter
from tilesync.stores.packages.compression import Compression, make_compressor
from tilesync.stores.packages.formats import PackageFormat
from tilesync.stores.packages.package_output import PackageOutput, open_package_output
from tilesync.values import dataclass


@dataclass(frozen=True)
class PackageOptions:
    """Package to write: its path, its format and compression, and whether an existing file is replaced."""

    out: Path
    package_format: PackageFormat
    compression: Compression = Compression.NONE
    overwrite: bool = False


@contextmanager
def open_package_writer(options: PackageOptions) -> Iterator[tuple[PackageOutput, PackageWriter]]:
    """Open the temporary file of a package, and its writer. Raises as `open_package_output` does, and UsageError."""
    compressor = make_compressor(options.compression, options.package_format)
    with open_package_output(options.out, overwrite=options.overwrite) as output, ExitStack() as exits:
        if options.package_format is PackageFormat.SQLITE:
            from tilesync.stores.packages.sqlite_writer import SqliteWriter

            database = SqliteWriter(output.path, output.file, display_name=str(options.out))
            exits.callback(database.close)
            yield output, database
        elif options.package_format is PackageFormat.TAR:
            from tilesync.stores.packages.tar_writer import TarWriter

            yield output, TarWriter(output.file)
        else:
            from tilesync.stores.packages.zip_writer import ZipWriter

            directory = exits.enter_context(output.open_spool())
            is_3tz = options.package_format is PackageFormat.TZ3
            yield output, ZipWriter(output.file, directory, is_3tz=is_3tz, compressor=compressor)
