"""What other versions hold is taken from there, never fetched again: linked, or copied where no link can be made."""

from __future__ import annotations

from collections.abc import Sequence

from tilesync.errors import BlobDamaged, DestinationError
from tilesync.jobs.examine import examine
from tilesync.model import Arrival, Blob, Held, Reading, Twin, Version
from tilesync.protocols import Destination


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
        found: list[Arrival] = []
        copied: list[Twin] = []
        refused = 0
        twins = self._catalog.twins.by_md5(self._version, [blob for _, blob in wanted])
        for number, blob in wanted:
            there = twins.get(blob.name, ())
            arrival = self._first(number, blob, there, copied)
            if there and arrival is None:
                every = self._catalog.twins.by_md5(self._version, [blob], every=True)
                arrival = self._first(number, blob, every.get(blob.name, ()), copied)
            if arrival:
                found.append(arrival)
            elif there:
                refused += blob.size
        if copied:
            self._catalog.twins.copy_references(self._version, copied)
        return found, refused

    def _first(self, number: int, blob: Blob, twins: Sequence[Twin], copied: list[Twin]) -> Arrival | None:
        return next(filter(None, (self._taken(number, blob, twin, copied) for twin in twins)), None)

    def _taken(self, number: int, blob: Blob, twin: Twin, copied: list[Twin]) -> Arrival | None:
        held = self._share(blob, twin)
        return self._said(Arrival(number, held), twin, copied) if held else None

    def merge(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """What was fetched because the listing has no MD5 gives way to a link where another version holds its bytes."""
        unnamed = [arrival.held for arrival in arrivals if arrival.held.blob.md5 is None]
        twins = self._catalog.twins.by_sha256(self._version, unnamed) if unnamed else {}
        return [self._merged(arrival, twins.get(arrival.held.blob.name, ())) for arrival in arrivals]

    def _merged(self, arrival: Arrival, twins: Sequence[Twin]) -> Arrival:
        shared = (self._share(arrival.held.blob, twin) for twin in twins)
        return arrival._replace(held=next(filter(None, shared), arrival.held))

    def _share(self, blob: Blob, twin: Twin) -> Held | None:
        try:
            return self._files.share(self._version, blob, twin.version, twin.held)
        except DestinationError:
            return None  # it cannot be read or reached there: what stands in the way here is met by the fetch again

    def _said(self, arrival: Arrival, twin: Twin, copied: list[Twin]) -> Arrival | None:
        """The arrival with what its bytes say: as they said there, where that is the same here; else read anew."""
        if retold := as_there(arrival, twin):
            copied += [twin] if retold.partly else []
            return retold
        try:
            found = examine(self._files, self._catalog.references, self._version, arrival.held.blob)
        except BlobDamaged:
            return None
        return Arrival(arrival.number, found.held, found.reading, partly=found.partly) if found else None


def as_there(arrival: Arrival, twin: Twin) -> Arrival | None:
    """The arrival with what its bytes say, where they say the same here as there; None where they may not.

    `partly`: the references of the twin are yet to be copied.
    """
    if twin.remarked or (twin.asks and twin.held.blob.name != arrival.held.blob.name):
        return None
    return arrival._replace(reading=Reading(twin.kind, implicit=twin.implicit), partly=twin.asks)
