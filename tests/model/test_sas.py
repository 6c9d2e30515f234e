"""Container links: permissions, viewer URLs, and what their repr shows."""

import pytest

from tilesync.azure.sas import parse_sas_link


def test_the_repr_of_a_link_has_no_signature() -> None:
    """The representation of a link does not contain the signature."""
    assert "SECRET" not in repr(parse_sas_link("https://a.net/c?sig=SECRET"))


def test_a_viewer_url_has_no_slash_after_its_path() -> None:
    """Slashes in the signature are quoted, and nothing else is: viewers look for the last slash."""
    link = parse_sas_link("https://account/c?sv=1&sig=a/b%2Fc%3D")
    assert link.viewer_url() == "https://account/c/tileset.json?sv=1&sig=a%2Fb%2Fc%3D"
    assert link.viewer_url("a b/") == "https://account/c/a%20b/tileset.json?sv=1&sig=a%2Fb%2Fc%3D"


@pytest.mark.parametrize(
    ("query", "reads_only"),
    [
        ("sp=r&sig=x", True),
        ("sig=x&sp=rl", True),
        ("sp=racwdl&sig=x", False),
        ("sp=l&sig=x", False),
        ("si=p&sig=x", False),
    ],
)
def test_permissions_of_a_link(query: str, reads_only: bool) -> None:
    """Permissions are known from `sp` only, not from a stored policy."""
    assert parse_sas_link(f"https://account/c?{query}").is_read_only is reads_only
