"""Ownership of a destination: it accepts only exports of its owner, until a user adopts it for another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from tilesync.core.ownership import OwnerMatch, RequestedOwner, compare_owner, describe_owner, merge_owner, read_owner
from tilesync.errors import OtherOwner
from tilesync.events import Notice, OwnerIdentified
from tilesync.jobs.versions.listing import list_finished
from tilesync.model import Resolution, Version
from tilesync.protocols import Destination, Observer, ReadOnlyPublication
from tilesync.runtime.threads import run_in_thread
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog

ResolveSource = Callable[[], Awaitable[Resolution]]


@dataclass(frozen=True)
class OwnershipRequest:
    """A request to mirror the exports of `requested` into a destination; `adopt` makes that the owner.

    `display_name` is the destination as people name it; `observe` receives events about the owner.
    """

    requested: RequestedOwner
    display_name: str
    observe: Observer
    adopt: bool = False

    def admit(self, publication: ReadOnlyPublication) -> None:
        """Raise OtherOwner if the destination clearly belongs to another owner.

        An early check: it reads the destination only, not its state folder, and not SOURCE.
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
        """Return the owner of the destination from now on, and the resolution of SOURCE if it was needed.

        A run that fetched nothing, for example because of a mistyped SOURCE, leaves no owner behind: the next run takes
        over silently. Raises OtherOwner. Writes nothing.
        """
        owner = await run_in_thread(find_owner, publication) or _find_unfinished_owner(catalog)
        if owner:
            self.observe(OwnerIdentified(owner))
        requested, resolution = self.requested, None
        claim = compare_owner(owner, requested, None)
        if claim is OwnerMatch.UNSURE:
            version_names = {version.name for version in catalog.versions()}
            version_names.update(await run_in_thread(publication.manifest_names))
            if requested.export is None:
                resolution = await resolve_source()
                requested = requested.with_export(resolution.export)
            claim = compare_owner(owner, requested, version_names)
        if claim is OwnerMatch.OTHER and not self.adopt:
            if not (catalog.is_vacant() and await run_in_thread(publication.is_vacant)):
                raise self._other_owner_error(owner, requested)
            owner = ""
        new_owner = merge_owner(owner, requested, claim)
        if owner and new_owner != owner:
            message = (
                f"{self.display_name} belonged to {describe_owner(owner)};"
                f" from now on it belongs to {describe_owner(new_owner)}"
            )
            self.observe(Notice(message))
        if new_owner and new_owner != owner:
            self.observe(OwnerIdentified(new_owner))
        return new_owner, resolution

    def _other_owner_error(self, owner: str, requested: RequestedOwner) -> OtherOwner:
        wanted = describe_owner(requested.owner) if requested.owner else f"export {requested.export}"
        return OtherOwner(f"{self.display_name} belongs to {describe_owner(owner)}, and {wanted} was asked for")


async def claim_destination(
    destination: Destination, ownership: OwnershipRequest | None, resolve_source: ResolveSource
) -> Resolution | None:
    """Check that a destination belongs to the requested owner, and record the owner if that is new.

    Call it before anything else is written. Returns the resolution of SOURCE if it was needed. Raises OtherOwner.
    """
    if ownership is None:
        return None
    publication = destination.publication
    owner, resolution = await ownership.resolve_owner(publication, destination.catalog, resolve_source)
    old_owner = await run_in_thread(publication.owner)
    if old_owner and old_owner != owner and not ownership.adopt:
        _delete_unfinished(destination.catalog)
    if owner and (old_owner != owner or (ownership.adopt and await run_in_thread(publication.is_vacant))):
        await run_in_thread(partial(publication.set_owner, owner, stated=ownership.adopt))
    return resolution


def _delete_unfinished(catalog: Catalog) -> None:
    """Delete the versions that another owner began, if the destination is vacant, so they hold no files."""
    if catalog.is_vacant():
        for version in catalog.versions():
            catalog.delete_version(version)


@dataclass(frozen=True)
class OwnershipStatus:
    """The owner of a destination, and the time of its last successful run in UTC; None if unknown."""

    owner: str | None
    last_success: str | None


def read_ownership_status(publication: ReadOnlyPublication) -> OwnershipStatus:
    """Read the owner and the last success of a destination. Raises DestinationError."""
    checked = (publication.last_success() or {}).get("checked")
    return OwnershipStatus(find_owner(publication) or None, checked if isinstance(checked, str) else None)


def report_owner(publication: ReadOnlyPublication, observe: Observer) -> None:
    """Emit an event with the owner of a destination, if it is known."""
    if owner := find_owner(publication):
        observe(OwnerIdentified(owner))


def find_owner(publication: ReadOnlyPublication) -> str:
    """Return the owner of a destination; empty if nothing is held.

    If no owner is recorded (earlier releases did not), it comes from `latest.json`, or from the manifest of the version
    that `latest.json` names, or else of the newest one.
    """
    if owner := publication.owner():
        return owner
    latest = publication.latest() or {}
    if owner := read_owner({"owner": latest.get("imodel")}):
        return owner
    # a manifest that cannot be read is reported where it is needed
    finished = {version.name: version for version in list_finished(publication)}
    newest = sorted(finished.values(), key=lambda version: version.summary.published_at or "")[-1:]
    named = finished.get(str(latest.get("version")))
    return next((_get_version_owner(version) for version in ([named] if named is not None else newest)), "")


def _find_unfinished_owner(catalog: Catalog) -> str:
    """Return the owner of the newest unfinished version, which an earlier release may have left; else empty."""
    unfinished = [version for version in catalog.versions() if not version.is_published]
    return next((_get_version_owner(version) for version in reversed(unfinished)), "")


def _get_version_owner(version: Version) -> str:
    return version.facts.imodel or version.container_url
