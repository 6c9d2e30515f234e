"""`[defaults]` and `[[mirror]]` of a fleet file: options of `mirror`, identities, sources and destinations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from tilesync.fleets.file.option_table import IDENTITY_OPTIONS, OPTION_READERS, PATH_OPTIONS
from tilesync.fleets.file.settings import Credentials, MirrorEntry, SecretReference
from tilesync.fleets.file.table_reader import TableReader
from tilesync.fleets.file.value_readers import (
    read_command,
    read_dests,
    read_duration,
    read_imodel,
    read_itwin,
    read_name,
    read_path,
    read_reference,
    read_required_text,
    read_source,
    read_texts,
)
from tilesync.fleets.places import list_placeholders
from tilesync.values import dataclass

_SOURCE_KINDS: Final = ("imodel", "itwin", "source")

_TOKEN_KEYS: Final = ("token", "token-file", "token-command")

_IDENTITY_KEYS: Final = (*_TOKEN_KEYS, "share-key", "client-id", "client-secret", "issuer-url")

DEFAULTS_KEYS: Final = {*OPTION_READERS, *IDENTITY_OPTIONS, *_IDENTITY_KEYS, "max-age"}
"""Keys of [defaults]."""

ENTRY_KEYS: Final = {*DEFAULTS_KEYS, *_SOURCE_KINDS, "name", "dest", "include-files", "exclude-files"}
"""Keys of [[mirror]]."""

_EMPTY_PLACEHOLDERS: Final = {"imodel": ("itwin",), "source": ("imodel", "itwin")}
"""Placeholders that have no value, by the kind of the source."""


@dataclass(frozen=True, slots=True)
class EntryDefaults:
    """Values of [defaults], for every mirror that has none of its own. `bwlimit`: of all mirrors together."""

    options: Mapping[str, Any] = field(default_factory=dict)
    credentials: Credentials = field(default_factory=Credentials)
    max_age: timedelta | None = None
    bwlimit: float | None = None


def read_defaults(table: TableReader, folder: Path) -> EntryDefaults:
    """Read [defaults]. `folder`: where relative paths start."""
    options = _read_options(table, folder)
    if "state-dir" in options:
        _check_template(table, "state-dir", options["state-dir"], needs_name=True)
    bwlimit = options.pop("bwlimit", None)
    defaults = EntryDefaults(options, _read_credentials(table, folder), table.read("max-age", read_duration), bwlimit)
    table.refuse_unread(DEFAULTS_KEYS)
    return defaults


def _read_options(table: TableReader, folder: Path, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read the options of `mirror`. `names`: the key of an option, where it has another one than its name."""
    options: dict[str, Any] = {}
    for name, reader in OPTION_READERS.items():
        if name in PATH_OPTIONS:
            reader = partial(_read_path_option, folder)
        value = table.read((names or {}).get(name, name), reader, _MISSING)
        if value is not _MISSING:
            options[name] = value
    return options


_MISSING: Final = object()


def _read_path_option(folder: Path, value: Any) -> str:
    return str(read_path(folder, value)) if value != "" else ""


# --- identity ---


def _read_credentials(table: TableReader, folder: Path) -> Credentials:
    reference = partial(read_reference, folder)
    token_file = table.read("token-file", partial(read_path, folder))
    token_command = table.read("token-command", read_command)
    token = table.read("token", reference)
    if token_file is not None:
        token = SecretReference(file=token_file)
    elif token_command is not None:
        token = SecretReference(command=token_command)
    credentials = Credentials(
        token,
        share_key=table.read("share-key", reference),
        client_id=table.read("client-id", read_required_text, ""),
        client_secret=table.read("client-secret", reference),
        issuer_url=table.read("issuer-url", read_required_text, ""),
    )
    _check_identity(table)
    return credentials


def _check_identity(table: TableReader) -> None:
    """Add a mistake if a table gives half an identity, or several."""
    given = [key for key in (*_TOKEN_KEYS, "share-key", "client-id") if table.has(key)]
    if len(given) > 1:
        table.add(f"{' and '.join(given)} are several identities: write one", given[1])
    if table.has("client-id") != table.has("client-secret"):
        key = "client-id" if table.has("client-id") else "client-secret"
        table.add("client-id and client-secret belong together: write both or neither", key)
    elif table.has("issuer-url") and not table.has("client-id"):
        table.add("it belongs to client-id and client-secret: write them too", "issuer-url")


# --- [[mirror]] ---


def read_entry(table: TableReader, defaults: EntryDefaults, folder: Path) -> MirrorEntry | None:
    """Read a [[mirror]]; None if it has no usable name, source or destination."""
    name = _read_entry_name(table)
    kind = _find_source_kind(table)
    imodel, itwin = table.read("imodel", read_imodel), table.read("itwin", read_itwin)
    source = table.read("source", partial(read_source, folder))
    dests = _read_entry_dests(table, kind, folder)
    options, globs = _read_entry_options(table, defaults, kind, folder)
    own = _read_credentials(table, folder)
    max_age = table.read("max-age", read_duration, defaults.max_age)
    table.refuse_unread(ENTRY_KEYS)
    if name is None or not dests or kind is None or (imodel or itwin or source) is None:
        return None
    return MirrorEntry(
        name,
        dests,
        imodel,
        itwin,
        source,
        **globs,
        options=options,
        credentials=defaults.credentials if own == Credentials() else own,
        max_age=max_age,
        line=table.line,
    )


def _read_entry_name(table: TableReader) -> str | None:
    name: str | None = table.read("name", read_name)
    if name is not None:
        table.title = f"[[mirror]] {name}"
    elif not table.has("name"):
        table.add("it has no name")
    return name


def _find_source_kind(table: TableReader) -> str | None:
    """Return the one key of the table that says what is mirrored; None if there are none or several."""
    kinds = [kind for kind in _SOURCE_KINDS if table.has(kind)]
    if len(kinds) == 1:
        return kinds[0]
    found = " and ".join(kinds) or "none of them"
    table.add(f"it needs one of imodel, itwin and source, and has {found}", kinds[1] if kinds else "")
    return None


def _read_entry_dests(table: TableReader, kind: str | None, folder: Path) -> tuple[str | SecretReference, ...] | None:
    dests: tuple[str | SecretReference, ...] | None = table.read("dest", partial(read_dests, folder))
    if not table.has("dest"):
        table.add("it has no dest")
    for dest in dests or ():
        if isinstance(dest, str):
            if not _check_template(table, "dest", dest, needs_name=kind == "itwin", kind=kind):
                dests = None
        elif kind == "itwin":
            table.add("all iModels of the iTwin would share it: write a text with {name} or {imodel}", "dest")
    return dests


def _read_entry_options(
    table: TableReader, defaults: EntryDefaults, kind: str | None, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the options of an entry, with the defaults, and its globs for iModels.

    `include` and `exclude` of an iTwin are for its iModels; the globs for files have other keys there.
    """
    names, globs = {"include": "include-files", "exclude": "exclude-files"}, {}
    if kind == "itwin":
        globs = {key: table.read(key, read_texts, ()) for key in names}
    own = _read_options(table, folder, names if kind == "itwin" else None)
    options = {name: value for name, value in {**defaults.options, **own}.items() if value != ""}
    if "state-dir" in options and ("state-dir" in own or kind != "itwin"):
        _check_template(table, "state-dir", options["state-dir"], needs_name=kind == "itwin", kind=kind)
    return options, globs


def _check_template(table: TableReader, key: str, template: str, *, needs_name: bool, kind: str | None = None) -> bool:
    """Add a mistake for a template that cannot be expanded, or not to a place for each mirror; return if it is good."""
    try:
        placeholders = list_placeholders(template)
    except ValueError as error:
        table.add(str(error), key)
        return False
    empty = [each for each in _EMPTY_PLACEHOLDERS.get(kind or "", ()) if each in placeholders]
    if empty:
        table.add(f"{{{empty[0]}}} has no value here: the mirror has {kind}, and no {empty[0]}", key)
    elif needs_name and not {"name", "imodel"} & set(placeholders):
        table.add("several mirrors would share it: write {name} or {imodel} into it", key)
    return not empty
