"""Expiry of a JSON Web Token."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from tilesync.itwin.jwt import token_expiry


def token(claims: object) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def test_expiry() -> None:
    """`exp` is in seconds since the epoch; no other claim is needed."""
    assert token_expiry(token({"exp": 1_767_225_600})) == datetime(2026, 1, 1, tzinfo=UTC)


CLAIMS: tuple[object, ...] = ({}, [], "x", None, {"exp": "soon"}, {"exp": None}, {"exp": 1e300})


@pytest.mark.parametrize(
    "text",
    [
        *("", "demo", "a.b", "a.b.c", "a.!!.c", "a.é.c"),
        *map(token, CLAIMS),
    ],
)
def test_other_tokens_have_no_expiry(text: str) -> None:
    """A token that is no JWT, or has no readable `exp`, has no known expiry."""
    assert token_expiry(text) is None
