"""What an access token says about itself."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime


def token_end(token: str) -> datetime | None:
    """When a JSON Web Token ends, by its own word, which is not verified; None for one that is none or says nothing.

    Source: RFC 7519, sections 3 and 4.1.4.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (ValueError, TypeError, KeyError, binascii.Error, OverflowError, OSError, RecursionError):
        return None
