"""Copy of a manifest for a package: read once from the destination, then parsed and packed as the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Final, TypeVar

from tilesync.core.foreign_json import MAX_DOCUMENT_BYTES, parse_json, read_mapping
from tilesync.core.manifest import read_header, read_line
from tilesync.errors import DestinationError
from tilesync.model import StoredFile, Version
from tilesync.protocols import ReadOnlyPublication

T = TypeVar("T")

DAMAGED_HINT: Final = "run `tilesync verify --all`, then mirror this version again, or pack another one"
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
        """Parse the first line. Raises DestinationError if it is damaged."""
        self._file.seek(0)
        return self._parse(self._read_line(), lambda document: read_header(document, name=self._name))

    def files(self) -> Iterator[StoredFile]:
        """Parse the lines of the files, in the order of the manifest. Raises DestinationError for a damaged line."""
        self._file.seek(0)
        self._read_line()
        while line := self._read_line():
            yield self._parse(line, read_line)

    def _read_line(self) -> bytes:
        return self._file.readline(MAX_DOCUMENT_BYTES + 2)

    def _parse(self, line: bytes, read: Callable[[Mapping[str, Any]], T]) -> T:
        try:
            return read(read_mapping(parse_json(line.rstrip(b"\n"))))
        except (KeyError, TypeError, ValueError) as error:
            problem = f"the manifest of version {self._name} is damaged ({error})"
            raise DestinationError(problem, hint=DAMAGED_HINT) from error
