"""The manifest of a version: its lines, written and read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from tilesync import __version__
from tilesync.core.export_record import record_of
from tilesync.core.filters import globs
from tilesync.core.foreign_json import DATES, count, digest, lenient, loads, mapping, moment, optional, text, texts
from tilesync.core.safe_names import version_name
from tilesync.errors import UsageError
from tilesync.model import Blob, Completeness, Content, Held, Inventory, Unpacked, Version

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
    """The first line: what the version is. `export` is the service's own record, as far as its fields are known.

    `container` is the bare URL of its container. `missing_names` are what its files ask for and the container did not
    have; `unheld` says, a sentence each, what they ask for and no copy can hold. `missing` counts both. Where there are
    any, `damaged_names` are held files that are broken as the container holds them, and `elsewhere` says, a sentence
    each, which files lead viewers of a copy elsewhere. `content` is said where files may lie otherwise than stored.
    """
    return {
        "version": version.name,
        "export": record_of(version.record),
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
def _stamped(seconds: int) -> str | None:
    return stamp(datetime.fromtimestamp(seconds, UTC)) if seconds in DATES else None


def read_header(said: Mapping[str, Any], *, name: str) -> Version:
    """The version that the first line of the manifest `name` describes. Raises KeyError or ValueError for anything
    else: a manifest is read from where others can write, and the name of a version becomes a path.
    """
    record = record_of(mapping(mapping(said)["export"]))
    if said["version"] != name or version_name(name) != name:
        raise ValueError(f"it is about version {str(said['version'])[:80]!r}")
    try:
        wanted = globs(texts(said.get("include", ())), texts(said.get("exclude", ())))
    except UsageError as error:
        raise ValueError(str(error)) from None
    return Version(
        serial=0,
        name=name,
        export=record["id"],
        imodel=optional(said["imodel"], text),
        changeset=optional(said["changeset"], text),
        modified=text(said["modified"]),
        record=record,
        listed=True,
        published=moment(said["finished"]),
        files=count(said["files"]),
        bytes=count(said["bytes"]),
        inventory=Inventory(said.get("inventory", Inventory.LIST)),
        home=text(said.get("container") or ""),
        globs=wanted,
        content=Content(said.get("content") or Content.STORED),
        completeness=Completeness(**{each.name: count(said.get(each.name, 0)) for each in fields(Completeness)}),
    )


def lacking(said: Mapping[str, Any]) -> frozenset[str]:
    """What a version is known to lack or to hold broken, as the first line of its manifest says: names, sentences."""
    lists = "missing_names", "unheld", "damaged_names", "elsewhere"
    none: tuple[str, ...] = ()
    return frozenset(each for name in lists for each in lenient(said.get(name), texts, none))


def read_line(said: Mapping[str, Any]) -> Held:
    """The file that a line describes; its mtime is not in the manifest, and 0 here. A time that no file can have counts
    as none. Raises KeyError or ValueError for anything else than such a line.
    """
    stored = optional(mapping(said).get("stored"), mapping)
    of = said if stored is None else stored
    blob = Blob(
        text(said["name"]),
        count(of["size"]),
        text(said["etag"] or ""),
        digest(said["md5"], 16) if said["md5"] else None,
        optional(said["content_type"], text),
        optional(of["content_encoding"], text),
        optional(said["last_modified"], _seconds),
    )
    sha256 = digest(said["sha256"], 32) if said["sha256"] else b""
    if stored is not None and sha256:
        return Held(blob, sha256, 0, unpacked=Unpacked(count(said["size"]), digest(stored["sha256"], 32)))
    by_service = stored is None and said.get("proof") in {"service-md5", "service"} and blob.md5 is not None
    if not sha256 and not by_service:
        raise ValueError(f"nothing proves {blob.name}")
    return Held(blob, sha256, 0)


_EARLY = re.compile(r"\d{1,3}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
"""A time of a year before 1000, as earlier manifests tell it."""


def _seconds(said: Any) -> int | None:
    if _EARLY.fullmatch(text(said)):
        return None
    seconds = int(datetime.fromisoformat(moment(said)).timestamp())
    return seconds if seconds in DATES else None


def read_latest(data: bytes) -> Mapping[str, Any] | None:
    """What `latest.json` says; None where it is not ours, or not whole."""
    try:
        said = mapping(loads(data, most=LATEST))
        text(said["version"]), text(said["manifest"])
    except (ValueError, KeyError):
        return None
    return said


LATEST = 1 << 20
"""Bytes of a `latest.json` at most; it has some hundred."""
