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

from tilesync.core.foreign_json import DOCUMENT, loads, mapping
from tilesync.core.http_headers import Serving
from tilesync.core.manifest import read_latest
from tilesync.core.ownership import clashing, is_stated, listed, owner_record, read_owner, strangers, tells_another
from tilesync.errors import ConditionFailed, DestinationBusy, DestinationError
from tilesync.model import POINTER, Version
from tilesync.model.storage import Found, Label
from tilesync.protocols import Objects, Stored
from tilesync.runtime.threads import side_by_side
from tilesync.stores.base import Apart
from tilesync.stores.object_store.files import TOGETHER, VERSIONS, Right
from tilesync.stores.status_files import CHECKED, document, read_document

MANIFESTS = "manifests/"
LATEST = "latest.json"
OWNERSHIP = ".tilesync/ownership.json"
NOTES = ".tilesync/notes/"
LOCK = ".tilesync/lock"
TRASH = ".tilesync/trash/"

_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
_MOMENT = re.compile(r"(\d{8}T\d{6}Z)-(.+)\.jsonl")
_LINES = "application/jsonl"
_OURS = Label(_LINES, None, "no-cache")
_STATUS = Label("application/json", None, "no-cache")
"""For what no viewer asks for: what is read there must be what stands there now."""


class Memory(Protocol):
    """Facts that are kept between runs."""

    def remember(self, key: str, value: str) -> None:
        """Keep one."""

    def recall(self, key: str) -> str | None:
        """One that was kept."""


class ObjectPublished:
    """Reading."""

    def __init__(self, objects: Objects, memory: Memory | None = None) -> None:
        self._objects = objects
        self._memory = memory
        self._latest: Mapping[str, Any] | None = None
        self._knows_latest = False
        self._latest_etag = ""
        self._owner: str | None = None
        self._knows_owner = False

    def prefix(self, version: Version) -> str:
        """What leads from the pointer to the version's own folder."""
        return f"{VERSIONS}{version.name}/"

    def refuse_foreign(self) -> None:
        """Raise DestinationError when a tileset, or a `latest.json`, that tilesync did not write stands at the top."""
        names = POINTER, LATEST
        found = side_by_side(self._objects.find, names, width=2)
        there = next((name for name, each in zip(names, found, strict=True) if each is not None), None)
        if there is not None and self.latest() is None and not self.manifest_names():
            raise DestinationError(
                f"{self._objects.shown} holds a {there} that tilesync did not write",
                hint="choose an empty place, or one that tilesync made",
            )

    def refuse_occupied(self, *, adopt: bool) -> None:
        """Raise DestinationError where things of others lie in a place that is no destination yet. With `adopt` that is
        meant, and only what is in the way is refused.
        """
        if self.latest() is not None or self._objects.find(LOCK) is not None or self.manifest_names():
            return
        there = self._first_strangers()
        if in_the_way := clashing(there):
            raise DestinationError(
                f"{self._objects.shown} is no destination of tilesync, and holds {listed(in_the_way)}",
                hint="choose an empty place, or one that tilesync made",
            )
        if there and not adopt:
            raise DestinationError(
                f"{self._objects.shown} is no destination of tilesync, and is not empty: it holds {listed(there)}",
                hint="choose another prefix; or give --adopt, if these are to stay beside the tiles",
            )

    def _first_strangers(self) -> list[str]:
        """What others put at the top, of the first page where there is any; and, however much there is, what is in the
        way. Folders are what names begin with.
        """
        pages = (strangers({each.name.partition("/")[0] for each in page}) for page in self._objects.pages(""))
        there = next(filter(None, pages), [])
        inside = [name for name in (VERSIONS, MANIFESTS) if there and any(self._objects.pages(name))]
        return sorted({*there, *(name.rstrip("/") for name in inside)})

    def manifest_names(self) -> list[str]:
        """The versions that have a manifest."""
        names = (each.name for page in self._objects.pages(MANIFESTS) for each in page)
        found = (name[len(MANIFESTS) :] for name in names if name.endswith(".jsonl"))
        return sorted(name.removesuffix(".jsonl") for name in found if "/" not in name)

    def retired_names(self) -> set[str]:
        """The retired versions whose files still lie in their place: until the trash is emptied."""
        return {match[2] for _, match in self._trashed()}

    def _trashed(self) -> list[tuple[str, re.Match[str]]]:
        """What lies in the trash, and when it came there, with the name of its version; of others nothing is known."""
        names = [each.name for page in self._objects.pages(TRASH) for each in page]
        return [(name, match) for name in names if (match := _MOMENT.fullmatch(name[len(TRASH) :]))]

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """The lines of a manifest, the first one about the version. Raises DestinationError when it cannot be read."""
        name = f"{MANIFESTS}{version}.jsonl"
        lines = self._lines(name)
        if lines is None:
            raise DestinationError(f"cannot read the manifest {name}: it is not in {self._objects.shown}")
        try:
            yield from (mapping(loads(line)) for line in lines)
        except ValueError as error:
            raise DestinationError(f"the manifest {name} is damaged ({error})") from error

    def _lines(self, name: str) -> Iterator[bytes] | None:
        stored = self._objects.read(name)
        return _split(stored.chunks) if stored is not None else None

    def noted(self, version: Version) -> Iterator[Mapping[str, Any]] | None:
        """What was noted of a version beside its manifest; None where nothing was."""
        lines = self._lines(f"{NOTES}{version.name}.jsonl")
        return (mapping(loads(line)) for line in lines) if lines is not None else None

    def latest(self) -> Mapping[str, Any] | None:
        """What `latest.json` says; None when there is none, or one that is not ours. Asked for once."""
        if not self._knows_latest:
            stored = self._objects.read(LATEST)
            self._latest_etag = stored.found.etag if stored is not None else ""
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
            self._owner, self._knows_owner = read_owner(_said(self._objects.read(OWNERSHIP))), True
        return self._owner

    def is_vacant(self) -> bool:
        """Whether nothing of an export lies here, and nobody stated whose it is."""
        return (
            self.latest() is None
            and not self.manifest_names()
            and not is_stated(_said(self._objects.read(OWNERSHIP)))
            and not any(page for page in self._objects.pages(VERSIONS))
        )

    def checked(self) -> Mapping[str, Any] | None:
        """What `checked.json` says of the last successful run; None when there is none."""
        return _said(self._objects.read(CHECKED))

    def pointer(self) -> str | None:
        """SHA-256 of the pointer, in hexadecimal; None when there is none. It is read where it may be another one."""
        found = self._objects.find(POINTER)
        if found is None:
            return None
        seen, _, digest = ((self._memory.recall("pointer seen") if self._memory else None) or "").rpartition(" ")
        if seen and seen == found.etag:
            return digest
        stored = self._objects.read(POINTER)
        if stored is None:
            return None
        sha256 = hashlib.sha256()
        for chunk in stored.chunks:
            sha256.update(chunk)
        self._remember_pointer(stored.found.etag, sha256.hexdigest())
        return sha256.hexdigest()

    def _remember_pointer(self, etag: str, digest: str) -> None:
        if self._memory is not None:
            self._memory.remember("pointer seen", f"{etag} {digest}")

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Whether the pointer and `latest.json` are those of `version`, and its manifest is there."""
        return (
            (self.latest() or {}).get("version") == version.name
            and self.pointer() == pointer_sha256
            and self._objects.find(f"{MANIFESTS}{version.name}.jsonl") is not None
        )

    def staged(self, version: Version) -> bool:
        """No: the files of a version come straight to their places."""
        return False

    def complete(self, version: Version) -> bool:
        """There is nothing else that names the current version."""
        return True


class ObjectPublication(Apart, ObjectPublished):
    """Reading and writing. `lock` says whether that is still this run's to do."""

    def __init__(self, objects: Objects, memory: Memory, serving: Serving, lock: Right) -> None:
        super().__init__(objects, memory)
        self._serving = serving
        self._lock = lock

    def write_manifest(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> str:
        """Put the manifest in place: every file is there for good. Returns its SHA-256."""
        self._lock.secure()
        sha256 = hashlib.sha256()
        name, label = f"{MANIFESTS}{version.name}.jsonl", self._serving.document(_LINES)
        first = version.manifest_sha256 is None  # then nobody else may have finished a version of that name
        try:
            data = _digested(_joined(lines), sha256.update)
            self._objects.write(name, data, label, instead_of="" if first else None)
        except ConditionFailed as error:
            raise DestinationBusy(
                f"another machine finished version {version.name} meanwhile",
                hint="run again: it looks what is there now",
            ) from error
        return sha256.hexdigest()

    def note(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> None:
        """Keep what can be told of a version without reading its files again, for a run that has lost its state."""
        self._lock.secure()
        self._objects.write(f"{NOTES}{version.name}.jsonl", _joined(lines), _OURS)

    def set_owner(self, owner: str, *, stated: bool = False) -> None:
        """Record whose exports the destination holds; `stated`: somebody said so, and it holds from now on."""
        latest = self.latest()
        if latest is not None and tells_another(latest, owner):
            self._tell_latest({**latest, "owner": owner})
        self._lock.secure()
        self._objects.write(OWNERSHIP, [document(owner_record(owner, stated=stated))], _STATUS)
        self._owner, self._knows_owner = owner, True

    def set_checked(self, said: Mapping[str, Any]) -> None:
        """Replace `checked.json`."""
        self._lock.secure()
        self._objects.write(CHECKED, [document(said)], _STATUS)

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Move the pointer, then `latest.json`. Raises DestinationBusy when someone else moves it meanwhile."""
        self._lock.secure()
        sha256 = hashlib.sha256()
        there = self._objects.find(POINTER)
        data = _digested(pointer, sha256.update)
        found = self._replace(POINTER, data, there.etag if there is not None else "")
        self._remember_pointer(found.etag, sha256.hexdigest())
        self._tell_latest(latest)

    def _tell_latest(self, latest: Mapping[str, Any]) -> None:
        self._lock.secure()
        said = document(latest)
        self.latest()
        self._knows_latest = False
        self._latest_etag = self._replace(LATEST, [said], self._latest_etag).etag
        self._latest, self._knows_latest = read_latest(said), True

    def _replace(self, name: str, data: Iterable[bytes], etag: str) -> Found:
        """Write what leads to a version, in the place of what was seen there."""
        try:
            return self._objects.write(name, data, self._serving.document(), instead_of=etag)
        except ConditionFailed as error:
            raise DestinationBusy(
                f"someone else moved the pointer of {self._objects.shown} at the same moment",
                hint="run again: it looks what is there now",
            ) from error

    def retire(self, version: Version, moment: str) -> None:
        """Take the manifest out of sight; the files go with the trash, so that until then both can be brought back."""
        self._lock.secure()
        name = f"{version.name}.jsonl"
        compact = moment.replace("-", "").replace(":", "")
        manifest, trashed = self._objects.find(MANIFESTS + name), f"{TRASH}{compact}-{name}"
        if manifest is not None and self._objects.copy(manifest, trashed) is None:
            stored = self._objects.read(MANIFESTS + name)
            self._objects.write(trashed, stored.chunks if stored is not None else [], _OURS)
        elif manifest is None and version.name not in self.retired_names():
            self._objects.write(trashed, [], _OURS)
        self._objects.delete([MANIFESTS + name])

    def empty_trash(self, before: str) -> None:
        """Delete what came into the trash before a moment, with the files of those versions. What someone else put
        there is left alone; so is a version that has a manifest again.
        """
        limit, trash = before.replace("-", "").replace(":", ""), self._trashed()
        there = set(self.manifest_names()) if trash else set()
        for name, match in trash:
            if match[1] >= limit:
                continue
            self._lock.secure()
            if match[2] not in there:
                self._delete_all(f"{VERSIONS}{match[2]}/")
                self._objects.delete([f"{NOTES}{match[2]}.jsonl"])
            self._objects.delete([name])

    def _delete_all(self, prefix: str) -> None:
        coming = (each.name for page in self._objects.pages(prefix) for each in page)
        while some := list(islice(coming, TOGETHER)):
            self._objects.delete(some)


def _said(stored: Stored | None) -> Mapping[str, Any] | None:
    """What a small document says; None where there is none, or another thing."""
    return read_document(b"".join(stored.chunks)) if stored is not None else None


def _joined(lines: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Lines as bytes, in pieces of some size."""
    pieces, size = list[bytes](), 0
    for line in lines:
        pieces.append(_LINE.encode(line).encode(errors="surrogatepass") + b"\n")
        size += len(pieces[-1])
        if size >= 1 << 20:
            yield b"".join(pieces)
            pieces, size = [], 0
    yield b"".join(pieces)


def _digested(data: Iterable[bytes], into: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in data:
        into(piece)
        yield piece


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a document that comes in pieces."""
    left = b""
    for chunk in chunks:
        *lines, left = (left + chunk).split(b"\n")
        yield from (line for line in lines if line)
        if len(left) > DOCUMENT:
            break  # whoever reads it finds it too large
    if left:
        yield left
