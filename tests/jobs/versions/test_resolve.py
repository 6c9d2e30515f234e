"""Resolution of the text that names a version."""

from __future__ import annotations

from typing import cast

import pytest

from tests.support.fake_destination import FakeDestination
from tilesync.errors import DestinationError, UsageError
from tilesync.jobs.versions.resolve import resolve_version
from tilesync.protocols import ReadOnlyPublication

ROOT = {"tileset.json": b"{}"}


def make_publication(*names: str, current: str | None = None) -> ReadOnlyPublication:
    destination = FakeDestination()
    for name in names:
        destination.add_version(name, ROOT)
    if current is not None:
        destination.set_latest(current)
    return cast(ReadOnlyPublication, destination)


@pytest.mark.parametrize(
    ("text", "expected"), [("aa-1", "aa-1"), ("ab", "ab-2"), ("aa-1-2", "aa-1-2"), ("current", "ab-2")]
)
def test_a_name_a_unique_prefix_and_current_are_resolved(text: str, expected: str) -> None:
    """An exact name wins over longer names that begin with it; a prefix must be unique; `current` is the pointer's."""
    assert resolve_version(make_publication("aa-1", "aa-1-2", "ab-2", current="ab-2"), text) == expected


def test_an_ambiguous_prefix_lists_only_the_versions_with_it() -> None:
    """The hint names the versions that the prefix may mean."""
    with pytest.raises(UsageError, match="more than one version begins with 'aa'") as error:
        resolve_version(make_publication("aa-1", "aa-2", "bb-1"), "aa")
    assert error.value.hint.startswith("choose one of aa-1, aa-2; ")


def test_an_unknown_version_lists_those_that_exist() -> None:
    """The hint names all versions if they are few, and only the command that lists them if they are many."""
    for text in ("cc", ""):
        with pytest.raises(UsageError, match="no version is named") as error:
            resolve_version(make_publication("aa-1", "bb-1"), text)
        assert error.value.hint.startswith("choose one of aa-1, bb-1; ")
    with pytest.raises(UsageError) as error:
        resolve_version(make_publication(*(f"aa-{number}" for number in range(9))), "b")
    assert error.value.hint == "`tilesync versions DEST` shows all versions"


@pytest.mark.parametrize(
    ("names", "current", "message"),
    [
        ((), None, "has no finished version"),
        (("aa-1",), None, "no version is published yet"),
        (("aa-1",), "bb-1", "damaged: its latest.json names version bb-1"),
    ],
)
def test_a_destination_without_a_current_version(names: tuple[str, ...], current: str | None, message: str) -> None:
    """Each reason why there is no current version has its own message, with a hint."""
    with pytest.raises(DestinationError, match=message) as error:
        resolve_version(make_publication(*names, current=current), "current")
    assert error.value.hint != ""
