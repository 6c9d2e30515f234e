"""Damaged packages: wherever bytes are missing or changed, there is an error, or the right bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.support.builders import glb, tileset
from tests.support.examples import examples
from tests.support.packages import KINDS, METHODS, make_stored_file, with_manifest, write_package
from tilesync.core.manifest import read_header, read_line
from tilesync.errors import TilesyncError
from tilesync.events import Event, Finding
from tilesync.jobs.versions.file_check import verify_file
from tilesync.model import Version
from tilesync.stores.opening import Mode, ReadOnlyDestination
from tilesync.stores.packages.readers.destination import open_package_read_only

FILES = {"tileset.json": tileset("tiles/0.glb"), "tiles/0.glb": glb(b"x" * 5000), "tiles/1.glb": glb(b"y"), "z": b""}
V1 = Version(1, "e1", "e1")


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, bytes]]:
    """Return two packages of a kind, with a manifest and without, and their bytes."""
    ending, method = request.param
    folder = tmp_path_factory.mktemp("packages")
    found = []
    for name, files in {"own": with_manifest(FILES), "foreign": FILES}.items():
        path = write_package(folder / f"{name}.{ending}", files, method=METHODS[method])
        found.append((path, path.read_bytes()))
    return found


def ignore(event: Event) -> None:
    """Ignore an event."""


def use(path: Path) -> None:
    """Do with a package whatever a command does. Asserts that each file is right, or that its damage is found."""
    with open_package_read_only(path, Mode.AUDIT, ignore) as opened:
        with suppress(TilesyncError):
            (name,) = opened.publication.manifest_names()
            opened.publication.latest()
            header, *lines = opened.publication.manifest(name)
            read_header(header, name=name)
            with suppress(ValueError, KeyError, TypeError):  # as the readers of the lines catch them
                assert all(read_line(line) for line in lines)
            assert opened.structure_checks is not None
            assert all(isinstance(each, Finding) for each in opened.structure_checks.find_problems(name))
        for name, data in FILES.items():
            assert_right_or_found(opened, name, data, has_checksum=path.suffix in {".3tz", ".zip"})


def assert_right_or_found(opened: ReadOnlyDestination, name: str, data: bytes, *, has_checksum: bool) -> None:
    """Assert that a read gives the right bytes or an error, and that `verify` is not deceived."""
    with suppress(TilesyncError):
        found = opened.files.read(V1, name)
        assert found == data or not has_checksum
    with suppress(TilesyncError):  # nothing proves a part of a file, but reading it raises nothing else
        deque(opened.files.chunks(V1, name, offset=3), maxlen=0)
    with suppress(TilesyncError):
        result = verify_file(opened.files, None, V1, make_stored_file(name, data))
        assert isinstance(result, Finding) or opened.files.read(V1, name) == data


def each_cut(size: int) -> Iterator[int]:
    """Yield lengths at which a package is cut off: many at its ends, where its structures are, and some between."""
    yield from sorted({*range(0, min(size, 700), 5), *range(0, size, 193), *range(max(0, size - 700), size, 3)})


def test_packages_that_are_cut_off(packages: list[tuple[Path, bytes]]) -> None:
    """A package that ends at any byte gives errors of tilesync, never another one and never wrong bytes."""
    for path, data in packages:
        for length in each_cut(len(data)):
            path.write_bytes(data[:length])
            with suppress(TilesyncError):
                use(path)


@given(st.data())
@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_packages_with_changed_bytes(packages: list[tuple[Path, bytes]], data: st.DataObject) -> None:
    """A package with changed bytes gives errors of tilesync, or the right bytes."""
    path, original = data.draw(st.sampled_from(packages))
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        last = len(original) - 1
        place = data.draw(st.one_of(st.integers(0, last), st.integers(max(0, last - 400), last)))
        changed[place] = data.draw(st.one_of(st.sampled_from([0, 1, 8, 255]), st.integers(0, 255)))
    path.write_bytes(changed)
    with suppress(TilesyncError):
        use(path)
