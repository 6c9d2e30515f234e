"""Roster of a night: the mirrors of a fleet, made from its file, the listings of its iTwins, and its state."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from tilesync.api.locations import is_folder, parse_dest
from tilesync.core.manifest import format_timestamp
from tilesync.errors import NoExport, TilesyncError, UsageError
from tilesync.fleets.file.entry_checks import locate, normalized
from tilesync.fleets.file.settings import FleetSettings, MirrorEntry, SecretReference
from tilesync.fleets.places import expand_template, find_shared_places
from tilesync.fleets.state import KnownMirror, make_key
from tilesync.protocols import Clock
from tilesync.values import dataclass

ModelNames = Mapping[str, str]
"""Display names of the iModels of an iTwin, by their ids, in the order of the service."""

_CONTROL_CHARS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class FleetMirror:
    """One mirror of a night. `name`: its label, unique in the fleet. `problem`: why it cannot run tonight."""

    name: str
    entry: MirrorEntry
    known: KnownMirror
    dests: tuple[str | SecretReference, ...]
    problem: TilesyncError | None = None

    @property
    def key(self) -> str:
        """Key of the mirror in the state of the fleet."""
        return self.known.key

    @property
    def imodel(self) -> str | None:
        """Id of its iModel; None for a container link or a mirror as source."""
        return self.known.imodel

    @property
    def folder(self) -> str | None:
        """Folder of its first destination; None for a store, or without a place."""
        place = self.dests[0] if self.dests else None
        if not isinstance(place, str):
            return None
        return place if is_folder(parse_dest(place, self.entry.options.get("azure-endpoint"))) else None

    def matches(self, globs: Iterable[str]) -> bool:
        """Return whether one of the globs matches its label, its entry, its display name or its iModel."""
        names = [self.name, self.entry.name, self.known.name, self.imodel or ""]
        return any(name == glob or fnmatchcase(name, glob) for glob in globs for name in names)


@dataclass(frozen=True)
class Roster:
    """Mirrors of a night in the order of the file. `failed_entries`: iTwins that could not be listed."""

    mirrors: Sequence[FleetMirror]
    failed_entries: Sequence[tuple[MirrorEntry, TilesyncError]] = ()
    changed: Sequence[KnownMirror] = field(default=())
    """Mirrors to store in the state: new ones, and those whose name, place or presence changed."""


def make_roster(
    settings: FleetSettings,
    known: Mapping[str, KnownMirror],
    listings: Mapping[str, ModelNames | TilesyncError],
    clock: Clock,
) -> Roster:
    """Make the roster. `known`: the state, by key. `listings`: by the name of the entry, for entries with an iTwin."""
    folder, now = settings.path.absolute().parent, format_timestamp(clock.now())
    explicit = {entry.imodel for entry in settings.mirrors if entry.imodel is not None}
    mirrors = list[FleetMirror]()
    failed = list[tuple[MirrorEntry, TilesyncError]]()
    dropped = list[KnownMirror]()  # never had a place, and are gone: nobody misses them
    for entry in settings.mirrors:
        if entry.itwin is None:
            mirrors.append(_make_mirror(entry, entry.name, entry.imodel, known, folder))
            continue
        listing = listings[entry.name]
        before = [each for each in _known_models(entry, known) if each.imodel not in explicit]
        if isinstance(listing, TilesyncError):
            failed.append((entry, listing))
            names: ModelNames = {each.imodel: each.name for each in before if each.imodel and not each.vanished}
            gone = [each for each in before if each.vanished]
        else:
            names = listing
            gone = [each for each in before if each.imodel not in names]
        selected = {i: _clean(name) for i, name in names.items() if entry.selects(name, i) and i not in explicit}
        mirrors += [_make_mirror(entry, name, imodel, known, folder) for imodel, name in selected.items()]
        gone = [each for each in gone if entry.selects(each.name, each.imodel or "")]
        mirrors += [_make_vanished(entry, each, now) for each in gone if each.places]
        dropped += [replace(each, vanished=each.vanished or now) for each in gone if not each.places]
    labelled = _with_labels(mirrors)
    checked = _refuse_shared_places(labelled, known)
    stored = [*(_make_stored(mirror, known.get(mirror.key)) for mirror in checked), *dropped]
    return Roster(checked, failed, [each for each in stored if known.get(each.key) != each])


def _make_stored(mirror: FleetMirror, before: KnownMirror | None) -> KnownMirror:
    """Return what the state keeps of a mirror. One that is refused gets no place, or it would keep that for ever."""
    if mirror.problem is None or mirror.known.vanished is not None:
        return mirror.known
    if before is None:
        return replace(mirror.known, places=(), templates=(), place_name="")
    return replace(mirror.known, places=before.places, templates=before.templates, place_name=before.place_name)


def _known_models(entry: MirrorEntry, known: Mapping[str, KnownMirror]) -> Iterator[KnownMirror]:
    return (each for each in known.values() if each.entry == entry.name and each.itwin == entry.itwin and each.imodel)


def _clean(name: str) -> str:
    """Return a display name in one line; half of a surrogate pair, which no database holds, becomes a question mark."""
    return _CONTROL_CHARS.sub(" ", name).strip().encode(errors="replace").decode() or "unnamed"


def _make_mirror(
    entry: MirrorEntry, name: str, imodel: str | None, known: Mapping[str, KnownMirror], folder: Path
) -> FleetMirror:
    """Make a mirror. Its places are those it was given once, as long as the file has the same templates."""
    key = make_key(entry.name, imodel if entry.itwin is not None else None)
    templates = tuple(map(str, entry.dests))
    before = known.get(key)
    problem: TilesyncError | None = None
    if before is not None and before.templates == templates and before.imodel == imodel:
        places, place_name = before.places, before.place_name
    else:
        place_name = name
        try:
            places = tuple(_expand(entry, dest, name, imodel, folder) for dest in entry.dests)
        except UsageError as error:
            places, problem = (), error
    stored = before if before is not None else KnownMirror(key, entry.name, name, places)
    if stored.places[:1] != places[:1]:  # what the old place holds is not in the new one
        stored = replace(stored, history=replace(stored.history, held=None, last_success=None, behind_since=None))
    new = replace(
        stored,
        entry=entry.name,
        name=name,
        places=places,
        templates=templates,
        imodel=imodel,
        itwin=entry.itwin,
        max_age_s=entry.max_age.total_seconds() if entry.max_age is not None else None,
        vanished=None,
        place_name=place_name,
    )
    dests = tuple(
        dest if isinstance(dest, SecretReference) else place for dest, place in zip(entry.dests, places, strict=False)
    )
    return FleetMirror(entry.name, entry, new, dests, problem)


def _expand(entry: MirrorEntry, dest: str | SecretReference, name: str, imodel: str | None, folder: Path) -> str:
    if isinstance(dest, SecretReference):
        return f"the link in {dest}"
    return locate(expand_template(dest, name=name, imodel=imodel, itwin=entry.itwin), folder, entry)


def _make_vanished(entry: MirrorEntry, known: KnownMirror, now: str) -> FleetMirror:
    since = known.vanished or now
    problem = NoExport(
        f"the iTwin does not list this iModel any more, since {since}: it was deleted, or this identity cannot see it;"
        " nothing of its mirror is deleted",
        hint=f'check the permissions; if it is gone for good, write its id into exclude: "{known.imodel}"',
    )
    return FleetMirror(entry.name, entry, replace(known, vanished=since), known.places, problem)


def _with_labels(mirrors: Sequence[FleetMirror]) -> list[FleetMirror]:
    """Give each mirror a label: the name of its entry, and for an iTwin the display name; with the id if two are equal.

    Labels differ without case too: people type them, and metrics have them. Entries of one mirror keep their names.
    """
    labels = [m.name if m.entry.itwin is None else f"{m.entry.name}/{m.known.name}" for m in mirrors]
    counts = Counter(map(str.casefold, labels))
    taken = {m.name.casefold() for m in mirrors if m.entry.itwin is None}
    labelled = []
    for mirror, label in zip(mirrors, labels, strict=True):
        if mirror.entry.itwin is not None:
            unique = label if counts[label.casefold()] == 1 else f"{label} ({(mirror.imodel or '')[:8]})"
            while unique.casefold() in taken:  # a display name may look like a label with an id
                unique += f" ({mirror.imodel})"
            taken.add(unique.casefold())
            mirror = replace(mirror, name=unique)
        labelled.append(mirror)
    return labelled


def _refuse_shared_places(mirrors: Sequence[FleetMirror], known: Mapping[str, KnownMirror]) -> list[FleetMirror]:
    """Refuse mirrors that would share a place. One that has its place already keeps it; new ones are both refused."""
    by_name = {mirror.name: mirror for mirror in mirrors}
    places = [
        (mirror.name, normalized(place, mirror.entry))
        for mirror in mirrors
        for place in mirror.dests
        if isinstance(place, str)
    ]
    refused = dict[str, TilesyncError]()

    def is_settled(mirror: FleetMirror) -> bool:
        return mirror.key in known and known[mirror.key].places == mirror.known.places

    for name, other, _ in find_shared_places(places):
        for mirror, rival in ((by_name[name], other), (by_name[other], name)):
            if mirror.name != rival and not (is_settled(mirror) and not is_settled(by_name[rival])):
                refused[mirror.name] = UsageError(
                    f"it would share {mirror.known.places[0]} with {rival}",
                    hint="write {imodel} into dest, or give one of them another display name",
                )
    return [
        replace(mirror, problem=mirror.problem or refused.get(mirror.name)) if mirror.name in refused else mirror
        for mirror in mirrors
    ]
