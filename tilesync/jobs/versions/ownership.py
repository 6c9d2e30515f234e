"""Ownership of a destination: it takes the exports of its owner alone, until somebody adopts it for another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tilesync.core.manifest import read_header
from tilesync.core.ownership import OwnerMatch, RequestedOwner, compare_owner, describe_owner, merge_owner, read_owner
from tilesync.errors import DestinationError, OtherOwner
from tilesync.events import Notice, OwnerIdentified
from tilesync.model import Resolution, Version
from tilesync.protocols import Catalog, Destination, Observer, ReadOnlyPublication
from tilesync.runtime.threads import run_in_thread

ResolveSource = Callable[[], Awaitable[Resolution]]


@dataclass(frozen=True)
class OwnershipRequest:
    """What a run wants of a destination: to mirror what is `asked` for, and with `adopt` to make it the owner. `place`
    is how people name the destination; `observe` hears whose it is.
    """

    requested: RequestedOwner
    display_name: str
    observe: Observer
    adopt: bool = False

    def admit(self, publication: ReadOnlyPublication) -> None:
        """Raise OtherOwner where the destination is another's, as far as that shows without its state, and without a
        look at SOURCE. Reads only.
        """
        owner = find_owner(publication)
        if (
            not self.adopt
            and compare_owner(owner, self.requested, None) is OwnerMatch.OTHER
            and not publication.is_vacant()
        ):
            self.observe(OwnerIdentified(owner))
            raise self._other_owner_error(owner, self.requested)

    async def resolve_owner(
        self, publication: ReadOnlyPublication, catalog: Catalog, resolve_source: ResolveSource
    ) -> tuple[str, Resolution | None]:
        """The owner that the destination has from now on; and what SOURCE resolved to, where it had to be asked.

        A run that got nothing, for a mistyped SOURCE say, left no owner behind: another takes over without a word.
        Raises OtherOwner. Writes nothing.
        """
        owner = await run_in_thread(find_owner, publication) or _find_unfinished_owner(catalog)
        if owner:
            self.observe(OwnerIdentified(owner))
        asked, first = self.requested, None
        claim = compare_owner(owner, asked, None)
        if claim is OwnerMatch.UNSURE:
            held = {version.name for version in catalog.versions()}
            held.update(await run_in_thread(publication.manifest_names))
            if asked.export is None:
                first = await resolve_source()
                asked = asked.with_export(first.export)
            claim = compare_owner(owner, asked, held)
        if claim is OwnerMatch.OTHER and not self.adopt:
            if not (catalog.is_vacant() and await run_in_thread(publication.is_vacant)):
                raise self._other_owner_error(owner, asked)
            owner = ""
        after = merge_owner(owner, asked, claim)
        if owner and after != owner:
            what = (
                f"{self.display_name} belonged to {describe_owner(owner)};"
                f" from now on it belongs to {describe_owner(after)}"
            )
            self.observe(Notice(what))
        if after and after != owner:
            self.observe(OwnerIdentified(after))
        return after, first

    def _other_owner_error(self, owner: str, requested: RequestedOwner) -> OtherOwner:
        wanted = describe_owner(requested.owner) if requested.owner else f"export {requested.export}"
        return OtherOwner(f"{self.display_name} belongs to {describe_owner(owner)}, and {wanted} was asked for")


async def claim_destination(
    destination: Destination, ownership: OwnershipRequest | None, resolve_source: ResolveSource
) -> Resolution | None:
    """See that a destination belongs to who is asked for, and record that where it is not; nothing else was written
    before. What SOURCE resolved to, where it had to be asked. Raises OtherOwner.
    """
    if ownership is None:
        return None
    publication = destination.publication
    owner, first = await ownership.resolve_owner(publication, destination.catalog, resolve_source)
    before = await run_in_thread(publication.owner)
    if before and before != owner and not ownership.adopt:
        _delete_unfinished(destination.catalog)
    if owner and (before != owner or (ownership.adopt and await run_in_thread(publication.is_vacant))):
        await run_in_thread(partial(publication.set_owner, owner, stated=ownership.adopt))
    return first


def _delete_unfinished(catalog: Catalog) -> None:
    """Forget the versions that others began here: of a vacant destination, so they hold nothing."""
    if catalog.is_vacant():
        for version in catalog.versions():
            catalog.delete_version(version)


@dataclass(frozen=True)
class OwnershipStatus:
    """Whose a destination is, and when a run last ended well, in UTC; None where that is not known."""

    owner: str | None
    last_success: str | None


def read_ownership_status(publication: ReadOnlyPublication) -> OwnershipStatus:
    """What a destination says of itself. Raises DestinationError."""
    checked = (publication.last_success() or {}).get("checked")
    return OwnershipStatus(find_owner(publication) or None, checked if isinstance(checked, str) else None)


def report_owner(publication: ReadOnlyPublication, observe: Observer) -> None:
    """Say whose a destination is, where that is known."""
    if owner := find_owner(publication):
        observe(OwnerIdentified(owner))


def find_owner(publication: ReadOnlyPublication) -> str:
    """The owner of a destination: as it was recorded, else as `latest.json`, or the manifest of the version that it
    names, tells (no release before this one kept a record); empty where nothing is held.
    """
    if owner := publication.owner():
        return owner
    latest = publication.latest() or {}
    if owner := read_owner({"owner": latest.get("imodel")}):
        return owner
    held = {version.name: version for version in _list_finished(publication)}
    newest = sorted(held.values(), key=lambda version: version.published_at or "")[-1:]
    named = held.get(str(latest.get("version")))
    return next((_get_version_owner(version) for version in ([named] if named is not None else newest)), "")


def _list_finished(publication: ReadOnlyPublication) -> Iterator[Version]:
    for name in publication.manifest_names():
        try:
            yield read_header(next(publication.manifest(name)), name=name)
        except (DestinationError, StopIteration, KeyError, TypeError, ValueError):
            continue  # whoever needs that manifest reports it


def _find_unfinished_owner(catalog: Catalog) -> str:
    """The owner of what an earlier release began to bring in, and never finished."""
    begun = [version for version in catalog.versions() if version.published_at is None]
    return next((_get_version_owner(version) for version in reversed(begun)), "")


def _get_version_owner(version: Version) -> str:
    return version.imodel or version.container_url
