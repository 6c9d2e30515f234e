"""A place that holds versions, in memory: what leads to them, and their files; to be edited."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tilesync.core.manifest import header, line
from tilesync.errors import DestinationError
from tilesync.model import Blob, Held, Trace, Version
from tilesync.protocols import Catalog, Glance


class Place:
    """Implements Published and HeldFiles as far as a source asks them. `broken`: what reading a file of a name raises;
    `step`: bytes that come at a time.
    """

    portable = False
    wide = 1

    def __init__(self, *, step: int = 1 << 20) -> None:
        self.step = step
        self.manifests: dict[str, list[Any]] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.broken: dict[str, Exception] = {}
        self.pointed: dict[str, Any] | None = None
        self.opened: list[str] = []

    def add(self, name: str, files: Mapping[str, bytes], *, missing: Sequence[str] = (), **changes: Any) -> Version:
        """Hold a version of these files."""
        published = f"2026-04-{len(self.manifests) + 1:02d}T00:00:00Z"
        version = Version(
            0, name, name, "i", "c", "", {}, listed=True, published=published, home="https://a/c", files=len(files)
        )
        version = replace(version, bytes=sum(map(len, files.values())), **changes)
        version = replace(version, record={"id": version.export, "displayName": "City"})
        rows = [
            line(Held(Blob(each, len(data), "e"), hashlib.sha256(data).digest(), 0)) for each, data in files.items()
        ]
        self.manifests[name] = [header(version, missing), *rows]
        self.files.update(((name, each), data) for each, data in files.items())
        return version

    def point(self, name: str, **more: Any) -> None:
        """Let the pointer name a version."""
        self.pointed = {"version": name, "manifest": f"manifests/{name}.jsonl", **more}

    # --- Published ---

    def owner(self) -> str | None:
        """None: nothing is recorded."""
        return None

    def is_vacant(self) -> bool:
        """It holds what it was made with."""
        return False

    def checked(self) -> Mapping[str, Any] | None:
        """None: no run ended here."""
        return None

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """The lines of a manifest."""
        if version not in self.manifests:
            raise DestinationError(f"cannot read the manifest of {version}")
        yield from self.manifests[version]

    def manifest_names(self) -> list[str]:
        """The versions."""
        return sorted(self.manifests)

    def latest(self) -> Mapping[str, Any] | None:
        """What the pointer names."""
        return self.pointed

    # --- HeldFiles ---

    def size(self, version: Version, name: str) -> int | None:
        """The size of a file."""
        data = self.files.get((version.name, name))
        return None if data is None else len(data)

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """Its bytes."""
        self.opened.append(name)
        data = self._read(version, name)
        for start in range(offset, len(data), self.step):
            yield data[start : start + self.step]

    def digest(self, version: Version, name: str) -> bytes | None:
        """Its SHA-256."""
        return None if self.size(version, name) is None else hashlib.sha256(self._read(version, name)).digest()

    def _read(self, version: Version, name: str) -> bytes:
        if name in self.broken:
            raise DestinationError(f"cannot read {name}") from self.broken[name]
        if (version.name, name) not in self.files:
            raise DestinationError(f"cannot read {name}")
        return self.files[version.name, name]

    # --- not asked for ---

    def retired_names(self) -> set[str]:
        """Not asked for."""
        raise NotImplementedError

    def noted(self, version: Version) -> Iterator[Mapping[str, Any]] | None:
        """Not asked for."""
        raise NotImplementedError

    def prefix(self, version: Version) -> str:
        """Not asked for."""
        raise NotImplementedError

    def pointer(self) -> str | None:
        """Not asked for."""
        raise NotImplementedError

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Not asked for."""
        raise NotImplementedError

    def staged(self, version: Version) -> bool:
        """Not asked for."""
        raise NotImplementedError

    def complete(self, version: Version) -> bool:
        """Not asked for."""
        raise NotImplementedError

    def survey(self, version: Version) -> None:
        """Not asked for."""
        raise NotImplementedError

    def glances(self, version: Version, catalog: Catalog, place: str) -> Iterator[Glance]:
        """Not asked for."""
        raise NotImplementedError

    def trace(self, version: Version, name: str) -> Trace | None:
        """Not asked for."""
        raise NotImplementedError

    def unchanged(self, version: Version, held: Sequence[Held]) -> list[bool]:
        """Not asked for."""
        raise NotImplementedError

    def feed(self, version: Version, name: str, into: Callable[[bytes], object]) -> Trace | None:
        """Not asked for."""
        raise NotImplementedError

    def read(self, version: Version, name: str) -> bytes:
        """Not asked for."""
        raise NotImplementedError
