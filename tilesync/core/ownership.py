"""Ownership of a destination: the iModel whose exports it holds, or the container where no iModel is known.

An owner is a text: the id of an iModel, or the bare URL of a container; an empty one is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from tilesync import __version__
from tilesync.model import POINTER, Export

_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_GUID_CHARS: Final = 36
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class RequestedOwner:
    """Whose exports a run is asked for, and the id of its export; None until SOURCE was asked for it."""

    owner: str
    export: str | None = None

    def with_export(self, export: Export) -> RequestedOwner:
        """The same, with the export that SOURCE came to; its owner counts where none was named."""
        of = export.stored_version.container_url if export.stored_version is not None else ""
        of = export.link.base if export.link is not None and not of else of
        return replace(self, owner=self.owner or export.imodel or of, export=export.id)


class OwnerMatch(Enum):
    """How a destination and what is asked for go together.

    `UNSURE`: that shows when the export is known. `SAME_EXPORT`: under another name, but an export that is held.
    """

    SAME = "same"
    SAME_EXPORT = "same export"
    OTHER = "other"
    UNSURE = "unsure"


def compare_owner(owner: str, requested: RequestedOwner, version_names: Iterable[str] | None) -> OwnerMatch:
    """Compare what is asked for with the owner of a destination, which has versions of these names; None where nobody
    has looked yet.

    An export is of one iModel, so a container belongs to an iModel where it is the one of an export that is held. Two
    containers of one name are one only where the name is an id, as the service gives: through a CDN, say.
    """
    if owner and requested.owner and same_owner(owner, requested.owner):
        return OwnerMatch.SAME
    if owner and requested.owner and not is_container(owner) and not is_container(requested.owner):
        return OwnerMatch.OTHER
    if requested.export is None:
        return OwnerMatch.UNSURE if owner or not requested.owner else OwnerMatch.SAME
    if not owner:
        return OwnerMatch.SAME
    both = is_container(owner) and is_container(requested.owner)
    if both and not _GUID.fullmatch(requested.export):
        return OwnerMatch.OTHER
    if version_names is None:
        return OwnerMatch.UNSURE
    known = _container_name(owner) == requested.export.lower() or any(
        is_version_of(name, requested.export) for name in version_names
    )
    return OwnerMatch.SAME_EXPORT if known else OwnerMatch.OTHER


def merge_owner(owner: str, requested: RequestedOwner, match: OwnerMatch) -> str:
    """The owner of a destination that has taken in what was asked for: an iModel says more than its container."""
    if match is OwnerMatch.OTHER or not owner:
        return requested.owner or owner
    known = (
        match is OwnerMatch.SAME_EXPORT
        and is_container(owner)
        and requested.owner
        and not is_container(requested.owner)
    )
    return requested.owner if known else owner


def same_owner(one: str, other: str) -> bool:
    """Whether two texts name one owner: ids and hosts compare without case."""
    return _normalize_owner(one) == _normalize_owner(other)


def is_container(owner: str) -> bool:
    """Whether an owner is a container, and no iModel."""
    return "://" in owner


def describe_owner(owner: str) -> str:
    """An owner for people."""
    return f"the container {owner}" if is_container(owner) else f"the iModel {owner}"


def make_owner_record(owner: str, *, stated: bool) -> dict[str, Any]:
    """What a destination keeps of its owner; `stated`: somebody said so with --adopt."""
    return {"owner": owner, **({"stated": True} if stated else {}), "tilesync": __version__}


def is_owner_stated(record: Mapping[str, Any] | None) -> bool:
    """Whether a record tells an owner that somebody stated: it holds while nothing is in the destination, too."""
    return (record or {}).get("stated") is True


def read_owner(record: Mapping[str, Any] | None) -> str | None:
    """The owner that a record, or `latest.json`, tells; None where it tells none: others can write there."""
    owner = (record or {}).get("owner")
    return owner if isinstance(owner, str) and owner else None


def names_other_owner(latest: Mapping[str, Any], owner: str) -> bool:
    """Whether `latest.json` names another owner, or did before it had that field."""
    said = read_owner(latest) or read_owner({"owner": latest.get("imodel")})
    return said is not None and not same_owner(said, owner)


def is_version_of(version: str, export: str) -> bool:
    """Whether a version is named after an export: by its id, or by that and a number."""
    stem, number = version[: len(export)], version[len(export) :]
    return stem.lower() == export.lower() and (not number or (number[0] == "-" and number[1:].isdecimal()))


def is_export_id(name: str) -> bool:
    """Whether a name is an id as the service gives them, or that of a version which is named after one."""
    return _GUID.match(name) is not None and is_version_of(name, name[:_GUID_CHARS])


def _normalize_owner(owner: str) -> str:
    if not is_container(owner):
        return owner.strip().lower()
    url = urlsplit(owner)
    port = f":{url.port}" if url.port not in {None, _DEFAULT_PORTS.get(url.scheme)} else ""
    return f"{url.scheme}://{url.hostname or ''}{port}{url.path.rstrip('/')}"


def _container_name(owner: str) -> str:
    """The last segment of a container's URL, in lower case: for a mesh export its id."""
    return urlsplit(owner).path.rstrip("/").rpartition("/")[2].lower() if is_container(owner) else ""


RESERVED_NAMES: Final = frozenset(
    {POINTER, "latest.json", "checked.json", "current", "versions", "manifests", ".tilesync"}
)
"""What tilesync writes at the top of a destination."""


_IGNORED_NAMES: Final = frozenset(
    {"lost+found", "system volume information", "$recycle.bin", "desktop.ini", "thumbs.db"}
)
"""What file systems and desktops leave in every folder; so do names that begin with a dot."""


_MAX_NAMES_IN_MESSAGE: Final = 3
"""Occupants that a message names."""


def find_foreign_entries(names: Iterable[str]) -> list[str]:
    """The names at the top of a place that somebody put there on purpose, in order."""
    return sorted(name for name in names if not _is_ignored(name))


def find_reserved_names(names: Iterable[str]) -> list[str]:
    """Those that stand where tilesync writes, whatever their case: some file systems and viewers know none."""
    return sorted(name for name in names if name.lower() in RESERVED_NAMES)


def join_names(names: list[str]) -> str:
    """Some names for a message."""
    more = f" and {len(names) - _MAX_NAMES_IN_MESSAGE} more" if len(names) > _MAX_NAMES_IN_MESSAGE else ""
    return ", ".join(names[:_MAX_NAMES_IN_MESSAGE]) + more


def _is_ignored(name: str) -> bool:
    lower = name.lower()
    return not name or lower in _IGNORED_NAMES or (lower.startswith(".") and lower not in RESERVED_NAMES)
