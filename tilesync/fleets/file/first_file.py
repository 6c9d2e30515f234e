"""First file of a fleet, with comments, for the iModels that an identity can see."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tilesync.api.locations import parse_itwin_id
from tilesync.app.service import Service, list_imodels, list_itwins
from tilesync.core.wording import format_count
from tilesync.errors import TilesyncError, UsageError
from tilesync.fleets.places import make_safe_name
from tilesync.protocols import Observer
from tilesync.values import dataclass

MAX_MODELS_SHOWN: Final = 50
"""iModels of an iTwin that the file names in comments."""

MAX_SHARED_NAME_CHARS: Final = 40
"""Characters of a name that several iTwins have, before the id."""

_CONTROL_CHARS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class ITwinModels:
    """An iTwin with its iModels: pairs of id and display name."""

    id: str
    name: str
    models: Sequence[tuple[str, str]]


async def list_models(itwins: Sequence[str], service: Service, observe: Observer) -> list[ITwinModels]:
    """List the iModels of iTwins; without any, of all iTwins that the identity can see. Raises the RunErrors.

    Their names are those of the list of iTwins; the file does without them if the identity may not list these.
    """
    try:
        names = {row.id: row.name for row in await list_itwins(service, observe)}
    except TilesyncError:
        if not itwins:
            raise
        names = {}
    ids = [parse_itwin_id(itwin).lower() for itwin in itwins] or list(names)
    if not ids:
        raise UsageError("this identity is a member of no iTwin", hint="give the id of one: --itwin ID")
    return [
        ITwinModels(
            itwin, names.get(itwin, ""), [(row.id, row.name) for row in await list_imodels(service, itwin, observe)]
        )
        for itwin in dict.fromkeys(ids)
    ]


def format_first_file(itwins: Sequence[ITwinModels]) -> str:
    """Format the file. Display names stand in comments and quoted texts, without control characters."""
    names = _make_entry_names(itwins)
    return _HEAD + "\n".join(_format_itwin(itwin, name) for itwin, name in zip(itwins, names, strict=True))


def _make_entry_names(itwins: Sequence[ITwinModels]) -> list[str]:
    """Make the names of the entries, each once, also without case; iTwins of one name get their ids too."""
    names = [
        make_safe_name(itwin.name, itwin.id) if itwin.name else f"itwin-{number}"
        for number, itwin in enumerate(itwins, start=1)
    ]
    counts = Counter(map(str.casefold, names))
    return [
        name if counts[name.casefold()] == 1 else f"{name[:MAX_SHARED_NAME_CHARS]}-{itwin.id}"
        for name, itwin in zip(names, itwins, strict=True)
    ]


_HEAD: Final = """\
# A fleet of tilesync: `tilesync fleet fleet.toml --check` reads it, `tilesync fleet fleet.toml` runs it.
# Relative paths start at the folder of this file. Secrets are never written here, only where they are:
# { env = "VARIABLE" }, { file = "PATH" } or { command = "COMMAND" }.

[fleet]
# jobs = 8                      # mirrors at the same time
# api-rate = 400                # API calls per minute of all mirrors together
# bwlimit = "50M"               # bytes per second of all mirrors together
# until = "06:00"               # stop then; the next night continues
# report = "fleet.json"
# metrics-file = "fleet.prom"   # for the textfile collector of Prometheus
# ping = { env = "PING_URL" }   # healthchecks: start, success, fail

[defaults]                      # every option of `tilesync mirror`, by its long name
# keep-versions = 10
# retry-for = "15m"
max-age = "7d"                  # report mirrors that are older while there is a newer export
"""


def _format_itwin(itwin: ITwinModels, entry_name: str) -> str:
    name = _clean(itwin.name)
    title = f"{name}: " if name else ""
    lines = [
        "",
        f"# {title}{format_count(len(itwin.models), 'iModel')}; new ones are mirrored from the next night on",
        "[[mirror]]",
        f"name = {_quote(entry_name)}",
        f"itwin = {_quote(itwin.id)}",
        f"dest = {_quote(f'tiles/{entry_name}/{{name}}')}",
        '# include = ["*"]             # globs on display names or ids',
        "# exclude = []",
    ]
    shown = itwin.models[:MAX_MODELS_SHOWN]
    lines += [f"#   {imodel}  {_clean(model_name)}" for imodel, model_name in shown]
    if len(itwin.models) > len(shown):
        lines.append(f"#   … and {len(itwin.models) - len(shown):,} more")
    return "\n".join(lines) + "\n"


def _clean(text: str) -> str:
    """Return a text in one line; half of a surrogate pair, which no file can hold, becomes a question mark."""
    return _CONTROL_CHARS.sub(" ", text).strip().encode(errors="replace").decode()


def _quote(text: str) -> str:
    """Quote a text for TOML: its basic strings have the escapes of JSON."""
    return json.dumps(text, ensure_ascii=False)
