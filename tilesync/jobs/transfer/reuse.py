"""What other versions hold is taken from there, never fetched again: linked, or copied where no link can be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilesync.errors import BlobDamaged
from tilesync.jobs.versions.file_check import check_stored_file
from tilesync.model import Blob, Duplicate, FileResult, Kind, ParsedContent, Version
from tilesync.protocols import Destination

_NAME_DEPENDENT_KINDS = frozenset({Kind.NONE, Kind.EMPTY, Kind.JSON, Kind.GEOJSON})
"""Kinds of files that may be sound under one name and no tile, no image or no JSON under another."""


class Reuse:
    """Shares files between one version and the others, by their content: the names need not be the same."""

    def __init__(self, version: Version, destination: Destination) -> None:
        self._version = version
        self._files = destination.files
        self._catalog = destination.catalog

    def share_duplicates(self, wanted: Sequence[tuple[int, Blob]]) -> tuple[list[FileResult], int]:
        """Those of some wanted blobs, each with its number, that another version holds by size and MD5; placed.

        With them the bytes of what another version should hold so, and does not as it was left there.
        """
        twins = self._catalog.duplicates.find_by_digest(self._version, [blob for _, blob in wanted])
        known = [item for item in wanted if item[1].name in twins]
        found = self._share_first_available(known, twins)
        left = [item for item in known if item[0] not in found]
        if left:
            every = self._catalog.duplicates.find_by_digest(
                self._version, [blob for _, blob in left], all_versions=True
            )
            found.update(self._share_first_available(left, every))
        return list(found.values()), sum(blob.size for number, blob in known if number not in found)

    def _share_first_available(
        self, blobs: Sequence[tuple[int, Blob]], duplicates: Mapping[str, Sequence[Duplicate]]
    ) -> dict[int, FileResult]:
        """What could be taken, by number: each blob from the first of its twins that has it still."""
        found: dict[int, FileResult] = {}
        copied: list[Duplicate] = []
        for turn in range(max((len(duplicates.get(blob.name, ())) for _, blob in blobs), default=0)):
            asked = [
                (number, blob, duplicates[blob.name][turn])
                for number, blob in blobs
                if number not in found and len(duplicates.get(blob.name, ())) > turn
            ]
            shared = self._files.share(self._version, [(blob, twin.version, twin.stored) for _, blob, twin in asked])
            for (number, _, twin), held in zip(asked, shared, strict=True):
                if held is not None and (arrival := self._with_content(FileResult(number, held), twin, copied)):
                    found[number] = arrival
        if copied:
            self._catalog.duplicates.copy_references(self._version, copied)
        return found

    def deduplicate(self, arrivals: Sequence[FileResult]) -> list[FileResult]:
        """What was fetched because the listing has no MD5 gives way to a link where another version holds its bytes."""
        unnamed = (
            [each.stored for each in arrivals if each.stored.blob.md5 is None] if self._files.has_hard_links else []
        )
        twins = self._catalog.duplicates.find_by_sha256(self._version, unnamed) if unnamed else {}
        return [self._deduplicate_one(arrival, twins.get(arrival.stored.blob.name, ())) for arrival in arrivals]

    def _deduplicate_one(self, arrival: FileResult, duplicates: Sequence[Duplicate]) -> FileResult:
        alike = (twin for twin in duplicates if twin.stored.sha256 == arrival.stored.sha256)  # as they lie
        wishes = ((arrival.stored.blob, twin.version, twin.stored) for twin in alike)
        shared = (self._files.share(self._version, [wish])[0] for wish in wishes)
        return arrival._replace(stored=next(filter(None, shared), arrival.stored))

    def _with_content(self, arrival: FileResult, duplicate: Duplicate, copied: list[Duplicate]) -> FileResult | None:
        """The arrival with what its bytes say: as they said there, where that is the same here; else read anew."""
        if retold := reuse_content(arrival, duplicate):
            copied += [duplicate] if retold.has_more_references else []
            return retold
        try:
            found = check_stored_file(self._files, self._catalog.references, self._version, arrival.stored)
        except BlobDamaged:
            return None
        return (
            FileResult(arrival.file_id, found.stored, found.content, has_more_references=found.has_more_references)
            if found
            else None
        )


def reuse_content(arrival: FileResult, duplicate: Duplicate) -> FileResult | None:
    """The arrival with what its bytes say, where they say the same here as there; None where they may not.

    `partly`: the references of the twin are yet to be copied.
    """
    if duplicate.has_diagnostics or (
        (duplicate.has_references or duplicate.kind in _NAME_DEPENDENT_KINDS)
        and duplicate.stored.blob.name != arrival.stored.blob.name
    ):
        return None
    return arrival._replace(
        content=ParsedContent(duplicate.kind, has_implicit_tiling=duplicate.has_implicit_tiling),
        has_more_references=duplicate.has_references,
    )
