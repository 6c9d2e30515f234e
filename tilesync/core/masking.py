"""Secrets in texts of others: what is known to be one, and what looks like one, is masked before it is told."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

MASK: Final = "…"

_VALUE_CHAR: Final = r"[^\s&\"'<>\\;,)}\]]"
"""What a value in a query, a header or a form consists of, and what ends it in a sentence."""

_SECRET_NAMES: Final = (
    r"sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|policy|awsaccesskeyid"
    r"|access_token|id_token|refresh_token|token|assertion|client_assertion|client_secret|secret|password|pwd"
    r"|accountkey|sharedaccesssignature|sharedaccesskey|api[_-]?key|subscription-key"
)
"""Fields of queries, forms and connection strings that are secrets. Source: "Create a service SAS"; Signature Version
4; CloudFront signed URLs; RFC 6749; "Configure Azure Storage connection strings".
"""

_SECRET_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), masked)
    for pattern, masked in (
        (r"(https?://[^\s?#\"'<>\\]*)\?[^\s\"'<>\\]*=[^\s\"'<>\\]*", rf"\1?{MASK}"),
        (r"(https?(?::|%3A)(?:/|%2F){2}[^\s\"'<>\\&]*?)%3F[^\s\"'<>\\&]*", rf"\1%3F{MASK}"),
        (r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"'<>\\]+@", rf"\1{MASK}@"),
        (rf"\b({_SECRET_NAMES})(=|%(?:25)*3D){_VALUE_CHAR}+", rf"\1\2{MASK}"),
        (r"((?:access|id|refresh)_token|client_secret)(\\*[\"']?\s*:\s*\\*[\"']?)[^\s\"'\\,}]+", rf"\1\2{MASK}"),
        (r"\b(bearer|basic|sharedkey|sharedkeylite)(\s+|%20|\+)[\w.~+/=:%-]{16,}", rf"\1\2{MASK}"),
        (r"\beyj[\w-]{16,}(?:\.[\w-]*)*", MASK),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", MASK),
        (r"[a-z0-9+/]{86}==", MASK),
    )
)
"""Queries of URLs, also within other URLs, and who asks in them; fields; headers; a JSON Web Token; keys of AWS and of
an Azure account.
"""

_SECRET_SIGNS: Final = re.compile(r"[=?@.%]|bearer|basic|sharedkey|_token|client_secret|AKIA|ASIA", re.IGNORECASE)
"""A text without any of these has none of those."""

MIN_SECRET_CHARS: Final = 6
"""A secret of fewer letters is no secret, and may be part of any word."""


def mask_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these secrets, however they are quoted, and without what looks like one."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET_CHARS:
            for form in {secret, quote(secret, safe=""), quote(secret)}:
                text = text.replace(form, MASK)
    if _SECRET_SIGNS.search(text):
        for pattern, replacement in _SECRET_PATTERNS:
            text = pattern.sub(replacement, text)
    return text


def split_secret(secret: str) -> tuple[str, ...]:
    """A secret and what of it is one by itself: the value of a header without its scheme, the fields of a link."""
    words = secret.split()
    fields = (
        part.partition("=")[2] for part in re.split(r"[?&;]", secret) if re.match(rf"({_SECRET_NAMES})=", part, re.I)
    )
    return (secret, *words[1:], *fields)
