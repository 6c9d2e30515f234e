"""Reuse: link or copy files that other versions store already, instead of fetching them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilesync.errors import BlobDamaged
from tilesync.jobs.versions.file_check import check_stored_file
from tilesync.model import Blob, Duplicate, FileResult, Kind, ParsedContent, Version
from tilesync.protocols import Destination

_NAME_DEPENDENT_KINDS = frozenset({Kind.NONE, Kind.EMPTY, Kind.JSON, Kind.GEOJSON})
"""Kinds of files that may be valid under one name, but no valid tile, image or JSON under another."""


class Reuse:
    """Share files between one version and the others by content: the names may differ.

    If the destination has no other version, nothing is searched: each search would wait until the catalog has stored a
    page of the listing.
    """

    def __init__(self, version: Version, destination: Destination) -> None:
        self._version = version
        self._files = destination.files
        self._catalog = destination.catalog
        self._has_others = any(other.serial != version.serial for other in destination.catalog.versions())

    def share_duplicates(self, wanted: Sequence[tuple[int, Blob]]) -> tuple[list[FileResult], int]:
        """Place the wanted blobs, each with its number, that another version stores with the same size and MD5.

        Returns the placed files, and the bytes of known duplicates that could not be shared, because their files have
        changed.
        """
        if not self._has_others:
            return [], 0
        duplicates = self._catalog.duplicates.find_by_digest(self._version, [blob for _, blob in wanted])
        candidates = [item for item in wanted if item[1].name in duplicates]
        shared = self._share_first_available(candidates, duplicates)
        remaining = [item for item in candidates if item[0] not in shared]
        if remaining:
            all_duplicates = self._catalog.duplicates.find_by_digest(
                self._version, [blob for _, blob in remaining], all_versions=True
            )
            shared.update(self._share_first_available(remaining, all_duplicates))
        return list(shared.values()), sum(blob.size for number, blob in candidates if number not in shared)

    def _share_first_available(
        self, blobs: Sequence[tuple[int, Blob]], duplicates: Mapping[str, Sequence[Duplicate]]
    ) -> dict[int, FileResult]:
        """Share each blob with the first of its duplicates that is still intact; return the files by number."""
        found: dict[int, FileResult] = {}
        copied: list[Duplicate] = []
        for rank in range(max((len(duplicates.get(blob.name, ())) for _, blob in blobs), default=0)):
            attempts = [
                (number, blob, duplicates[blob.name][rank])
                for number, blob in blobs
                if number not in found and len(duplicates.get(blob.name, ())) > rank
            ]
            shared = self._files.share(
                self._version, [(blob, duplicate.version, duplicate.stored) for _, blob, duplicate in attempts]
            )
            for (number, _, duplicate), stored in zip(attempts, shared, strict=True):
                if stored is not None and (result := self._with_content(FileResult(number, stored), duplicate, copied)):
                    found[number] = result
        if copied:
            self._catalog.duplicates.copy_references(self._version, copied)
        return found

    def deduplicate(self, results: Sequence[FileResult]) -> list[FileResult]:
        """Replace fetched files by links to equal files of other versions, if the listing had no MD5 to compare."""
        without_md5 = (
            [result.stored for result in results if result.stored.blob.md5 is None]
            if self._files.has_hard_links and self._has_others
            else []
        )
        duplicates = self._catalog.duplicates.find_by_sha256(self._version, without_md5) if without_md5 else {}
        if not duplicates:
            return list(results)
        return [self._deduplicate_one(result, duplicates.get(result.stored.blob.name, ())) for result in results]

    def _deduplicate_one(self, result: FileResult, duplicates: Sequence[Duplicate]) -> FileResult:
        equal = (
            duplicate for duplicate in duplicates if duplicate.stored.sha256 == result.stored.sha256
        )  # equal bytes on disk, not only equal when decoded
        requests = ((result.stored.blob, duplicate.version, duplicate.stored) for duplicate in equal)
        shared = (self._files.share(self._version, [request])[0] for request in requests)
        return result._replace(stored=next(filter(None, shared), result.stored))

    def _with_content(self, result: FileResult, duplicate: Duplicate, to_copy: list[Duplicate]) -> FileResult | None:
        """Return the file with its parsed content: copied from the duplicate if possible, else parsed again."""
        if reused := reuse_content(result, duplicate):
            to_copy += [duplicate] if reused.has_more_references else []
            return reused
        try:
            checked = check_stored_file(self._files, self._catalog.references, self._version, result.stored)
        except BlobDamaged:
            return None
        return (
            FileResult(result.file_id, checked.stored, checked.content, has_more_references=checked.has_more_references)
            if checked
            else None
        )


def reuse_content(result: FileResult, duplicate: Duplicate) -> FileResult | None:
    """Return the file with the parsed content of its duplicate; None if the content may mean something else here.

    `has_more_references` of the result: the references of the duplicate have still to be copied.
    """
    if duplicate.has_diagnostics or (
        (duplicate.has_references or duplicate.kind in _NAME_DEPENDENT_KINDS)
        and duplicate.stored.blob.name != result.stored.blob.name
    ):
        return None
    return result._replace(
        content=ParsedContent(duplicate.kind, has_implicit_tiling=duplicate.has_implicit_tiling),
        has_more_references=duplicate.has_references,
    )
