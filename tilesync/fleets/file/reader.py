"""Fleet file: read a TOML file into settings, and list all its mistakes, each with its line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from tilesync.api.locations import parse_imodel_id, parse_itwin_id
from tilesync.core.masking import looks_like_secret
from tilesync.core.option_values import parse_time_of_day
from tilesync.errors import TilesyncError, UsageError
from tilesync.fleets.file.entry_checks import find_entry_mistakes
from tilesync.fleets.file.mistakes import FileMistake, InvalidFleetFile
from tilesync.fleets.file.option_table import (
    COMMAND_LINE_OPTIONS,
    OPTION_READERS,
    PATH_OPTIONS,
    Reader,
    read_duration,
    read_number,
    read_rate,
    read_required_text,
    read_texts,
    resolve_path,
)
from tilesync.fleets.file.settings import (
    DEFAULT_CALLS_PER_MINUTE,
    DEFAULT_CONNECTIONS,
    Credentials,
    FleetSettings,
    MirrorEntry,
    SecretReference,
)
from tilesync.fleets.places import list_placeholders
from tilesync.runtime.toml_file import TomlDocument, TomlPath, read_toml

MAX_CALLS_PER_MINUTE: Final = 100_000
MAX_TRANSFERS: Final = 4096
MAX_JOBS: Final = 256


def read_fleet_file(path: Path) -> FleetSettings:
    """Read and check a fleet file. Raises UsageError, and InvalidFleetFile with all mistakes; nothing is run."""
    document = read_toml(path)
    reader = _FleetFileReader(document)
    settings = reader.read()
    if reader.mistakes:
        raise InvalidFleetFile(path, tuple(reader.mistakes))
    return settings


class _FleetFileReader:
    """Reader of one document, which collects the mistakes."""

    def __init__(self, document: TomlDocument) -> None:
        self.mistakes: list[FileMistake] = []
        self._document = document
        self._folder = document.path.absolute().parent
        self._unread: dict[str, Any] = {}
        self._table: TomlPath = ()
        self._title = ""

    def read(self) -> FleetSettings:
        """Read all tables."""
        tables = self._document.tables
        self._refuse_secrets(tables, ())
        for key in tables.keys() - {"fleet", "defaults", "mirror"}:
            self._title = "the file"
            self._add(f"there is no table {key}: only [fleet], [defaults] and [[mirror]]", table=(key,))
        settings = self._read_fleet_table()
        self._begin(("defaults",), "[defaults]")
        defaults = self._read_options(is_entry=False)
        default_max_age = self._read("max-age", read_duration)
        default_credentials = self._read_credentials()
        self._end(set(OPTION_READERS))
        bwlimit = defaults.pop("bwlimit", None)
        entries = tables.get("mirror", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._title = "[[mirror]]"
            self._add("write [[mirror]], with two brackets, once for each mirror", table=("mirror",))
            entries = []
        elif not entries:
            self._title = "the file"
            self._add("there is no [[mirror]]")
        mirrors = [
            self._read_entry(number, defaults, default_credentials, default_max_age) for number in range(len(entries))
        ]
        self._check_entries([entry for entry in mirrors if entry is not None])
        return replace(
            settings,
            mirrors=tuple(entry for entry in mirrors if entry is not None),
            bwlimit=settings.bwlimit or bwlimit,
        )

    # --- one table ---

    def _begin(self, table: TomlPath, title: str) -> None:
        """Begin a table; its keys are taken out of it as they are read."""
        self._table, self._title = table, title
        found: Any = self._document.tables
        for part in table:
            found = found.get(part, {}) if isinstance(found, dict) else found[part]
        if not isinstance(found, Mapping):
            self._add(f"write {title} as a table")
            found = {}
        self._unread = dict(found)

    def _read(self, key: str, reader: Reader, default: Any = None) -> Any:
        """Read a key; the default if it is missing or wrong."""
        if key not in self._unread:
            return default
        try:
            return reader(self._unread.pop(key))
        except (ValueError, UsageError) as error:
            self._add(str(error), key)
            return default

    def _end(self, known: set[str]) -> None:
        """Report the keys that nobody read. `known`: names to suggest."""
        from difflib import get_close_matches

        for key in self._unread:
            if key in COMMAND_LINE_OPTIONS:
                self._add(f"not possible here: {COMMAND_LINE_OPTIONS[key]}", key)
                continue
            near = get_close_matches(key, known, 1)
            self._add(f"there is no such key{f'; did you mean {near[0]}?' if near else ''}", key)

    def _add(self, message: str, key: str = "", *, table: TomlPath | None = None) -> None:
        path = self._table if table is None else table
        place = self._document.format_place(path, key or None)
        if ":" not in place.removeprefix(str(self._document.path)):
            place = self._document.format_place(path)
        self.mistakes.append(FileMistake(place, self._title, key, message))

    def _refuse_secrets(self, value: Any, path: TomlPath) -> None:
        """Report each text that looks like a secret, without the text."""
        for where, text in _list_texts(value, path):
            if looks_like_secret(text):
                key = next((str(part) for part in reversed(where) if isinstance(part, str)), "")
                self._title = _format_table(where)
                place = self._document.format_place(where)
                message = "this looks like a secret: refer to it by { env = ... }, { file = ... } or { command = ... }"
                self.mistakes.append(FileMistake(place, self._title, key, message))

    # --- [fleet] ---

    def _read_fleet_table(self) -> FleetSettings:
        self._begin(("fleet",), "[fleet]")
        path = partial(_read_path, self._folder)
        settings = FleetSettings(
            self._document.path,
            (),
            jobs=self._read("jobs", partial(read_number, most=MAX_JOBS)),
            calls_per_minute=self._read(
                "api-rate", partial(read_number, most=MAX_CALLS_PER_MINUTE), DEFAULT_CALLS_PER_MINUTE
            ),
            connections=self._read("connections", partial(read_number, most=MAX_TRANSFERS), DEFAULT_CONNECTIONS),
            bwlimit=self._read("bwlimit", read_rate),
            until=self._read("until", read_time_of_day),
            max_duration=self._read("max-duration", read_duration),
            state_dir=self._read("state-dir", path),
            report=self._read("report", path),
            metrics_file=self._read("metrics-file", path),
            ping=self._read("ping", self._read_text_or_secret),
            on_failure=self._read("on-failure", read_required_text),
            on_success=self._read("on-success", read_required_text),
        )
        self._end(FLEET_KEYS)
        return settings

    # --- options and credentials, in [defaults] and [[mirror]] ---

    def _read_options(self, *, is_entry: bool) -> dict[str, Any]:
        """Read the options of `mirror`. Relative paths start at the folder of the file."""
        names = [name for name in OPTION_READERS if name in self._unread]
        options: dict[str, Any] = {}
        for name in names:
            missing = object()
            if (value := self._read(name, OPTION_READERS[name], missing)) is not missing:
                options[name] = str(resolve_path(value, self._folder)) if name in PATH_OPTIONS else value
        if "state-dir" in options and not is_entry:
            self._check_template("state-dir", options["state-dir"], needs_name=True)
        return options

    def _check_template(self, key: str, template: str, *, needs_name: bool) -> None:
        try:
            placeholders = list_placeholders(template)
        except ValueError as error:
            self._add(str(error), key)
            return
        if needs_name and not {"name", "imodel"} & set(placeholders):
            self._add("several mirrors would share it: write {name} or {imodel} into it", key)

    def _read_credentials(self) -> Credentials:
        token = self._read("token", self._read_secret)
        token_file = self._read("token-file", partial(_read_path, self._folder))
        token_command = self._read("token-command", read_required_text)
        if token_file is not None:
            token = SecretReference(file=token_file)
        elif token_command is not None:
            token = SecretReference(command=token_command)
        credentials = Credentials(
            token=token,
            share_key=self._read("share-key", self._read_secret),
            client_id=self._read("client-id", read_required_text, ""),
            client_secret=self._read("client-secret", self._read_secret),
            issuer_url=self._read("issuer-url", read_required_text, ""),
        )
        if bool(credentials.client_id) != (credentials.client_secret is not None):
            self._add("client-id and client-secret belong together: write both or neither", "client-id")
        return credentials

    def _read_secret(self, value: Any) -> SecretReference:
        """Read a reference to a secret. Raises ValueError for a text, which is not shown."""
        if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= {"env", "file", "command"}:
            raise ValueError("write a reference: { env = ... }, { file = ... } or { command = ... }")
        kind, text = next(iter(value.items()))
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{kind} must be a text that is not empty")
        if kind == "env":
            return SecretReference(env=text)
        return SecretReference(file=self._folder / text) if kind == "file" else SecretReference(command=text)

    def _read_text_or_secret(self, value: Any) -> str | SecretReference:
        return self._read_secret(value) if isinstance(value, dict) else read_required_text(value)

    def _read_dests(self, value: Any) -> tuple[str | SecretReference, ...]:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError("the list is empty")
        return tuple(map(self._read_text_or_secret, values))

    # --- [[mirror]] ---

    def _read_entry(
        self, number: int, defaults: Mapping[str, Any], credentials: Credentials, max_age: Any
    ) -> MirrorEntry | None:
        """Read a `[[mirror]]`; None if it cannot be checked further."""
        table = ("mirror", number)
        self._begin(table, f"[[mirror]] {number + 1}")
        name = self._read("name", read_required_text)
        if name is not None:
            self._title = f"[[mirror]] {name}"
        elif not self._has_mistake("name"):
            self._add("it has no name")
        kinds = [kind for kind in ("imodel", "itwin", "source") if kind in self._unread]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none of them"
            self._add(f"it needs one of imodel, itwin and source, and has {found}")
        imodel = self._read("imodel", _read_imodel_id)
        itwin = self._read("itwin", _read_itwin_id)
        source = self._read("source", self._read_text_or_secret)
        globs = {key: self._read(key, read_texts, ()) for key in ("include", "exclude")} if itwin else {}
        if itwin:  # file globs have names of their own here
            self._rename_key("include-files", "include")
            self._rename_key("exclude-files", "exclude")
        has_dest = "dest" in self._unread
        dests = self._read("dest", self._read_dests)
        if not has_dest:
            self._add("it has no dest")
        for dest in dests or ():
            if isinstance(dest, str):
                self._check_template("dest", dest, needs_name=itwin is not None)
        entry_options = self._read_options(is_entry=True)
        own = self._read_credentials()
        entry_max_age = self._read("max-age", read_duration, max_age)
        self._end({*OPTION_READERS, "name", "imodel", "itwin", "source", "dest", "max-age", "token", "share-key"})
        if name is None or dests is None or (imodel or itwin or source) is None or len(kinds) != 1:
            return None
        return MirrorEntry(
            name,
            dests,
            imodel,
            itwin,
            source,
            **globs,
            options={**defaults, **entry_options},
            credentials=credentials if own == Credentials() else own,
            max_age=entry_max_age,
            line=self._document.line_of(table),
        )

    def _rename_key(self, old: str, new: str) -> None:
        if old in self._unread:
            self._unread[new] = self._unread.pop(old)

    def _has_mistake(self, key: str) -> bool:
        return any(mistake.key == key and mistake.table == self._title for mistake in self.mistakes)

    def _check_entries(self, entries: list[MirrorEntry]) -> None:
        """Check what needs a whole entry, or several; only if the file can be read otherwise."""
        if self.mistakes:
            return
        for entry, key, message in find_entry_mistakes(entries, self._folder):
            number = next(
                number
                for number, table in enumerate(self._document.tables["mirror"])
                if table.get("name") == entry.name and self._document.line_of(("mirror", number)) == entry.line
            )
            self._table, self._title = ("mirror", number), f"[[mirror]] {entry.name}"
            self._add(message, key)


FLEET_KEYS: Final = {
    "jobs",
    "api-rate",
    "connections",
    "bwlimit",
    "until",
    "max-duration",
    "state-dir",
    "report",
    "metrics-file",
    "ping",
    "on-failure",
    "on-success",
}
"""Keys of [fleet]."""


def read_time_of_day(value: Any) -> time:
    """Read a local time of day: `06:00`, or a time of TOML."""
    return value if isinstance(value, time) else parse_time_of_day(str(value))


def _read_path(folder: Path, value: Any) -> Path:
    return resolve_path(read_required_text(value), folder)


def _read_imodel_id(value: Any) -> str:
    return _parse_id(value, parse_imodel_id)


def _read_itwin_id(value: Any) -> str:
    return _parse_id(value, parse_itwin_id)


def _parse_id(value: Any, parse: Callable[[str], str]) -> str:
    try:
        return parse(read_required_text(value))
    except TilesyncError as error:
        raise ValueError(f"{error}") from None


def _list_texts(value: Any, path: TomlPath) -> Iterator[tuple[TomlPath, str]]:
    """Yield all texts of a document with their paths; commands and names of variables are no secrets."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _list_texts(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _list_texts(inner, (*path, number))


def _format_table(path: TomlPath) -> str:
    if len(path) >= 2 and path[0] == "mirror" and isinstance(path[1], int):
        return f"[[mirror]] {path[1] + 1}"
    return f"[{path[0]}]" if len(path) > 1 else "the file"
