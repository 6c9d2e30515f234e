"""Public URL: the address where viewers reach a destination in an object store."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from tilesync.errors import UsageError
from tilesync.model.storage import AzureLocation, S3Location


def container_public_url(location: AzureLocation, *, endpoint: str) -> str:
    """Return the URL of a destination in a container of the account at `endpoint`, without a trailing slash.

    Source: "Resource URI syntax" (Blob service).
    """
    base = location.link.base if location.link is not None else f"{endpoint.rstrip('/')}/{location.container}"
    return _append_prefix(base, location.prefix)


def bucket_public_url(
    location: S3Location, *, endpoint: str | None, region: str | None, virtual_hosted: bool = False
) -> str:
    """Return the URL of a destination in a bucket, without a trailing slash.

    `endpoint`: address of the S3 service, if not Amazon; `virtual_hosted`: its host name contains the bucket name.

    Source: "Virtual hosting of buckets" (S3).
    """
    if endpoint and virtual_hosted:
        parts = urlsplit(endpoint)
        base = f"{parts.scheme}://{location.bucket}.{parts.netloc}{parts.path.rstrip('/')}"
    elif endpoint:
        base = f"{endpoint.rstrip('/')}/{location.bucket}"
    else:
        host = f"s3.{region}.amazonaws.com" if region else "s3.amazonaws.com"
        has_dot = "." in location.bucket  # no wildcard certificate covers a host name with these dots
        base = f"https://{host}/{location.bucket}" if has_dot else f"https://{location.bucket}.{host}"
    return _append_prefix(base, location.prefix)


def _append_prefix(base: str, prefix: str) -> str:
    return f"{base}/{quote(prefix, safe='/~')}".rstrip("/")


def parse_public_url(text: str) -> str:
    """Return --public-url without a trailing slash or `/tileset.json`. Raises UsageError if invalid."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        raise UsageError("--public-url is not a valid URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(
            "--public-url must begin with https:// or http://", hint="write https://tiles.example.com/bridge"
        )
    if parts.query or parts.username or parts.password:
        raise UsageError(
            "--public-url must not have a query or credentials: viewers send none",
            hint="give the address of the folder that holds tileset.json",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".removesuffix("/tileset.json").rstrip("/")


def parse_origin(text: str) -> str:
    """Return --origin in the form that browsers send. Raises UsageError if invalid. Source: RFC 6454, section 6.2."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        raise UsageError("--origin is not a valid URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise UsageError(
            "--origin must be the scheme, host and port of the viewer page, without a path",
            hint="write https://viewer.example.com",
        )
    try:
        netloc = parts.netloc.encode("idna").decode()
    except UnicodeError:
        raise UsageError("--origin has no valid host name") from None
    return f"{parts.scheme}://{netloc}".lower()
