"""What leads to the versions of a destination in an object store: manifests, the pointer, latest.json; each one PUT.

A version that retires keeps its place until the trash is emptied: only its manifest goes there at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

from tilesync.core.foreign_json import MAX_DOCUMENT_BYTES, parse_json, read_mapping
from tilesync.core.http_headers import CachePolicy
from tilesync.core.manifest import read_latest
from tilesync.core.ownership import (
    find_foreign_entries,
    find_reserved_names,
    is_owner_stated,
    join_names,
    make_owner_record,
    names_other_owner,
    read_owner,
)
from tilesync.errors import ConditionFailed, DestinationBusy, DestinationError
from tilesync.model import POINTER, Version
from tilesync.model.storage import ObjectHeaders, ObjectInfo
from tilesync.protocols import Objects, ObjectStream
from tilesync.runtime.threads import map_in_threads
from tilesync.stores.base import DefaultLayoutMixin
from tilesync.stores.object_store.files import OBJECTS_PER_DELETE, VERSIONS_PREFIX, LockGuard
from tilesync.stores.status_files import CHECKED_FILE, encode_document, parse_document

MANIFESTS_PREFIX = "manifests/"
LATEST_KEY = "latest.json"
OWNERSHIP_KEY = ".tilesync/ownership.json"
SIDECAR_PREFIX = ".tilesync/notes/"
LOCK_KEY = ".tilesync/lock"
TRASH_PREFIX = ".tilesync/trash/"

_LINE_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
_TRASH_NAME = re.compile(r"(\d{8}T\d{6}Z)-(.+)\.jsonl")
_JSONL_TYPE = "application/jsonl"
_PRIVATE_JSONL_HEADERS = ObjectHeaders(_JSONL_TYPE, None, "no-cache")
_STATUS_HEADERS = ObjectHeaders("application/json", None, "no-cache")
"""For what no viewer asks for: what is read there must be what stands there now."""


class KeyValue(Protocol):
    """Facts that are kept between runs."""

    def set_value(self, key: str, value: str) -> None:
        """Keep one."""

    def get_value(self, key: str) -> str | None:
        """One that was kept."""


class ReadOnlyObjectPublication:
    """Reading."""

    def __init__(self, objects: Objects, key_value: KeyValue | None = None) -> None:
        self._objects = objects
        self._key_value = key_value
        self._latest: Mapping[str, Any] | None = None
        self._knows_latest = False
        self._latest_etag = ""
        self._owner: str | None = None
        self._knows_owner = False

    def prefix(self, version: Version) -> str:
        """What leads from the pointer to the version's own folder."""
        return f"{VERSIONS_PREFIX}{version.name}/"

    def refuse_foreign(self) -> None:
        """Raise DestinationError when a tileset, or a `latest.json`, that tilesync did not write stands at the top."""
        names = POINTER, LATEST_KEY
        found = map_in_threads(self._objects.find, names, max_threads=2)
        there = next((name for name, each in zip(names, found, strict=True) if each is not None), None)
        if there is not None and self.latest() is None and not self.manifest_names():
            raise DestinationError(
                f"{self._objects.display_name} holds a {there} that tilesync did not write",
                hint="choose an empty place, or one that tilesync made",
            )

    def refuse_occupied(self, *, adopt: bool) -> None:
        """Raise DestinationError where things of others lie in a place that is no destination yet. With `adopt` that is
        meant, and only what is in the way is refused.
        """
        if self.latest() is not None or self._objects.find(LOCK_KEY) is not None or self.manifest_names():
            return
        there = self._find_foreign_names()
        if in_the_way := find_reserved_names(there):
            raise DestinationError(
                f"{self._objects.display_name} is no destination of tilesync, and holds {join_names(in_the_way)}",
                hint="choose an empty place, or one that tilesync made",
            )
        if there and not adopt:
            raise DestinationError(
                f"{self._objects.display_name} is no destination of tilesync, and is not empty: it holds {join_names(there)}",
                hint="choose another prefix; or give --adopt, if these are to stay beside the tiles",
            )

    def _find_foreign_names(self) -> list[str]:
        """What others put at the top, of the first page where there is any; and, however much there is, what is in the
        way. Folders are what names begin with.
        """
        pages = (
            find_foreign_entries({each.name.partition("/")[0] for each in page})
            for page in self._objects.list_pages("")
        )
        there = next(filter(None, pages), [])
        inside = [name for name in (VERSIONS_PREFIX, MANIFESTS_PREFIX) if there and any(self._objects.list_pages(name))]
        return sorted({*there, *(name.rstrip("/") for name in inside)})

    def manifest_names(self) -> list[str]:
        """The versions that have a manifest."""
        names = (each.name for page in self._objects.list_pages(MANIFESTS_PREFIX) for each in page)
        found = (name[len(MANIFESTS_PREFIX) :] for name in names if name.endswith(".jsonl"))
        return sorted(name.removesuffix(".jsonl") for name in found if "/" not in name)

    def retired_names(self) -> set[str]:
        """The retired versions whose files still lie in their place: until the trash is emptied."""
        return {match[2] for _, match in self._list_trash()}

    def _list_trash(self) -> list[tuple[str, re.Match[str]]]:
        """What lies in the trash, and when it came there, with the name of its version; of others nothing is known."""
        names = [each.name for page in self._objects.list_pages(TRASH_PREFIX) for each in page]
        return [(name, match) for name in names if (match := _TRASH_NAME.fullmatch(name[len(TRASH_PREFIX) :]))]

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """The lines of a manifest, the first one about the version. Raises DestinationError when it cannot be read."""
        name = f"{MANIFESTS_PREFIX}{version}.jsonl"
        lines = self._read_lines(name)
        if lines is None:
            raise DestinationError(f"cannot read the manifest {name}: it is not in {self._objects.display_name}")
        try:
            yield from (read_mapping(parse_json(line)) for line in lines)
        except ValueError as error:
            raise DestinationError(f"the manifest {name} is damaged ({error})") from error

    def _read_lines(self, name: str) -> Iterator[bytes] | None:
        stored = self._objects.read(name)
        return _split_lines(stored.chunks) if stored is not None else None

    def read_sidecar(self, version: Version) -> Iterator[Mapping[str, Any]] | None:
        """What was noted of a version beside its manifest; None where nothing was."""
        lines = self._read_lines(f"{SIDECAR_PREFIX}{version.name}.jsonl")
        return (read_mapping(parse_json(line)) for line in lines) if lines is not None else None

    def latest(self) -> Mapping[str, Any] | None:
        """What `latest.json` says; None when there is none, or one that is not ours. Asked for once."""
        if not self._knows_latest:
            stored = self._objects.read(LATEST_KEY)
            self._latest_etag = stored.info.etag if stored is not None else ""
            self._latest = read_latest(b"".join(stored.chunks)) if stored is not None else None
            self._knows_latest = True
        return self._latest

    def owner(self) -> str | None:
        """Whose exports the destination holds: as `latest.json` tells, else the record that is older than the first of
        it; None where neither does. Asked for once.
        """
        if owner := read_owner(self.latest()):
            return owner
        if not self._knows_owner:
            self._owner, self._knows_owner = read_owner(_parse_stored_document(self._objects.read(OWNERSHIP_KEY))), True
        return self._owner

    def is_vacant(self) -> bool:
        """Whether nothing of an export lies here, and nobody stated whose it is."""
        return (
            self.latest() is None
            and not self.manifest_names()
            and not is_owner_stated(_parse_stored_document(self._objects.read(OWNERSHIP_KEY)))
            and not any(page for page in self._objects.list_pages(VERSIONS_PREFIX))
        )

    def last_success(self) -> Mapping[str, Any] | None:
        """What `checked.json` says of the last successful run; None when there is none."""
        return _parse_stored_document(self._objects.read(CHECKED_FILE))

    def pointer_digest(self) -> str | None:
        """SHA-256 of the pointer, in hexadecimal; None when there is none. It is read where it may be another one."""
        found = self._objects.find(POINTER)
        if found is None:
            return None
        seen, _, digest = ((self._key_value.get_value("pointer seen") if self._key_value else None) or "").rpartition(
            " "
        )
        if seen and seen == found.etag:
            return digest
        stored = self._objects.read(POINTER)
        if stored is None:
            return None
        sha256 = hashlib.sha256()
        for chunk in stored.chunks:
            sha256.update(chunk)
        self._remember_pointer(stored.info.etag, sha256.hexdigest())
        return sha256.hexdigest()

    def _remember_pointer(self, etag: str, digest: str) -> None:
        if self._key_value is not None:
            self._key_value.set_value("pointer seen", f"{etag} {digest}")

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Whether the pointer and `latest.json` are those of `version`, and its manifest is there."""
        return (
            (self.latest() or {}).get("version") == version.name
            and self.pointer_digest() == pointer_sha256
            and self._objects.find(f"{MANIFESTS_PREFIX}{version.name}.jsonl") is not None
        )

    def has_staged_files(self, version: Version) -> bool:
        """No: the files of a version come straight to their places."""
        return False

    def is_complete(self, version: Version) -> bool:
        """There is nothing else that names the current version."""
        return True


class ObjectPublication(DefaultLayoutMixin, ReadOnlyObjectPublication):
    """Reading and writing. `lock` says whether that is still this run's to do."""

    def __init__(self, objects: Objects, key_value: KeyValue, serving: CachePolicy, guard: LockGuard) -> None:
        super().__init__(objects, key_value)
        self._serving = serving
        self._guard = guard

    def write_manifest(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> str:
        """Put the manifest in place: every file is there for good. Returns its SHA-256."""
        self._guard.ensure_renewed()
        sha256 = hashlib.sha256()
        name, label = f"{MANIFESTS_PREFIX}{version.name}.jsonl", self._serving.document_headers(_JSONL_TYPE)
        first = version.manifest_sha256 is None  # then nobody else may have finished a version of that name
        try:
            data = _hash_while_reading(_encode_lines(lines), sha256.update)
            self._objects.write(name, data, label, expected_etag="" if first else None)
        except ConditionFailed as error:
            raise DestinationBusy(
                f"another machine finished version {version.name} meanwhile",
                hint="run again: it looks what is there now",
            ) from error
        return sha256.hexdigest()

    def write_sidecar(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> None:
        """Keep what can be told of a version without reading its files again, for a run that has lost its state."""
        self._guard.ensure_renewed()
        self._objects.write(f"{SIDECAR_PREFIX}{version.name}.jsonl", _encode_lines(lines), _PRIVATE_JSONL_HEADERS)

    def set_owner(self, owner: str, *, stated: bool = False) -> None:
        """Record whose exports the destination holds; `stated`: somebody said so, and it holds from now on."""
        latest = self.latest()
        if latest is not None and names_other_owner(latest, owner):
            self._write_latest({**latest, "owner": owner})
        self._guard.ensure_renewed()
        self._objects.write(OWNERSHIP_KEY, [encode_document(make_owner_record(owner, stated=stated))], _STATUS_HEADERS)
        self._owner, self._knows_owner = owner, True

    def set_last_success(self, content: Mapping[str, Any]) -> None:
        """Replace `checked.json`."""
        self._guard.ensure_renewed()
        self._objects.write(CHECKED_FILE, [encode_document(content)], _STATUS_HEADERS)

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Move the pointer, then `latest.json`. Raises DestinationBusy when someone else moves it meanwhile."""
        self._guard.ensure_renewed()
        sha256 = hashlib.sha256()
        there = self._objects.find(POINTER)
        data = _hash_while_reading(pointer, sha256.update)
        found = self._replace_if_unchanged(POINTER, data, there.etag if there is not None else "")
        self._remember_pointer(found.etag, sha256.hexdigest())
        self._write_latest(latest)

    def _write_latest(self, latest: Mapping[str, Any]) -> None:
        self._guard.ensure_renewed()
        said = encode_document(latest)
        self.latest()
        self._knows_latest = False
        self._latest_etag = self._replace_if_unchanged(LATEST_KEY, [said], self._latest_etag).etag
        self._latest, self._knows_latest = read_latest(said), True

    def _replace_if_unchanged(self, name: str, data: Iterable[bytes], etag: str) -> ObjectInfo:
        """Write what leads to a version, in the place of what was seen there."""
        try:
            return self._objects.write(name, data, self._serving.document_headers(), expected_etag=etag)
        except ConditionFailed as error:
            raise DestinationBusy(
                f"someone else moved the pointer of {self._objects.display_name} at the same moment",
                hint="run again: it looks what is there now",
            ) from error

    def retire(self, version: Version, moment: str) -> None:
        """Take the manifest out of sight; the files go with the trash, so that until then both can be brought back."""
        self._guard.ensure_renewed()
        name = f"{version.name}.jsonl"
        compact = moment.replace("-", "").replace(":", "")
        manifest, trashed = self._objects.find(MANIFESTS_PREFIX + name), f"{TRASH_PREFIX}{compact}-{name}"
        if manifest is not None and self._objects.copy(manifest, trashed) is None:
            stored = self._objects.read(MANIFESTS_PREFIX + name)
            self._objects.write(trashed, stored.chunks if stored is not None else [], _PRIVATE_JSONL_HEADERS)
        elif manifest is None and version.name not in self.retired_names():
            self._objects.write(trashed, [], _PRIVATE_JSONL_HEADERS)
        self._objects.delete([MANIFESTS_PREFIX + name])

    def empty_trash(self, before: str) -> None:
        """Delete what came into the trash before a moment, with the files of those versions. What someone else put
        there is left alone; so is a version that has a manifest again.
        """
        limit, trash = before.replace("-", "").replace(":", ""), self._list_trash()
        there = set(self.manifest_names()) if trash else set()
        for name, match in trash:
            if match[1] >= limit:
                continue
            self._guard.ensure_renewed()
            if match[2] not in there:
                self._delete_all(f"{VERSIONS_PREFIX}{match[2]}/")
                self._objects.delete([f"{SIDECAR_PREFIX}{match[2]}.jsonl"])
            self._objects.delete([name])

    def _delete_all(self, prefix: str) -> None:
        coming = (each.name for page in self._objects.list_pages(prefix) for each in page)
        while some := list(islice(coming, OBJECTS_PER_DELETE)):
            self._objects.delete(some)


def _parse_stored_document(stored: ObjectStream | None) -> Mapping[str, Any] | None:
    """What a small document says; None where there is none, or another thing."""
    return parse_document(b"".join(stored.chunks)) if stored is not None else None


def _encode_lines(lines: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Lines as bytes, in pieces of some size."""
    pieces, size = list[bytes](), 0
    for line in lines:
        pieces.append(_LINE_ENCODER.encode(line).encode(errors="surrogatepass") + b"\n")
        size += len(pieces[-1])
        if size >= 1 << 20:
            yield b"".join(pieces)
            pieces, size = [], 0
    yield b"".join(pieces)


def _hash_while_reading(data: Iterable[bytes], update: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in data:
        update(piece)
        yield piece


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a document that comes in pieces."""
    left = b""
    for chunk in chunks:
        *lines, left = (left + chunk).split(b"\n")
        yield from (line for line in lines if line)
        if len(left) > MAX_DOCUMENT_BYTES:
            break  # whoever reads it finds it too large
    if left:
        yield left
