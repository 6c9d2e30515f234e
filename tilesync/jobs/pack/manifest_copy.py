"""Copy of a manifest for a package: read once from the destination, then parsed and packed as the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any, Final

from tilesync.core.foreign_json import MAX_DOCUMENT_BYTES, parse_json, read_mapping
from tilesync.core.manifest import read_header, read_line
from tilesync.model import StoredFile, Version
from tilesync.protocols import ReadOnlyPublication

CHUNK_BYTES: Final = 1 << 20


class ManifestCopy:
    """Copy of the manifest of a version, in the temporary file `file`. `size` is that of the manifest in bytes.

    Only one of its iterators can be used at a time.
    """

    def __init__(self, publication: ReadOnlyPublication, name: str, file: IO[bytes]) -> None:
        self._name = name
        self._file = file
        for chunk in publication.manifest_chunks(name):
            file.write(chunk)
        self.size = file.tell()

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the manifest."""
        self._file.seek(0)
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk

    def version(self) -> Version:
        """Parse the first line. Raises ValueError, KeyError or TypeError if it is damaged."""
        self._file.seek(0)
        return read_header(_parse(self._read_line()), name=self._name)

    def files(self) -> Iterator[StoredFile]:
        """Parse the lines of the files, in the order of the manifest. Raises as `version` does."""
        self._file.seek(0)
        self._read_line()
        while line := self._read_line():
            yield read_line(_parse(line))

    def _read_line(self) -> bytes:
        return self._file.readline(MAX_DOCUMENT_BYTES + 2)


def _parse(line: bytes) -> Mapping[str, Any]:
    return read_mapping(parse_json(line.rstrip(b"\n")))
