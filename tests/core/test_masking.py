"""Masking of secrets in foreign texts."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sample_secrets import LINK, SIG
from tilesync.core.masking import looks_like_secret, mask_secrets, split_secret

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVPmB92K27uhbUJU1p1r_wW1gFWFOEjXk"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

SECRETS = [
    (f"see {LINK}", SIG),
    (f"see {LINK.upper()}", SIG.upper()),
    (f'"{LINK}"', SIG),
    (f"https://elsewhere.example/?next={quote(LINK, safe='')}&x=1", SIG),
    (f"sig={SIG}", SIG),
    (f"?sv=1&sig={quote(SIG, safe='')}&x", SIG),
    (f"sig%3D{quote(SIG, safe='')}", SIG),
    (f"sig%253D{quote(SIG, safe='')}", SIG),
    ("https://d1.cloudfront.net/e1?Policy=eyJTdGF0ZW1lbnQi&Signature=abcDEF~1-&Key-Pair-Id=K1", "abcDEF~1-"),
    ("Signature=abcDEF~1-", "abcDEF~1-"),
    ("X-Amz-Signature=0123456789abcdef&X-Amz-Security-Token=tokentoken", "tokentoken"),
    (f"token {JWT} is expired", JWT),
    (f"Authorization: Bearer {JWT}", JWT),
    ("Bearer 0123456789abcdef0123 refused", "0123456789abcdef0123"),
    ("Basic dXNlcjpwYXNzd29yZA== refused", "dXNlcjpwYXNzd29yZA=="),
    ("SharedKey account:c2lnbmF0dXJlc2lnbmF0dXJl", "c2lnbmF0dXJlc2lnbmF0dXJl"),
    ('{"access_token": "opaque-token-1"}', "opaque-token-1"),
    ('{\\"access_token\\":\\"opaque-token-1\\"}', "opaque-token-1"),
    ("client_secret=s3cr3t-value&grant_type=client_credentials", "s3cr3t-value"),
    ("client_secret: s3cr3t-value", "s3cr3t-value"),
    (f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={KEY};EndpointSuffix=x", KEY),
    (f"the key {KEY} is wrong", KEY),
    ("https://user:pa55word@host/path", "pa55word"),
    ("AKIAIOSFODNN7EXAMPLE has no rights", "AKIAIOSFODNN7EXAMPLE"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secret_patterns_are_masked(text: str, secret: str) -> None:
    """A signature, token or key is masked anywhere, also quoted, and the rest stays readable."""
    masked = mask_secrets(text)
    for form in (secret, quote(secret, safe=""), quote(secret)):
        assert form not in masked
    assert "…" in masked
    assert mask_secrets(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "the service refuses the token (401: Header Authorization was not found in the request. Access denied)",
        "iModelId is invalid.; $top: $top must be lower or equal to 1000",
        "give it as https://ACCOUNT.blob.core.windows.net/CONTAINER?SAS and nothing else",
        "check that the link allows listing (`sp=rl`), or use --inventory walk, which needs no listing",
        "Bearer authentication failed; Basic authentication is off",
        "the token: expired",
        "tiles/a?b=c.glb",
        "https://host/path#fragment and https://host/other",
        "export aaaaaaaa-0000-4000-8000-000000000001, changeset e3a5dece-c1eb-477c-a782-32a4c43ba2ad",
        "signature=" ,
        "",
    ],
)  # fmt: skip
def test_ordinary_texts_are_unchanged(text: str) -> None:
    """Messages of the service and of tilesync itself are unchanged."""
    assert mask_secrets(text) == text


@pytest.mark.parametrize("text", [text for text, _ in SECRETS] + [LINK, JWT, KEY, LINK.partition("?")[2]])
def test_secrets_in_files_are_recognised(text: str) -> None:
    """A text with a signature, a token or a key looks like a secret."""
    assert looks_like_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "15m",
        "https://api.bentley.com/mesh-export",
        "https://hc-ping.com/5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40",
        "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40",
        "cat /run/secrets/token",
        "vault read -field=token secret/itwin",
        "az account get-access-token --query accessToken -o tsv",
        "az://account/container/prefix",
        "public, max-age=31536000, immutable",
        "/srv/tiles/{name}",
        "*.glb",
        "",
    ],
)
def test_ordinary_values_look_like_no_secret(text: str) -> None:
    """Values that options usually have, and commands that print a secret, do not look like one."""
    assert not looks_like_secret(text)


@given(st.text(min_size=6).filter(lambda secret: "…" not in secret), st.text(), st.text())
def test_known_secrets_are_masked_however_they_are_quoted(secret: str, before: str, behind: str) -> None:
    """A known secret is masked in any text, whatever surrounds it."""
    for form in (secret, quote(secret, safe="", errors="replace")):
        masked = mask_secrets(f"{before} {form} {behind}", [secret])
        assert secret not in masked.replace(before, "").replace(behind, "")


def test_short_words_are_no_secrets() -> None:
    """A secret of a few characters, or none, could be part of any word."""
    assert mask_secrets("a demo of it", ["", "demo"]) == "a demo of it"


def test_parts_of_a_secret() -> None:
    """The parts are the value of a header and the signing fields of a link, as written and decoded."""
    assert split_secret("Bearer abc") == ("Bearer abc", "abc")
    assert split_secret("https://h/c?sv=1&sig=xyz%3D") == ("https://h/c?sv=1&sig=xyz%3D", "xyz%3D", "xyz=")
