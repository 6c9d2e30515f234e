"""Publications: the pieces that all stores share, and the default layout, in which each version has its own folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from tilesync.core.foreign_json import MAX_DOCUMENT_BYTES
from tilesync.core.ownership import is_owner_stated
from tilesync.errors import DestinationError
from tilesync.model import POINTER, StoredFile, Version

VERSIONS_DIR: Final = "versions"
MANIFESTS_DIR: Final = "manifests"
MANIFEST_SUFFIX: Final = ".jsonl"
LATEST_FILE: Final = "latest.json"


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a document that arrives in chunks, without empty ones. Raises ValueError for a long one."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
        if len(rest) > MAX_DOCUMENT_BYTES:
            raise ValueError(f"it has a line of more than {MAX_DOCUMENT_BYTES:,} bytes")
    if rest:
        yield rest


def compact_timestamp(moment: str) -> str:
    """Format a timestamp as the start of a name in the trash, which sorts by time."""
    return moment.replace("-", "").replace(":", "")


class PublicationBase(ABC):
    """Read access to a publication, as far as it is the same in all stores.

    `place_noun`: the word for what contains a destination in this store.
    """

    place_noun: ClassVar[str]

    @abstractmethod
    def latest(self) -> Mapping[str, Any] | None:
        """Return the content of `latest.json`; None if it is missing or foreign."""

    @abstractmethod
    def manifest_names(self) -> list[str]:
        """List the versions that have a manifest."""

    @property
    @abstractmethod
    def _display_name(self) -> str:
        """Name of the destination in messages."""

    @abstractmethod
    def _list_existing(self, names: Sequence[str]) -> list[str]:
        """Return those of these documents at the top that exist."""

    @abstractmethod
    def _read_ownership(self) -> Mapping[str, Any] | None:
        """Read the record of the owner."""

    @abstractmethod
    def _has_any_files(self) -> bool:
        """Return whether any version's folder contains a file."""

    def prefix(self, version: Version) -> str:
        """Return the path from the pointer to the version's own folder."""
        return f"{VERSIONS_DIR}/{version.name}/"

    def has_staged_files(self, version: Version) -> bool:
        """Return False: files are written to their final paths."""
        return False

    def refuse_foreign(self) -> None:
        """Raise DestinationError for a root tileset or a `latest.json` at the top that tilesync did not write.

        A manifest is written before the first pointer, and `latest.json` after it: either one shows that tilesync wrote
        here.
        """
        existing = self._list_existing((POINTER, LATEST_FILE))
        if existing and self.latest() is None and not self.manifest_names():
            raise DestinationError(
                f"{self._display_name} contains a {existing[0]} that tilesync did not write",
                hint=f"choose an empty {self.place_noun}, or a destination of tilesync",
            )

    def is_vacant(self) -> bool:
        """Return whether the destination has no files of an export, and no owner that a user stated."""
        return (
            self.latest() is None
            and not self.manifest_names()
            and not is_owner_stated(self._read_ownership())
            and not self._has_any_files()
        )


class DefaultLayoutMixin:
    """The steps that only the flat layout needs, as empty steps."""

    def find_blocked(self, version: Version, names: Iterable[str]) -> list[str]:
        """Return an empty list: nothing foreign can be in a version's own folder."""
        return []

    def move_into_place(self, version: Version, names: Iterable[str], moment: str) -> list[str]:
        """Do nothing: the files are written to their final place."""
        return []

    def discard(self, version: Version, files: Iterable[StoredFile], moment: str) -> list[StoredFile]:
        """Do nothing: files of other versions are in other folders."""
        return []
