"""Checks of whole `[[mirror]]` entries: names, options that conflict, and places that two mirrors would share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tilesync.api.inputs import create_mirror_request
from tilesync.api.locations import is_folder, parse_dest
from tilesync.errors import UsageError
from tilesync.fleets.file.mistakes import describe_error
from tilesync.fleets.file.option_table import make_mirror_arguments
from tilesync.fleets.file.settings import MirrorEntry, SecretReference
from tilesync.fleets.places import expand_template, find_shared_places, normalize_place
from tilesync.model import Secret

_SAMPLE_LINK: Final = Secret("https://account.blob.core.windows.net/container?sig=x")

EntryMistake = tuple[int, str, str]
"""Number of the entry, key (empty: the entry as a whole), and message."""


def find_entry_mistakes(entries: Sequence[MirrorEntry], folder: Path) -> Iterator[EntryMistake]:
    """Yield the mistakes of entries. `folder`: where relative paths start."""
    known: dict[str, MirrorEntry] = {}
    for number, entry in enumerate(entries):
        first = known.setdefault(entry.name.casefold(), entry)
        if first is not entry:
            at = f" (line {first.line})" if first.line is not None else ""
            yield number, "name", f"another mirror has this name{at}: names must differ, also without case"
        yield from _find_option_mistakes(number, entry, folder)
    yield from _find_shared(entries, folder, key="dest")
    yield from _find_shared(entries, folder, key="state-dir")


# --- options ---


def _find_option_mistakes(number: int, entry: MirrorEntry, folder: Path) -> Iterator[EntryMistake]:
    """Yield the options that conflict, or that a destination or the source does not support."""
    found = dict[str, None]()
    for dest in entry.dests:
        try:
            create_mirror_request(*_make_sample(number, entry, dest, folder))
        except (UsageError, ValueError) as error:
            found[describe_error(error)] = None
    for message in found:
        yield number, _find_key(message, entry), message
    if "state-dir" in entry.options and len(entry.dests) > 1:
        yield number, "state-dir", "several destinations would share it: leave it out, or write one [[mirror]] each"


def _find_key(message: str, entry: MirrorEntry) -> str:
    """Return the first option of the entry that a message names; empty if there is none."""
    if message.startswith("DEST"):
        return "dest"
    named = re.findall(r"--([a-z][a-z-]*)", message)
    return next((name for name in named if name in entry.options), "")


def _make_sample(number: int, entry: MirrorEntry, dest: str | SecretReference, folder: Path) -> tuple[Any, Any, Any]:
    """Make arguments of a mirror of this kind, with samples in place of what is not known yet."""
    source: Any = entry.imodel or _sample_imodel(number)
    if isinstance(entry.source, SecretReference):
        source = _SAMPLE_LINK
    elif entry.source is not None:  # a folder need not be there yet: another mirror may fill it
        source = entry.source if entry.source.startswith(("az:", "s3:")) else Path(entry.source)
    place = _SAMPLE_LINK.text if isinstance(dest, SecretReference) else _sample_place(number, entry, dest, folder)
    options = {name: value for name, value in entry.options.items() if name != "state-dir"}
    return source, place, make_mirror_arguments(options)


# --- places ---


def _sample_imodel(number: int) -> str:
    """Return an id that stands for any iModel of an iTwin, different for each entry."""
    return f"00000000-0000-4000-8000-{number:012x}"


def _sample_place(number: int, entry: MirrorEntry, template: str, folder: Path) -> str:
    """Return the place of a mirror; of an iTwin that of a sample, which no other entry has."""
    if entry.itwin is None:
        name, imodel = entry.name, entry.imodel
    else:
        imodel = _sample_imodel(number)
        name = imodel
    return locate(expand_template(template, name=name, imodel=imodel, itwin=entry.itwin), folder, entry)


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


def _find_shared(entries: Sequence[MirrorEntry], folder: Path, *, key: str) -> Iterator[EntryMistake]:
    """Yield entries that would share a place, as far as the file alone tells it."""
    places = []
    for number, entry in enumerate(entries):
        templates = list(entry.dests) if key == "dest" else [entry.options.get(key)]
        if len(set(templates)) < len(templates):
            yield number, key, "the same destination is listed twice"
        for template in dict.fromkeys(each for each in templates if each is not None):
            if isinstance(template, SecretReference):
                places.append((str(number), repr(template)))
                continue
            try:
                place = _sample_place(number, entry, template, folder)
                places.append((str(number), normalized(place, entry)))
            except (UsageError, ValueError):
                continue  # reported already
    for first, second, _ in find_shared_places(places):
        earlier, later = sorted((int(first), int(second)))
        yield later, key, _describe_shared(entries[earlier], entries[later])


def _describe_shared(entry: MirrorEntry, other: MirrorEntry) -> str:
    if entry is other:
        return "one of the destinations is another one, or inside it"
    return (
        f"{entry.name} and {other.name} would share a place, or one would be inside the other: each mirror needs a"
        " place of its own"
    )
