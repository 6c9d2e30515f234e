"""The manifest of a version: its lines, written and read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from tilesync import __version__
from tilesync.core.export_record import sanitize_record
from tilesync.core.filters import parse_globs
from tilesync.core.foreign_json import (
    VALID_EPOCH_SECONDS,
    parse_json,
    read_count,
    read_digest,
    read_mapping,
    read_optional,
    read_or_default,
    read_text,
    read_texts,
    read_timestamp,
)
from tilesync.core.safe_names import make_version_name
from tilesync.errors import UsageError
from tilesync.model import Blob, Completeness, Content, Inventory, StoredFile, UnpackedFile, Version

MAX_SINGLE_COPY_BYTES = 5000 << 20
"""Bytes of a blob that Azure copies in one piece at most. Source: "Put Blob From URL"."""


def format_timestamp(moment: datetime) -> str:
    """A moment as text: UTC, whole seconds, ISO 8601."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_header(
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
        "export": sanitize_record(version.record),
        "imodel": version.imodel,
        "changeset": version.changeset,
        "modified": version.modified,
        "files": version.files,
        "bytes": version.bytes,
        "finished": version.published_at,
        "inventory": version.inventory,
        "container": version.container_url,
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


def make_line(stored: StoredFile) -> dict[str, Any]:
    """The line of one file; digests in hexadecimal, `last_modified` in UTC, null where the container says nothing.

    Where the storage copied it by itself there is no SHA-256, and `proof` says what proves it. Of a file that lies
    unpacked, `size` and `sha256` are those of the file; what is `stored`, and has the MD5 and the ETag, is told apart.
    """
    blob, unpacked = stored.blob, stored.unpacked
    return {
        "name": blob.name,
        "size": stored.size,
        "sha256": stored.sha256.hex() or None,
        **({} if stored.sha256 else {"proof": _proof_kind(stored)}),
        "md5": blob.md5.hex() if blob.md5 is not None else None,
        "etag": blob.etag,
        "content_type": blob.content_type,
        "content_encoding": blob.content_encoding if unpacked is None else None,
        "last_modified": None if blob.last_modified is None else _format_epoch(blob.last_modified),
        **({} if unpacked is None else {"stored": _stored_fields(blob, unpacked)}),
    }


def _proof_kind(stored: StoredFile) -> str:
    """What proves a file whose bytes never came here: in one piece the storage compares its MD5, in several it does
    not. Source: "Put Blob From URL", "Put Block From URL".
    """
    return "service-md5" if stored.blob.size <= MAX_SINGLE_COPY_BYTES else "service"


def _stored_fields(blob: Blob, unpacked: UnpackedFile) -> dict[str, Any]:
    return {"size": blob.size, "sha256": unpacked.stored_sha256.hex(), "content_encoding": blob.content_encoding}


@lru_cache(1024)
def _format_epoch(seconds: int) -> str | None:
    return format_timestamp(datetime.fromtimestamp(seconds, UTC)) if seconds in VALID_EPOCH_SECONDS else None


def read_header(document: Mapping[str, Any], *, name: str) -> Version:
    """The version that the first line of the manifest `name` describes. Raises KeyError or ValueError for anything
    else: a manifest is read from where others can write, and the name of a version becomes a path.
    """
    record = sanitize_record(read_mapping(read_mapping(document)["export"]))
    if document["version"] != name or make_version_name(name) != name:
        raise ValueError(f"it is about version {str(document['version'])[:80]!r}")
    try:
        wanted = parse_globs(read_texts(document.get("include", ())), read_texts(document.get("exclude", ())))
    except UsageError as error:
        raise ValueError(str(error)) from None
    return Version(
        serial=0,
        name=name,
        export=record["id"],
        imodel=read_optional(document["imodel"], read_text),
        changeset=read_optional(document["changeset"], read_text),
        modified=read_text(document["modified"]),
        record=record,
        listed=True,
        published_at=read_timestamp(document["finished"]),
        files=read_count(document["files"]),
        bytes=read_count(document["bytes"]),
        inventory=Inventory(document.get("inventory", Inventory.LIST)),
        container_url=read_text(document.get("container") or ""),
        globs=wanted,
        content=Content(document.get("content") or Content.STORED),
        completeness=Completeness(
            **{each.name: read_count(document.get(each.name, 0)) for each in fields(Completeness)}
        ),
    )


def read_defects(header_line: Mapping[str, Any]) -> frozenset[str]:
    """What a version is known to lack or to hold broken, as the first line of its manifest says: names, sentences."""
    lists = "missing_names", "unheld", "damaged_names", "elsewhere"
    none: tuple[str, ...] = ()
    return frozenset(each for name in lists for each in read_or_default(header_line.get(name), read_texts, none))


def read_line(document: Mapping[str, Any]) -> StoredFile:
    """The file that a line describes; its mtime is not in the manifest, and 0 here. A time that no file can have counts
    as none. Raises KeyError or ValueError for anything else than such a line.
    """
    stored = read_optional(read_mapping(document).get("stored"), read_mapping)
    of = document if stored is None else stored
    blob = Blob(
        read_text(document["name"]),
        read_count(of["size"]),
        read_text(document["etag"] or ""),
        read_digest(document["md5"], 16) if document["md5"] else None,
        read_optional(document["content_type"], read_text),
        read_optional(of["content_encoding"], read_text),
        read_optional(document["last_modified"], _parse_epoch),
    )
    sha256 = read_digest(document["sha256"], 32) if document["sha256"] else b""
    if stored is not None and sha256:
        return StoredFile(
            blob, sha256, 0, unpacked=UnpackedFile(read_count(document["size"]), read_digest(stored["sha256"], 32))
        )
    by_service = stored is None and document.get("proof") in {"service-md5", "service"} and blob.md5 is not None
    if not sha256 and not by_service:
        raise ValueError(f"nothing proves {blob.name}")
    return StoredFile(blob, sha256, 0)


_EARLY_TIMESTAMP = re.compile(r"\d{1,3}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
"""A time of a year before 1000, as earlier manifests tell it."""


def _parse_epoch(value: Any) -> int | None:
    if _EARLY_TIMESTAMP.fullmatch(read_text(value)):
        return None
    seconds = int(datetime.fromisoformat(read_timestamp(value)).timestamp())
    return seconds if seconds in VALID_EPOCH_SECONDS else None


def read_latest(data: bytes) -> Mapping[str, Any] | None:
    """What `latest.json` says; None where it is not ours, or not whole."""
    try:
        said = read_mapping(parse_json(data, max_bytes=MAX_LATEST_BYTES))
        read_text(said["version"]), read_text(said["manifest"])
    except (ValueError, KeyError):
        return None
    return said


MAX_LATEST_BYTES = 1 << 20
"""Bytes of a `latest.json` at most; it has some hundred."""
