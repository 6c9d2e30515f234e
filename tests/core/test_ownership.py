"""Owner of a destination, and what else may be mirrored there."""

from __future__ import annotations

import pytest

from tilesync.core.ownership import (
    OwnerMatch,
    RequestedOwner,
    compare_owner,
    describe_owner,
    find_foreign_entries,
    find_reserved_names,
    is_version_of,
    join_names,
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
    ("owner", "requested", "export", "version_names", "match"),
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
def test_owners_are_compared(
    owner: str, requested: str, export: str | None, version_names: list[str] | None, match: OwnerMatch
) -> None:
    """An iModel matches by its id; a container by its URL, or by an export that is stored here; any other owner is
    different.
    """
    assert compare_owner(owner, RequestedOwner(requested, export), version_names) is match


@pytest.mark.parametrize(
    ("owner", "requested", "match", "merged"),
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
def test_merged_owners(owner: str, requested: str, match: OwnerMatch, merged: str) -> None:
    """The first owner is kept, unless another one was adopted; a container gives way to its iModel."""
    assert merge_owner(owner, RequestedOwner(requested), match) == merged


def test_the_export_completes_the_requested_owner() -> None:
    """A named iModel is kept; a mirrored version states its owner: its iModel, else its container."""
    link = SasUrl(f"{HOST}/{EXPORT}", "sig=x")
    assert RequestedOwner(ONE).with_export(Export(EXPORT, "Complete", imodel=TWO, link=link)) == RequestedOwner(
        ONE, EXPORT
    )
    assert RequestedOwner("").with_export(Export(EXPORT, "Complete", link=link)) == RequestedOwner(link.base, EXPORT)
    version = Version(0, EXPORT, EXPORT, container_url=f"{HOST}/x")
    assert RequestedOwner("").with_export(Export(EXPORT, "Complete", stored_version=version)) == RequestedOwner(
        f"{HOST}/x", EXPORT
    )
    assert RequestedOwner("").with_export(
        Export(EXPORT, "Complete", imodel=TWO, stored_version=version)
    ) == RequestedOwner(TWO, EXPORT)


def test_versions_are_named_after_their_exports() -> None:
    """A version has the id of its export, with a number if it is not the first; an id may end in digits itself."""
    assert is_version_of(EXPORT, EXPORT.upper())
    assert is_version_of(f"{EXPORT}-12", EXPORT)
    assert not is_version_of(EXPORT, EXPORT.rpartition("-")[0] + "-1234567890")
    assert not is_version_of(f"{EXPORT}-x", EXPORT)


def test_owners_are_described() -> None:
    """A description tells whether an owner is an iModel or a container."""
    assert describe_owner(ONE) == f"the iModel {ONE}"
    assert describe_owner(f"{HOST}/x") == f"the container {HOST}/x"
    assert not same_owner(ONE, f"{HOST}/{ONE}")


def test_files_of_the_system_are_ignored() -> None:
    """Files of file systems, desktops and version control do not count; a state folder of tilesync does."""
    assert find_foreign_entries(["lost+found", ".git", ".DS_Store", ".snapshot", "Thumbs.db", "$RECYCLE.BIN", ""]) == []
    assert find_foreign_entries(["x", ".tilesync", "lost+found", "index.html"]) == [".tilesync", "index.html", "x"]


def test_reserved_names_clash() -> None:
    """A name clashes if tilesync writes it at the top, in any case."""
    assert find_reserved_names(["Versions", "latest.json", "index.html", "versions.txt"]) == ["Versions", "latest.json"]


def test_a_message_names_at_most_three() -> None:
    """A message names at most three, and the number of further ones."""
    assert join_names(["a", "b", "c"]) == "a, b, c"
    assert join_names(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
