"""Requests to a bucket that we sign ourselves: it takes 0.05 ms, and boto3 takes 2 ms for a request.

Source: Amazon S3 API Reference, "Signature Calculations for the Authorization Header".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from tilesync.values import dataclass

EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
"""SHA-256 of a request without a body, in hexadecimal."""


class AwsKey(NamedTuple):
    """Key of AWS. `token`: of temporary credentials, else None."""

    key: str
    secret: str
    token: str | None

    def __repr__(self) -> str:
        return "AwsKey(…)"


class SignedRequest(NamedTuple):
    """URL and headers of a request, with the signature."""

    url: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class RequestSigner:
    """Signer of requests for the objects of one bucket. Picklable.

    `url`: address of the bucket, without a slash at the end. `key`: valid now.
    """

    url: str
    region: str
    key: AwsKey

    def sign(
        self, method: str, name: str, headers: Mapping[str, str], now: datetime, *, body_sha256: str = EMPTY_SHA256
    ) -> SignedRequest:
        """Sign a request for an object, by its full name. `now`: in UTC; a signature holds for 15 minutes.

        `headers` are signed too; their names are in lower case. The service refuses a body with another SHA-256.
        """
        path, moment = "/" + quote(name, safe="/~"), now.strftime("%Y%m%dT%H%M%SZ")
        parts = urlsplit(self.url)
        signed_headers = {**headers, "x-amz-content-sha256": body_sha256, "x-amz-date": moment}
        if self.key.token:
            signed_headers["x-amz-security-token"] = self.key.token
        lines = sorted({**signed_headers, "host": parts.netloc}.items())
        names = ";".join(name for name, _ in lines)
        values = (f"{name}:{' '.join(value.split())}" for name, value in lines)
        canonical = "\n".join((method, parts.path + path, "", *values, "", names, body_sha256))
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = _sign(_derive_key(self.key.secret, moment[:8], self.region), text).hex()
        credential = f"Credential={self.key.key}/{scope}, SignedHeaders={names}, Signature={signature}"
        return SignedRequest(self.url + path, {**signed_headers, "Authorization": f"AWS4-HMAC-SHA256 {credential}"})


class SignedAccess(NamedTuple):
    """Access to a bucket by requests that we sign ourselves.

    `load_signer`: returns the signer with a key that is valid now. `ca_certificates`: trusted besides the usual ones.
    """

    bucket: str
    load_signer: Callable[[], RequestSigner]
    has_checksums: bool
    ca_certificates: bytes | None


@lru_cache(maxsize=8)
def _derive_key(secret: str, day: str, region: str) -> bytes:
    """Derive the key of a day."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = _sign(key, part)
    return key


def _sign(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
