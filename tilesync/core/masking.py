"""Masking of secrets in foreign texts: known secrets, and anything that looks like one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

MASK: Final = "…"

_VALUE_CHAR: Final = r"[^\s&\"'<>\\;,)}\]]"
"""Character of a value in a query, a header or a form; the excluded ones end a value in a sentence."""

_SENSITIVE_FIELDS: Final = (
    r"sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|policy|awsaccesskeyid"
    r"|access_token|id_token|refresh_token|token|assertion|client_assertion|client_secret|secret|password|pwd"
    r"|accountkey|sharedaccesssignature|sharedaccesskey|api[_-]?key|subscription-key"
)
"""Names of secret fields in queries, forms and connection strings.

Source: "Create a service SAS"; Signature Version 4; CloudFront signed URLs; RFC 6749; "Configure Azure Storage
connection strings".
"""

_SECRET_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), masked)
    for pattern, masked in (
        (r"(https?://[^\s?#\"'<>\\]*)\?[^\s\"'<>\\]*=[^\s\"'<>\\]*", rf"\1?{MASK}"),
        (r"(https?(?::|%3A)(?:/|%2F){2}[^\s\"'<>\\&]*?)%3F[^\s\"'<>\\&]*", rf"\1%3F{MASK}"),
        (r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"'<>\\]+@", rf"\1{MASK}@"),
        (rf"\b({_SENSITIVE_FIELDS})(=|%(?:25)*3D){_VALUE_CHAR}+", rf"\1\2{MASK}"),
        (r"((?:access|id|refresh)_token|client_secret)(\\*[\"']?\s*:\s*\\*[\"']?)[^\s\"'\\,}]+", rf"\1\2{MASK}"),
        (r"\b(bearer|basic|sharedkey|sharedkeylite)(\s+|%20|\+)[\w.~+/=:%-]{16,}", rf"\1\2{MASK}"),
        (r"\beyj[\w-]{16,}(?:\.[\w-]*)*", MASK),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", MASK),
        (r"[a-z0-9+/]{86}==", MASK),
    )
)
"""Patterns and their masked forms.

In order: queries of URLs, queries of quoted URLs, user names and passwords in URLs, fields, JSON fields, authorization
headers, JSON Web Tokens, access keys of AWS, keys of Azure accounts.
"""

_SECRET_SIGNS: Final = re.compile(r"[=?@.%]|bearer|basic|sharedkey|_token|client_secret|AKIA|ASIA", re.IGNORECASE)
"""Quick check: a text without any of these cannot match a secret pattern."""

MIN_SECRET_CHARS: Final = 6
"""Minimum characters of a secret to mask; a shorter one could be part of any word."""


def mask_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask the given secrets in a text, in each quoted form, and anything that looks like a secret."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET_CHARS:
            for form in {secret, quote(secret, safe=""), quote(secret)}:
                text = text.replace(form, MASK)
    if _SECRET_SIGNS.search(text):
        for pattern, replacement in _SECRET_PATTERNS:
            text = pattern.sub(replacement, text)
    return text


def looks_like_secret(text: str) -> bool:
    """Return whether a text contains something that looks like a secret: a signed link, a token, a key or a password.

    Files that the user writes may only refer to secrets: they are copied, committed and shown.
    """
    return mask_secrets(text) != text


def split_secret(secret: str) -> tuple[str, ...]:
    """Return a secret and its parts that are secret alone: a header value without its scheme, the fields of a link.

    Fields of a link are returned as written and decoded: a server may quote either.
    """
    words = secret.split()
    fields = [
        part.partition("=")[2]
        for part in re.split(r"[?&;]", secret)
        if re.match(rf"({_SENSITIVE_FIELDS})=", part, re.I)
    ]
    return (secret, *words[1:], *fields, *map(unquote, fields))
