"""Whose a destination is, and what else may be mirrored there."""

from __future__ import annotations

import pytest

from tilesync.core.ownership import (
    OwnerMatch,
    RequestedOwner,
    compare_owner,
    describe_owner,
    is_version_of,
    merge_owner,
    same_owner,
)
from tilesync.model import Export, SasUrl, Version

ONE = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"
TWO = "77777777-0d3e-4b5a-9a51-6f2d3c1e7a40"
EXPORT = "aaaaaaaa-0000-4000-8000-123456789012"
OTHER = "bbbbbbbb-0000-4000-8000-123456789012"
HOST = "https://a.blob.core.windows.net"
CDN = "https://cdn.example"


@pytest.mark.parametrize(
    ("owner", "owner_asked", "export", "held", "claim"),
    [
        ("", ONE, None, [], OwnerMatch.SAME),
        ("", f"{HOST}/{EXPORT}", EXPORT, [], OwnerMatch.SAME),
        ("", "", None, [], OwnerMatch.UNSURE),
        ("", "", EXPORT, [], OwnerMatch.SAME),
        (ONE, ONE.upper(), None, [], OwnerMatch.SAME),
        (ONE, TWO, None, [], OwnerMatch.OTHER),
        (ONE, TWO, EXPORT, [EXPORT], OwnerMatch.OTHER),
        (ONE, f"{HOST}/{EXPORT}", EXPORT, [EXPORT], OwnerMatch.SAME_EXPORT),
        (ONE, f"{HOST}/{EXPORT}", EXPORT, [f"{EXPORT}-2"], OwnerMatch.SAME_EXPORT),
        (ONE, f"{HOST}/{OTHER}", OTHER, [EXPORT], OwnerMatch.OTHER),
        (ONE, f"{HOST}/{OTHER}", OTHER, [], OwnerMatch.OTHER),
        (f"{HOST}/{EXPORT}", f"HTTPS://A.blob.core.windows.net:443/{EXPORT}/", EXPORT, [], OwnerMatch.SAME),
        (f"{HOST}/{EXPORT}", f"{CDN}/{EXPORT}", EXPORT, [EXPORT], OwnerMatch.SAME_EXPORT),
        (f"{HOST}/tiles", f"{CDN}/tiles", "tiles", ["tiles"], OwnerMatch.OTHER),
        (f"{HOST}/{EXPORT}", f"{HOST}/{OTHER}", OTHER, [EXPORT], OwnerMatch.OTHER),
        (f"{HOST}/{EXPORT}", ONE, None, [EXPORT], OwnerMatch.UNSURE),
        (f"{HOST}/{EXPORT}", ONE, EXPORT, [EXPORT], OwnerMatch.SAME_EXPORT),
        (f"{HOST}/{EXPORT}", ONE, EXPORT, [], OwnerMatch.SAME_EXPORT),
        (f"{HOST}/{EXPORT}", ONE, OTHER, [EXPORT], OwnerMatch.OTHER),
        (ONE, "", None, [], OwnerMatch.UNSURE),
        (ONE, "", EXPORT, [EXPORT], OwnerMatch.SAME_EXPORT),
        (ONE, "", OTHER, [EXPORT], OwnerMatch.OTHER),
        (ONE, TWO, None, None, OwnerMatch.OTHER),
        (ONE, f"{HOST}/{EXPORT}", EXPORT, None, OwnerMatch.UNSURE),
    ],
)
def test_a_place_takes_in_what_is_its_own(
    owner: str, owner_asked: str, export: str | None, held: list[str] | None, claim: OwnerMatch
) -> None:
    """An iModel is told by its id; a container by its URL, or by an export that is held; all else is another's."""
    assert compare_owner(owner, RequestedOwner(owner_asked, export), held) is claim


@pytest.mark.parametrize(
    ("owner", "asked", "claim", "after"),
    [
        ("", ONE, OwnerMatch.SAME, ONE),
        (ONE, ONE.upper(), OwnerMatch.SAME, ONE),
        (ONE, TWO, OwnerMatch.OTHER, TWO),
        (f"{HOST}/{EXPORT}", ONE, OwnerMatch.SAME_EXPORT, ONE),
        (ONE, f"{HOST}/{EXPORT}", OwnerMatch.SAME_EXPORT, ONE),
        (f"{HOST}/{EXPORT}", f"{CDN}/{EXPORT}", OwnerMatch.SAME_EXPORT, f"{HOST}/{EXPORT}"),
        (ONE, "", OwnerMatch.SAME_EXPORT, ONE),
        ("", "", OwnerMatch.SAME, ""),
        (ONE, "", OwnerMatch.OTHER, ONE),
    ],
)
def test_the_owner_stays_unless_another_was_meant_or_is_known_better(
    owner: str, asked: str, claim: OwnerMatch, after: str
) -> None:
    """The first who comes is the owner; one that was adopted is; a container gives way to its iModel."""
    assert merge_owner(owner, RequestedOwner(asked), claim) == after


def test_what_is_asked_for_is_known_better_when_the_export_is() -> None:
    """An iModel that was named stays; of a copy the version says whose it is: its iModel, else its container."""
    link = SasUrl(f"{HOST}/{EXPORT}", "sig=x")
    assert RequestedOwner(ONE).with_export(Export(EXPORT, "Complete", imodel=TWO, link=link)) == RequestedOwner(
        ONE, EXPORT
    )
    assert RequestedOwner("").with_export(Export(EXPORT, "Complete", link=link)) == RequestedOwner(link.base, EXPORT)
    version = Version(0, EXPORT, EXPORT, None, None, "", {}, container_url=f"{HOST}/x")
    assert RequestedOwner("").with_export(Export(EXPORT, "Complete", stored_version=version)) == RequestedOwner(
        f"{HOST}/x", EXPORT
    )
    assert RequestedOwner("").with_export(
        Export(EXPORT, "Complete", imodel=TWO, stored_version=version)
    ) == RequestedOwner(TWO, EXPORT)


def test_versions_are_named_after_their_exports() -> None:
    """A version has the id of its export, with a number where it is not the first; an id may end in digits itself."""
    assert is_version_of(EXPORT, EXPORT.upper())
    assert is_version_of(f"{EXPORT}-12", EXPORT)
    assert not is_version_of(EXPORT, EXPORT.rpartition("-")[0] + "-1234567890")
    assert not is_version_of(f"{EXPORT}-x", EXPORT)


def test_owners_are_shown_as_what_they_are() -> None:
    """A person is told whether an owner is an iModel or a container."""
    assert describe_owner(ONE) == f"the iModel {ONE}"
    assert describe_owner(f"{HOST}/x") == f"the container {HOST}/x"
    assert not same_owner(ONE, f"{HOST}/{ONE}")
