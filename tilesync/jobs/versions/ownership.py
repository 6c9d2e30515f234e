"""Ownership of a destination: it takes the exports of its owner alone, until somebody adopts it for another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tilesync.core.manifest import read_header
from tilesync.core.ownership import Asked, Claim, compare, owner_after, read_owner, shown
from tilesync.errors import DestinationError, OtherOwner
from tilesync.events import Notice, Owned
from tilesync.model import Resolution, Version
from tilesync.protocols import Catalog, Destination, Observer, Published
from tilesync.runtime.threads import in_thread

Resolve = Callable[[], Awaitable[Resolution]]


@dataclass(frozen=True)
class Ownership:
    """What a run wants of a destination: to mirror what is `asked` for, and with `adopt` to make it the owner. `place`
    is how people name the destination; `observe` hears whose it is.
    """

    asked: Asked
    place: str
    observe: Observer
    adopt: bool = False

    def admit(self, publication: Published) -> None:
        """Raise OtherOwner where the destination is another's, as far as that shows without its state, and without a
        look at SOURCE. Reads only.
        """
        owner = recorded(publication)
        if not self.adopt and compare(owner, self.asked, None) is Claim.OTHER and not publication.is_vacant():
            self.observe(Owned(owner))
            raise self._refusal(owner, self.asked)

    async def settle(self, publication: Published, catalog: Catalog, resolve: Resolve) -> tuple[str, Resolution | None]:
        """The owner that the destination has from now on; and what SOURCE resolved to, where it had to be asked.

        A run that got nothing, for a mistyped SOURCE say, left no owner behind: another takes over without a word.
        Raises OtherOwner. Writes nothing.
        """
        owner = await in_thread(recorded, publication) or _begun_for(catalog)
        if owner:
            self.observe(Owned(owner))
        asked, first = self.asked, None
        claim = compare(owner, asked, None)
        if claim is Claim.UNSURE:
            held = {version.name for version in catalog.versions()}
            held.update(await in_thread(publication.manifest_names))
            if asked.export is None:
                first = await resolve()
                asked = asked.resolved(first.export)
            claim = compare(owner, asked, held)
        if claim is Claim.OTHER and not self.adopt:
            if not (catalog.is_vacant() and await in_thread(publication.is_vacant)):
                raise self._refusal(owner, asked)
            owner = ""
        after = owner_after(owner, asked, claim)
        if owner and after != owner:
            what = f"{self.place} belonged to {shown(owner)}; from now on it belongs to {shown(after)}"
            self.observe(Notice(what))
        if after and after != owner:
            self.observe(Owned(after))
        return after, first

    def _refusal(self, owner: str, asked: Asked) -> OtherOwner:
        wanted = shown(asked.owner) if asked.owner else f"export {asked.export}"
        return OtherOwner(f"{self.place} belongs to {shown(owner)}, and {wanted} was asked for")


async def take_over(destination: Destination, ownership: Ownership | None, resolve: Resolve) -> Resolution | None:
    """See that a destination belongs to who is asked for, and record that where it is not; nothing else was written
    before. What SOURCE resolved to, where it had to be asked. Raises OtherOwner.
    """
    if ownership is None:
        return None
    publication = destination.publication
    owner, first = await ownership.settle(publication, destination.catalog, resolve)
    before = await in_thread(publication.owner)
    if before and before != owner and not ownership.adopt:
        _forget_begun(destination.catalog)
    if owner and (before != owner or (ownership.adopt and await in_thread(publication.is_vacant))):
        await in_thread(partial(publication.set_owner, owner, stated=ownership.adopt))
    return first


def _forget_begun(catalog: Catalog) -> None:
    """Forget the versions that others began here: of a vacant destination, so they hold nothing."""
    if catalog.is_vacant():
        for version in catalog.versions():
            catalog.forget(version)


@dataclass(frozen=True)
class Standing:
    """Whose a destination is, and when a run last ended well, in UTC; None where that is not known."""

    owner: str | None
    checked: str | None


def standing(publication: Published) -> Standing:
    """What a destination says of itself. Raises DestinationError."""
    checked = (publication.checked() or {}).get("checked")
    return Standing(recorded(publication) or None, checked if isinstance(checked, str) else None)


def tell_owner(publication: Published, observe: Observer) -> None:
    """Say whose a destination is, where that is known."""
    if owner := recorded(publication):
        observe(Owned(owner))


def recorded(publication: Published) -> str:
    """The owner of a destination: as it was recorded, else as `latest.json`, or the manifest of the version that it
    names, tells (no release before this one kept a record); empty where nothing is held.
    """
    if owner := publication.owner():
        return owner
    latest = publication.latest() or {}
    if owner := read_owner({"owner": latest.get("imodel")}):
        return owner
    held = {version.name: version for version in _finished(publication)}
    newest = sorted(held.values(), key=lambda version: version.published or "")[-1:]
    named = held.get(str(latest.get("version")))
    return next((_owner_of(version) for version in ([named] if named is not None else newest)), "")


def _finished(publication: Published) -> Iterator[Version]:
    for name in publication.manifest_names():
        try:
            yield read_header(next(publication.manifest(name)), name=name)
        except (DestinationError, StopIteration, KeyError, TypeError, ValueError):
            continue  # whoever needs that manifest reports it


def _begun_for(catalog: Catalog) -> str:
    """The owner of what an earlier release began to bring in, and never finished."""
    begun = [version for version in catalog.versions() if version.published is None]
    return next((_owner_of(version) for version in reversed(begun)), "")


def _owner_of(version: Version) -> str:
    return version.imodel or version.home
