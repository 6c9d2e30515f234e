"""Checks of whole `[[mirror]]` entries: names, options that conflict, and places that two mirrors would share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tilesync.api.inputs import create_mirror_request
from tilesync.api.locations import is_folder, parse_dest
from tilesync.errors import UsageError
from tilesync.fleets.file.option_table import make_mirror_arguments
from tilesync.fleets.file.settings import MirrorEntry, SecretReference
from tilesync.fleets.places import expand_template, find_shared_places, normalize_place
from tilesync.model import Secret

SAMPLE_IMODEL = "00000000-0000-4000-8000-000000000000"
"""Id that stands for any iModel of an iTwin."""

_SAMPLE_LINK = Secret("https://account.blob.core.windows.net/container?sig=x")

EntryMistake = tuple[MirrorEntry, str, str]
"""Entry, key (empty: the entry as a whole), and message."""


def find_entry_mistakes(entries: Sequence[MirrorEntry], folder: Path) -> Iterator[EntryMistake]:
    """Yield the mistakes of entries. `folder`: where relative paths start."""
    known: dict[str, MirrorEntry] = {}
    for entry in entries:
        first = known.setdefault(entry.name.casefold(), entry)
        if first is not entry:
            at = f" (line {first.line})" if first.line is not None else ""
            yield entry, "name", f"another mirror has this name{at}: names must differ, also without case"
        yield from _find_option_mistakes(entry, folder)
    yield from _find_shared(entries, folder)


def _find_option_mistakes(entry: MirrorEntry, folder: Path) -> Iterator[EntryMistake]:
    for dest in entry.dests:
        try:
            create_mirror_request(*_make_sample(entry, dest, folder))
        except (UsageError, ValueError) as error:
            yield entry, "", str(error)
            return
    if len(set(entry.dests)) < len(entry.dests):
        yield entry, "dest", "the same destination is listed twice"
    if "state-dir" in entry.options and len(entry.dests) > 1:
        yield entry, "state-dir", "several destinations would share it: leave it out, or write one [[mirror]] each"
    if entry.itwin is not None and any(isinstance(dest, SecretReference) for dest in entry.dests):
        yield entry, "dest", "all iModels of the iTwin would share it: write a text with {name} or {imodel}"


def _make_sample(entry: MirrorEntry, dest: str | SecretReference, folder: Path) -> tuple[Any, Any, Any]:
    """Make arguments of a mirror of this kind, with samples in place of what is not known yet."""
    source: Any = entry.imodel or SAMPLE_IMODEL
    if entry.source is not None:
        source = _SAMPLE_LINK if isinstance(entry.source, SecretReference) else entry.source
    place = _SAMPLE_LINK.text if isinstance(dest, SecretReference) else sample_place(entry, dest, folder)
    options = {name: value for name, value in entry.options.items() if name != "state-dir"}
    return source, place, make_mirror_arguments(options)


def sample_place(entry: MirrorEntry, dest: str, folder: Path) -> str:
    """Return the place of a mirror; with samples in place of the ids and names of an iTwin."""
    imodel = entry.imodel or (SAMPLE_IMODEL if entry.itwin else None)
    return locate(expand_template(dest, name=entry.name, imodel=imodel, itwin=entry.itwin), folder, entry)


def locate(place: str, folder: Path, entry: MirrorEntry) -> str:
    """Return a place as an absolute path or a URL. Raises UsageError."""
    location = parse_dest(place, entry.options.get("azure-endpoint"))
    return str(folder / place) if is_folder(location) else str(location)


def normalized(place: str, entry: MirrorEntry) -> str:
    """Return a located place for comparisons with others."""
    in_folder = is_folder(parse_dest(place, entry.options.get("azure-endpoint")))
    endpoint = entry.options.get("endpoint-url") or entry.options.get("azure-endpoint") or ""
    text = normalize_place(place, is_folder=in_folder)
    return text if in_folder else endpoint + text


def _find_shared(entries: Sequence[MirrorEntry], folder: Path) -> Iterator[EntryMistake]:
    """Yield entries that would share a place, as far as the file alone tells it."""
    places = []
    for entry in entries:
        for dest in entry.dests:
            if isinstance(dest, str) and entry.itwin is None:
                try:
                    places.append((entry.name, normalized(sample_place(entry, dest, folder), entry)))
                except (UsageError, ValueError):
                    continue  # reported already
    by_name = {entry.name: entry for entry in entries}
    for name, other, place in find_shared_places(places):
        yield by_name[other], "dest", f"{name} and {other} would share {place}: each mirror needs a place of its own"
