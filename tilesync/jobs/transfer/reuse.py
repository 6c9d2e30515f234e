"""What other versions hold is taken from there, never fetched again: linked, or copied where no link can be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilesync.errors import BlobDamaged
from tilesync.jobs.versions.file_check import examine_held
from tilesync.model import Arrival, Blob, Kind, Reading, Twin, Version
from tilesync.protocols import Destination

_BY_NAME = frozenset({Kind.NONE, Kind.EMPTY, Kind.JSON, Kind.GEOJSON})
"""Kinds of files that may be sound under one name and no tile, no image or no JSON under another."""


class Reuse:
    """Shares files between one version and the others, by their content: the names need not be the same."""

    def __init__(self, version: Version, destination: Destination) -> None:
        self._version = version
        self._files = destination.files
        self._catalog = destination.catalog

    def take(self, wanted: Sequence[tuple[int, Blob]]) -> tuple[list[Arrival], int]:
        """Those of some wanted blobs, each with its number, that another version holds by size and MD5; placed.

        With them the bytes of what another version should hold so, and does not as it was left there.
        """
        twins = self._catalog.twins.by_digest(self._version, [blob for _, blob in wanted])
        known = [item for item in wanted if item[1].name in twins]
        found = self._tried(known, twins)
        left = [item for item in known if item[0] not in found]
        if left:
            every = self._catalog.twins.by_digest(self._version, [blob for _, blob in left], every=True)
            found.update(self._tried(left, every))
        return list(found.values()), sum(blob.size for number, blob in known if number not in found)

    def _tried(self, some: Sequence[tuple[int, Blob]], twins: Mapping[str, Sequence[Twin]]) -> dict[int, Arrival]:
        """What could be taken, by number: each blob from the first of its twins that has it still."""
        found: dict[int, Arrival] = {}
        copied: list[Twin] = []
        for turn in range(max((len(twins.get(blob.name, ())) for _, blob in some), default=0)):
            asked = [
                (number, blob, twins[blob.name][turn])
                for number, blob in some
                if number not in found and len(twins.get(blob.name, ())) > turn
            ]
            shared = self._files.share(self._version, [(blob, twin.version, twin.held) for _, blob, twin in asked])
            for (number, _, twin), held in zip(asked, shared, strict=True):
                if held is not None and (arrival := self._said(Arrival(number, held), twin, copied)):
                    found[number] = arrival
        if copied:
            self._catalog.twins.copy_references(self._version, copied)
        return found

    def merge(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """What was fetched because the listing has no MD5 gives way to a link where another version holds its bytes."""
        unnamed = [each.held for each in arrivals if each.held.blob.md5 is None] if self._files.links else []
        twins = self._catalog.twins.by_sha256(self._version, unnamed) if unnamed else {}
        return [self._merged(arrival, twins.get(arrival.held.blob.name, ())) for arrival in arrivals]

    def _merged(self, arrival: Arrival, twins: Sequence[Twin]) -> Arrival:
        alike = (twin for twin in twins if twin.held.sha256 == arrival.held.sha256)  # as they lie
        wishes = ((arrival.held.blob, twin.version, twin.held) for twin in alike)
        shared = (self._files.share(self._version, [wish])[0] for wish in wishes)
        return arrival._replace(held=next(filter(None, shared), arrival.held))

    def _said(self, arrival: Arrival, twin: Twin, copied: list[Twin]) -> Arrival | None:
        """The arrival with what its bytes say: as they said there, where that is the same here; else read anew."""
        if retold := as_there(arrival, twin):
            copied += [twin] if retold.partly else []
            return retold
        try:
            found = examine_held(self._files, self._catalog.references, self._version, arrival.held)
        except BlobDamaged:
            return None
        return Arrival(arrival.number, found.held, found.reading, partly=found.partly) if found else None


def as_there(arrival: Arrival, twin: Twin) -> Arrival | None:
    """The arrival with what its bytes say, where they say the same here as there; None where they may not.

    `partly`: the references of the twin are yet to be copied.
    """
    if twin.remarked or ((twin.asks or twin.kind in _BY_NAME) and twin.held.blob.name != arrival.held.blob.name):
        return None
    return arrival._replace(reading=Reading(twin.kind, implicit=twin.implicit), partly=twin.asks)
