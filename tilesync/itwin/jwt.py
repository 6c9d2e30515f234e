"""Expiry of an access token, and decoding of files that hold a secret."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

from tilesync.core.foreign_json import parse_json


def decode_secret_text(data: bytes) -> str:
    """Decode a file that holds a secret: UTF-8, or UTF-16 with a byte order mark, as editors and shells write it.

    Raises ValueError for anything else.
    """
    return data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")


def token_expiry(token: str) -> datetime | None:
    """Return when a JSON Web Token expires; None for any other token, and for one without `exp`.

    The signature is not verified.

    Source: RFC 7519, sections 3 and 4.1.4.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = parse_json(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (ValueError, TypeError, KeyError, binascii.Error, OverflowError, OSError):
        return None
