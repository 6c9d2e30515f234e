"""The manifest of a version: its lines, written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from tilesync import __version__
from tilesync.errors import UsageError
from tilesync.model import Blob, Completeness, Content, Held, Inventory, Unpacked, Version
from tilesync.rules.filters import globs
from tilesync.rules.names import version_name

COPIED_AT_ONCE = 5000 << 20
"""Bytes of a blob that Azure copies in one piece at most. Source: "Put Blob From URL"."""


def stamp(moment: datetime) -> str:
    """A moment as text: UTC, whole seconds, ISO 8601."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def header(
    version: Version,
    missing: Sequence[str] = (),
    unheld: Sequence[str] = (),
    *,
    damaged: Sequence[str] = (),
    elsewhere: Sequence[str] = (),
) -> dict[str, Any]:
    """The first line: what the version is. `export` is the service's own record, without links.

    `container` is the bare URL of its container. `missing_names` are what its files ask for and the container did not
    have; `unheld` says, a sentence each, what they ask for and no copy can hold. `missing` counts both. Where there are
    any, `damaged_names` are held files that are broken as the container holds them, and `elsewhere` says, a sentence
    each, which files lead viewers of a copy elsewhere. `content` is said where files may lie otherwise than stored.
    """
    return {
        "version": version.name,
        "export": dict(version.record),
        "imodel": version.imodel,
        "changeset": version.changeset,
        "modified": version.modified,
        "files": version.files,
        "bytes": version.bytes,
        "finished": version.published,
        "inventory": version.inventory,
        "container": version.home,
        "include": list(version.globs.include),
        "exclude": list(version.globs.exclude),
        **({"content": version.content.value} if version.content is not Content.STORED else {}),
        **asdict(version.completeness),
        "missing_names": list(missing),
        "unheld": list(unheld),
        **({"damaged_names": list(damaged)} if damaged else {}),
        **({"elsewhere": list(elsewhere)} if elsewhere else {}),
        "tilesync": __version__,
    }


def line(held: Held) -> dict[str, Any]:
    """The line of one file; digests in hexadecimal, `last_modified` in UTC, null where the container says nothing.

    Where the storage copied it by itself there is no SHA-256, and `proof` says what proves it. Of a file that lies
    unpacked, `size` and `sha256` are those of the file; what is `stored`, and has the MD5 and the ETag, is told apart.
    """
    blob, unpacked = held.blob, held.unpacked
    return {
        "name": blob.name,
        "size": held.size,
        "sha256": held.sha256.hex() or None,
        **({} if held.sha256 else {"proof": _proof(held)}),
        "md5": blob.md5.hex() if blob.md5 is not None else None,
        "etag": blob.etag,
        "content_type": blob.content_type,
        "content_encoding": blob.content_encoding if unpacked is None else None,
        "last_modified": None if blob.last_modified is None else _stamped(blob.last_modified),
        **({} if unpacked is None else {"stored": _stored(blob, unpacked)}),
    }


def _proof(held: Held) -> str:
    """What proves a file whose bytes never came here: in one piece the storage compares its MD5, in several it does
    not. Source: "Put Blob From URL", "Put Block From URL".
    """
    return "service-md5" if held.blob.size <= COPIED_AT_ONCE else "service"


def _stored(blob: Blob, unpacked: Unpacked) -> dict[str, Any]:
    return {"size": blob.size, "sha256": unpacked.stored_sha256.hex(), "content_encoding": blob.content_encoding}


@lru_cache(1024)
def _stamped(seconds: int) -> str:
    return stamp(datetime.fromtimestamp(seconds, UTC))


def read_header(said: Mapping[str, Any], *, name: str) -> Version:
    """The version that the first line of the manifest `name` describes. Raises KeyError, TypeError or ValueError for
    anything else: a manifest is read from where others can write, and the name of a version becomes a path.
    """
    record = said["export"]
    if said["version"] != name or version_name(name) != name:
        raise ValueError(f"it is about version {said['version']!r}")
    try:
        wanted = globs(map(str, said.get("include", ())), map(str, said.get("exclude", ())))
    except UsageError as error:
        raise ValueError(str(error)) from None
    return Version(
        serial=0,
        name=str(said["version"]),
        export=str(record["id"]),
        imodel=said["imodel"],
        changeset=said["changeset"],
        modified=str(said["modified"]),
        record=record,
        listed=True,
        published=said["finished"],
        files=_count(said["files"]),
        bytes=_count(said["bytes"]),
        inventory=str(said.get("inventory", Inventory.LIST)),
        home=str(said.get("container") or ""),
        globs=wanted,
        content=Content(said.get("content") or Content.STORED),
        completeness=Completeness(**{count.name: _count(said.get(count.name, 0)) for count in fields(Completeness)}),
    )


def _count(said: Any) -> int:
    """A number of files or bytes. Raises TypeError or ValueError for anything else."""
    count = int(said)
    if not 0 <= count < 1 << 63:
        raise ValueError(f"{said!r} is no count")
    return count


def read_line(said: Mapping[str, Any]) -> Held:
    """The file that a line describes; its mtime is not in the manifest, and 0 here.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    modified, stored = said["last_modified"], said.get("stored")
    of = said if stored is None else stored
    blob = Blob(
        str(said["name"]),
        _count(of["size"]),
        str(said["etag"] or ""),
        bytes.fromhex(said["md5"]) if said["md5"] else None,
        said["content_type"],
        of["content_encoding"],
        int(datetime.fromisoformat(modified).timestamp()) if modified else None,
    )
    if stored is not None and said["sha256"]:
        unpacked = Unpacked(_count(said["size"]), bytes.fromhex(stored["sha256"]))
        return Held(blob, bytes.fromhex(said["sha256"]), 0, unpacked=unpacked)
    by_service = stored is None and said.get("proof") in {"service-md5", "service"} and blob.md5 is not None
    if not said["sha256"] and not by_service:
        raise ValueError(f"nothing proves {blob.name}")
    return Held(blob, bytes.fromhex(said["sha256"] or ""), 0)
