"""Publish versions in an object store: manifests, the pointer and `latest.json`, each written with one PUT.

Only the manifest of a retired version is moved to the trash at once. Its files stay where they are until the trash is
emptied.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from tilesync.catalog.catalog import Catalog
from tilesync.core.foreign_json import parse_json, read_mapping
from tilesync.core.http_headers import CachePolicy
from tilesync.core.manifest import read_latest, translate_damage
from tilesync.core.ownership import (
    find_foreign_entries,
    find_reserved_names,
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
from tilesync.stores.base import (
    LATEST_FILE,
    MANIFEST_SUFFIX,
    MANIFESTS_DIR,
    DefaultLayoutMixin,
    PublicationBase,
    compact_timestamp,
    split_lines,
)
from tilesync.stores.object_store.files import OBJECTS_PER_DELETE
from tilesync.stores.object_store.lock import LeaseRenewer
from tilesync.stores.object_store.object_names import VERSIONS_PREFIX
from tilesync.stores.status_files import CHECKED_FILE, encode_document, parse_document

MANIFESTS_PREFIX = f"{MANIFESTS_DIR}/"
OWNERSHIP_KEY = ".tilesync/ownership.json"
SIDECAR_PREFIX = ".tilesync/notes/"
LOCK_KEY = ".tilesync/lock"
TRASH_PREFIX = ".tilesync/trash/"

_TRASH_NAME = re.compile(r"(\d{8}T\d{6}Z)-(.+)\.jsonl")
_POINTER_SEEN_KEY = "pointer seen"
_JSONL_TYPE = "application/jsonl"
_PRIVATE_JSONL_HEADERS = ObjectHeaders(_JSONL_TYPE, None, "no-cache")
_STATUS_HEADERS = ObjectHeaders("application/json", None, "no-cache")
"""Headers of documents that no viewer requests: no cache may serve an old copy."""


class ReadOnlyObjectPublication(PublicationBase):
    """Manifests, pointer, `latest.json` and status documents, read only."""

    place_noun = "prefix"

    def __init__(self, objects: Objects, catalog: Catalog | None = None) -> None:
        self._objects = objects
        self._catalog = catalog
        self._latest: Mapping[str, Any] | None = None
        self._knows_latest = False
        self._latest_etag = ""
        self._owner: str | None = None
        self._knows_owner = False

    @property
    def _display_name(self) -> str:
        return self._objects.display_name

    def _list_existing(self, names: Sequence[str]) -> list[str]:
        infos = map_in_threads(self._objects.find, names, max_threads=2)
        return [name for name, info in zip(names, infos, strict=True) if info is not None]

    def refuse_occupied(self, *, adopt: bool) -> None:
        """Raise DestinationError for foreign objects below a prefix that is not a destination yet.

        With `adopt`, only objects whose names tilesync itself needs are refused.
        """
        signs: list[Callable[[], object]] = [self.latest, partial(self._objects.find, LOCK_KEY), self.manifest_names]
        if any(map_in_threads(lambda read: read(), signs, max_threads=len(signs))):
            return
        foreign = self._find_foreign_names()
        if reserved := find_reserved_names(foreign):
            raise DestinationError(
                f"{self._objects.display_name} is not a destination of tilesync, but contains {join_names(reserved)}",
                hint="choose an empty prefix, or a destination of tilesync",
            )
        if foreign and not adopt:
            raise DestinationError(
                f"{self._objects.display_name} is not a destination of tilesync, and is not empty: it contains"
                f" {join_names(foreign)}",
                hint="choose another prefix; or give --adopt (in a fleet file: adopt = true) to keep these objects"
                " and put the tiles beside them",
            )

    def _find_foreign_names(self) -> list[str]:
        """List foreign names at the top, and the reserved folders that contain objects.

        One page of foreign names is enough for the message. A reserved folder may come many pages later, so each one is
        listed by itself.
        """
        pages = (
            find_foreign_entries({each.name.partition("/")[0] for each in page})
            for page in self._objects.list_pages("")
        )
        names = next(filter(None, pages), [])
        used = [name for name in (VERSIONS_PREFIX, MANIFESTS_PREFIX) if names and any(self._objects.list_pages(name))]
        return sorted({*names, *(name.rstrip("/") for name in used)})

    def manifest_names(self) -> list[str]:
        """List the versions that have a manifest."""
        keys = (each.name for page in self._objects.list_pages(MANIFESTS_PREFIX) for each in page)
        names = (key[len(MANIFESTS_PREFIX) :] for key in keys if key.endswith(MANIFEST_SUFFIX))
        return sorted(name.removesuffix(MANIFEST_SUFFIX) for name in names if "/" not in name)

    def retired_names(self) -> set[str]:
        """Return the retired versions whose files still exist, because the trash was not emptied yet."""
        return {match[2] for _, match in self._list_trash()}

    def _list_trash(self) -> list[tuple[str, re.Match[str]]]:
        """List the manifests in the trash, each with a match of `_TRASH_NAME`. Foreign objects are left out."""
        names = [each.name for page in self._objects.list_pages(TRASH_PREFIX) for each in page]
        return [(name, match) for name in names if (match := _TRASH_NAME.fullmatch(name[len(TRASH_PREFIX) :]))]

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """Yield the lines of a manifest, the first about the version. Raises DestinationError if it is unreadable."""
        with translate_damage(_manifest_key(version)):
            yield from (read_mapping(parse_json(line)) for line in split_lines(self.manifest_chunks(version)))

    def manifest_chunks(self, version: str) -> Iterator[bytes]:
        """Yield the bytes of a manifest as they arrive. Raises DestinationError if it is unreadable."""
        name = _manifest_key(version)
        stored = self._objects.read(name)
        if stored is None:
            raise DestinationError(f"cannot read the manifest {name}: it is missing in {self._objects.display_name}")
        yield from stored.chunks

    def _read_lines(self, name: str) -> Iterator[bytes] | None:
        stored = self._objects.read(name)
        return split_lines(stored.chunks) if stored is not None else None

    def read_sidecar(self, version: Version) -> Iterator[Mapping[str, Any]] | None:
        """Yield the lines of the sidecar index of a version; None if it has none."""
        lines = self._read_lines(f"{SIDECAR_PREFIX}{version.name}{MANIFEST_SUFFIX}")
        return (read_mapping(parse_json(line)) for line in lines) if lines is not None else None

    def latest(self) -> Mapping[str, Any] | None:
        """Return `latest.json`, which is read only once; None if it is missing or foreign."""
        if not self._knows_latest:
            stored = self._objects.read(LATEST_FILE)
            self._latest_etag = stored.info.etag if stored is not None else ""
            self._latest = read_latest(b"".join(stored.chunks)) if stored is not None else None
            self._knows_latest = True
        return self._latest

    def owner(self) -> str | None:
        """Return the recorded owner of the destination, or None. It is read only once.

        It is in `latest.json`, or in the ownership record until the first version is published.
        """
        if owner := read_owner(self.latest()):
            return owner
        if not self._knows_owner:
            self._owner, self._knows_owner = read_owner(self._read_ownership()), True
        return self._owner

    def _read_ownership(self) -> Mapping[str, Any] | None:
        return _parse_stored_document(self._objects.read(OWNERSHIP_KEY))

    def _has_any_files(self) -> bool:
        return any(page for page in self._objects.list_pages(VERSIONS_PREFIX))

    def last_success(self) -> Mapping[str, Any] | None:
        """Return `checked.json`, the record of the last successful run, or None."""
        return _parse_stored_document(self._objects.read(CHECKED_FILE))

    def pointer_digest(self) -> str | None:
        """Return the SHA-256 of the pointer in hexadecimal, or None. It is read again only if its ETag changed."""
        found = self._objects.find(POINTER)
        if found is None:
            return None
        remembered = (self._catalog.get_value(_POINTER_SEEN_KEY) if self._catalog else None) or ""
        etag, _, digest = remembered.rpartition(" ")
        if etag and etag == found.etag:
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
        if self._catalog is not None:
            self._catalog.set_value(_POINTER_SEEN_KEY, f"{etag} {digest}")

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Return whether the pointer and `latest.json` name `version`, and its manifest exists."""
        return (
            (self.latest() or {}).get("version") == version.name
            and self.pointer_digest() == pointer_sha256
            and self._objects.find(f"{MANIFESTS_PREFIX}{version.name}{MANIFEST_SUFFIX}") is not None
        )

    def is_complete(self, version: Version) -> bool:
        """Return True: no other document names the current version."""
        return True


class ObjectPublication(DefaultLayoutMixin, ReadOnlyObjectPublication):
    """Manifests, pointer, `latest.json` and status documents, read and written. `guard` renews the lock first."""

    def __init__(self, objects: Objects, catalog: Catalog, cache_policy: CachePolicy, guard: LeaseRenewer) -> None:
        super().__init__(objects, catalog)
        self._cache_policy = cache_policy
        self._guard = guard
        self._manifest_names: list[str] | None = None
        self._trash: list[tuple[str, re.Match[str]]] | None = None

    def manifest_names(self) -> list[str]:
        """List the versions that have a manifest; one request, since only this run changes them under the lock."""
        if self._manifest_names is None:
            self._manifest_names = super().manifest_names()
        return list(self._manifest_names)

    def _list_trash(self) -> list[tuple[str, re.Match[str]]]:
        if self._trash is None:
            self._trash = super()._list_trash()
        return self._trash

    def _forget_listings(self) -> None:
        """List manifests and trash again when they are needed: this run is about to change them."""
        self._manifest_names = self._trash = None

    def sync_files(self) -> None:
        """Do nothing: a store answers an upload when the object is durable."""

    def write_manifest(self, version: Version, pieces: Iterable[bytes]) -> str:
        """Write the manifest of a version whose files are all in place, and return its SHA-256."""
        self._guard.ensure_renewed()
        sha256 = hashlib.sha256()
        name, object_headers = (
            f"{MANIFESTS_PREFIX}{version.name}{MANIFEST_SUFFIX}",
            self._cache_policy.document_headers(_JSONL_TYPE),
        )
        is_first_write = version.summary.manifest_sha256 is None
        self._manifest_names = None
        try:
            data = _hash_while_reading(_join_pieces(pieces), sha256.update)
            # The first write must not replace a manifest that another run wrote for a version of this name.
            self._objects.write(name, data, object_headers, expected_etag="" if is_first_write else None)
        except ConditionFailed as error:
            raise DestinationBusy(
                f"another machine finished version {version.name} in the meantime",
                hint="run again: the run starts from what is there now",
            ) from error
        return sha256.hexdigest()

    def write_sidecar(self, version: Version, pieces: Iterable[bytes]) -> None:
        """Write the sidecar index, from which a run without state rebuilds the catalog without reading the files."""
        self._guard.ensure_renewed()
        name = f"{SIDECAR_PREFIX}{version.name}{MANIFEST_SUFFIX}"
        self._objects.write(name, _join_pieces(pieces), _PRIVATE_JSONL_HEADERS)

    def set_owner(self, owner: str, *, stated: bool = False) -> None:
        """Record the owner of the destination. `stated`: a user stated it, so it holds for all later runs."""
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
        """Replace the pointer, then `latest.json`. Raises DestinationBusy if another run replaces one meanwhile."""
        self._guard.ensure_renewed()
        sha256 = hashlib.sha256()
        old = self._objects.find(POINTER)
        data = _hash_while_reading(pointer, sha256.update)
        new = self._replace_if_unchanged(POINTER, data, old.etag if old is not None else "")
        self._remember_pointer(new.etag, sha256.hexdigest())
        self._write_latest(latest)

    def _write_latest(self, latest: Mapping[str, Any]) -> None:
        self._guard.ensure_renewed()
        document = encode_document(latest)
        self.latest()  # reads the ETag for the condition, unless it is known
        self._knows_latest = False
        self._latest_etag = self._replace_if_unchanged(LATEST_FILE, [document], self._latest_etag).etag
        self._latest, self._knows_latest = read_latest(document), True

    def _replace_if_unchanged(self, name: str, data: Iterable[bytes], etag: str) -> ObjectInfo:
        """Write an object if it still has this ETag. Raises DestinationBusy otherwise."""
        try:
            return self._objects.write(name, data, self._cache_policy.document_headers(), expected_etag=etag)
        except ConditionFailed as error:
            raise DestinationBusy(
                f"another run moved the pointer of {self._objects.display_name} at the same moment",
                hint="run again: the run starts from what is there now",
            ) from error

    def retire(self, version: Version, moment: str) -> None:
        """Move the manifest to the trash. The files stay until the trash is emptied, so the version can be restored."""
        self._guard.ensure_renewed()
        name = f"{version.name}{MANIFEST_SUFFIX}"
        manifest = self._objects.find(MANIFESTS_PREFIX + name)
        trashed = f"{TRASH_PREFIX}{compact_timestamp(moment)}-{name}"
        if manifest is not None and self._objects.copy(manifest, trashed) is None:
            stored = self._objects.read(MANIFESTS_PREFIX + name)
            self._objects.write(trashed, stored.chunks if stored is not None else [], _PRIVATE_JSONL_HEADERS)
        elif manifest is None and version.name not in self.retired_names():
            self._objects.write(trashed, [], _PRIVATE_JSONL_HEADERS)
        self._objects.delete([MANIFESTS_PREFIX + name])
        self._forget_listings()

    def empty_trash(self, before: str) -> None:
        """Delete manifests trashed before a moment, and the files of their versions.

        Foreign objects in the trash stay, and so do the files of a version that has a manifest again.
        """
        limit, trash = compact_timestamp(before), self._list_trash()
        current = set(self.manifest_names()) if trash else set()
        for name, match in trash:
            if match[1] >= limit:
                continue
            self._guard.ensure_renewed()
            if match[2] not in current:
                self._delete_all(f"{VERSIONS_PREFIX}{match[2]}/")
                self._objects.delete([f"{SIDECAR_PREFIX}{match[2]}{MANIFEST_SUFFIX}"])
            self._objects.delete([name])
        self._forget_listings()

    def _delete_all(self, prefix: str) -> None:
        names = (each.name for page in self._objects.list_pages(prefix) for each in page)
        while batch := list(islice(names, OBJECTS_PER_DELETE)):
            self._objects.delete(batch)


def _manifest_key(version: str) -> str:
    return f"{MANIFESTS_PREFIX}{version}{MANIFEST_SUFFIX}"


def _parse_stored_document(stored: ObjectStream | None) -> Mapping[str, Any] | None:
    """Return a small JSON document; None if it is missing or not a JSON object."""
    return parse_document(b"".join(stored.chunks)) if stored is not None else None


def _join_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join pieces to larger ones, of about 1 MiB."""
    joined, size = list[bytes](), 0
    for piece in pieces:
        joined.append(piece)
        size += len(piece)
        if size >= 1 << 20:
            yield b"".join(joined)
            joined, size = [], 0
    yield b"".join(joined)


def _hash_while_reading(data: Iterable[bytes], update: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in data:
        update(piece)
        yield piece
