"""Ownership of a destination: the iModel whose exports it stores, or the container if no iModel is known.

An owner is a string: the id of an iModel, or the URL of a container without its query. An empty one means unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from tilesync import __version__
from tilesync.model import POINTER, Export
from tilesync.values import dataclass

_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_GUID_CHARS: Final = 36
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class RequestedOwner:
    """Owner of the exports that a run mirrors. `export` is the id of its export, or None until SOURCE is resolved."""

    owner: str
    export: str | None = None

    def with_export(self, export: Export) -> RequestedOwner:
        """Return a copy for the resolved export. If no owner was given, that of the export is used."""
        container_url = export.stored_version.container_url if export.stored_version is not None else ""
        container_url = export.link.base if export.link is not None and not container_url else container_url
        return replace(self, owner=self.owner or export.imodel or container_url, export=export.id)


class OwnerMatch(Enum):
    """Result of comparing the owner of a destination with the requested one.

    `SAME_EXPORT`: the owners differ, but the destination has the requested export, so they mean the same. `UNSURE`:
    the export or the versions of the destination must be known to decide.
    """

    SAME = "same"
    SAME_EXPORT = "same export"
    OTHER = "other"
    UNSURE = "unsure"


def compare_owner(owner: str, requested: RequestedOwner, version_names: Iterable[str] | None) -> OwnerMatch:
    """Compare the owner of a destination with the requested one.

    `version_names`: the versions of the destination; None if not read yet.

    An iModel and a container, or two URLs of a container (one may be that of a CDN), are the same owner if the
    destination already has the requested export, because an export belongs to one iModel. For two URLs the id of the
    export must be a GUID: only the service's ids are unique.
    """
    if owner and requested.owner and same_owner(owner, requested.owner):
        return OwnerMatch.SAME
    if owner and requested.owner and not is_container(owner) and not is_container(requested.owner):
        return OwnerMatch.OTHER
    if requested.export is None:
        return OwnerMatch.UNSURE if owner or not requested.owner else OwnerMatch.SAME
    if not owner:
        return OwnerMatch.SAME
    are_containers = is_container(owner) and is_container(requested.owner)
    if are_containers and not _GUID.fullmatch(requested.export):
        return OwnerMatch.OTHER
    if version_names is None:
        return OwnerMatch.UNSURE
    has_export = _container_name(owner) == requested.export.lower() or any(
        is_version_of(name, requested.export) for name in version_names
    )
    return OwnerMatch.SAME_EXPORT if has_export else OwnerMatch.OTHER


def merge_owner(owner: str, requested: RequestedOwner, match: OwnerMatch) -> str:
    """Return the owner to record when a destination gets an export; an iModel is preferred to a container."""
    if match is OwnerMatch.OTHER or not owner:
        return requested.owner or owner
    is_imodel_found = (
        match is OwnerMatch.SAME_EXPORT
        and is_container(owner)
        and requested.owner
        and not is_container(requested.owner)
    )
    return requested.owner if is_imodel_found else owner


def same_owner(one: str, other: str) -> bool:
    """Return whether two texts name the same owner; ids and hosts compare without case."""
    return _normalize_owner(one) == _normalize_owner(other)


def is_container(owner: str) -> bool:
    """Return whether an owner is a container, not an iModel."""
    return "://" in owner


def describe_owner(owner: str) -> str:
    """Describe an owner for a message."""
    return f"the container {owner}" if is_container(owner) else f"the iModel {owner}"


def make_owner_record(owner: str, *, stated: bool) -> dict[str, Any]:
    """Make the owner record of a destination. `stated`: a person confirmed the owner with --adopt."""
    return {"owner": owner, **({"stated": True} if stated else {}), "tilesync": __version__}


def is_owner_stated(record: Mapping[str, Any] | None) -> bool:
    """Return whether a person stated the owner: then it also applies while the destination is empty."""
    return (record or {}).get("stated") is True


def read_owner(record: Mapping[str, Any] | None) -> str | None:
    """Return the owner in a record or in `latest.json`; None if it has none, or if another program wrote nonsense."""
    owner = (record or {}).get("owner")
    return owner if isinstance(owner, str) and owner else None


def names_other_owner(latest: Mapping[str, Any], owner: str) -> bool:
    """Return whether `latest.json` names another owner, or another iModel if it is too old to have an owner."""
    named = read_owner(latest) or read_owner({"owner": latest.get("imodel")})
    return named is not None and not same_owner(named, owner)


def is_version_of(version: str, export: str) -> bool:
    """Return whether a version is named after an export: by its id, or by the id and a number."""
    stem, number = version[: len(export)], version[len(export) :]
    return stem.lower() == export.lower() and (not number or (number[0] == "-" and number[1:].isdecimal()))


def is_export_id(name: str) -> bool:
    """Return whether a name is an id of the service, or a version name based on one."""
    return _GUID.match(name) is not None and is_version_of(name, name[:_GUID_CHARS])


def _normalize_owner(owner: str) -> str:
    if not is_container(owner):
        return owner.strip().lower()
    url = urlsplit(owner)
    port = f":{url.port}" if url.port not in {None, _DEFAULT_PORTS.get(url.scheme)} else ""
    return f"{url.scheme}://{url.hostname or ''}{port}{url.path.rstrip('/')}"


def _container_name(owner: str) -> str:
    """Return the last segment of a container URL in lower case: for a mesh export, its id."""
    return urlsplit(owner).path.rstrip("/").rpartition("/")[2].lower() if is_container(owner) else ""


RESERVED_NAMES: Final = frozenset(
    {POINTER, "latest.json", "checked.json", "current", "versions", "manifests", ".tilesync"}
)
"""Names that tilesync writes at the top of a destination."""


_IGNORED_NAMES: Final = frozenset(
    {"lost+found", "system volume information", "$recycle.bin", "desktop.ini", "thumbs.db"}
)
"""Names that file systems and desktops create in any folder; names with a leading dot are ignored too."""


_MAX_NAMES_IN_MESSAGE: Final = 3
"""Maximum number of names in a message."""


def find_foreign_entries(names: Iterable[str]) -> list[str]:
    """Return the names, sorted, without those that file systems and desktops create by themselves."""
    return sorted(name for name in names if not _is_ignored(name))


def find_reserved_names(names: Iterable[str]) -> list[str]:
    """Return the names that tilesync itself writes, in upper or lower case: some file systems ignore the case."""
    return sorted(name for name in names if name.lower() in RESERVED_NAMES)


def join_names(names: list[str]) -> str:
    """Join a few names for a message."""
    more = f" and {len(names) - _MAX_NAMES_IN_MESSAGE} more" if len(names) > _MAX_NAMES_IN_MESSAGE else ""
    return ", ".join(names[:_MAX_NAMES_IN_MESSAGE]) + more


def _is_ignored(name: str) -> bool:
    lower = name.lower()
    return not name or lower in _IGNORED_NAMES or (lower.startswith(".") and lower not in RESERVED_NAMES)
