"""Under which address viewers reach a place in an object store."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from tilesync.errors import UsageError
from tilesync.model.storage import AzureLocation, S3Location


def public_url(
    place: AzureLocation | S3Location, *, endpoint: str | None, region: str | None = None, virtual_hosted: bool = False
) -> str:
    """The store's own address of the place, without a slash at its end. `endpoint`: that of the account, or of the S3
    service, where it is no usual one; `virtual`: its host names the bucket there, too.

    Source: "Resource URI syntax" (Blob service); "Virtual hosting of buckets" (S3).
    """
    prefix = quote(place.prefix, safe="/~").rstrip("/")
    if isinstance(place, AzureLocation):
        usual = f"{(endpoint or f'https://{place.account}.blob.core.windows.net').rstrip('/')}/{place.container}"
        base = place.link.base if place.link is not None else usual
    elif endpoint and virtual_hosted:
        parts = urlsplit(endpoint)
        base = f"{parts.scheme}://{place.bucket}.{parts.netloc}{parts.path.rstrip('/')}"
    elif endpoint:
        base = f"{endpoint.rstrip('/')}/{place.bucket}"
    else:
        host = f"s3.{region}.amazonaws.com" if region else "s3.amazonaws.com"
        dotted = "." in place.bucket  # no certificate covers such a name as a host
        base = f"https://{host}/{place.bucket}" if dotted else f"https://{place.bucket}.{host}"
    return f"{base}/{prefix}".rstrip("/")


def parse_public_url(text: str) -> str:
    """A --public-url without a slash, or `/tileset.json`, at its end. Raises UsageError for what is none."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        raise UsageError("--public-url is no URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(
            "--public-url must begin with https:// or http://", hint="write https://tiles.example.com/bridge"
        )
    if parts.query or parts.username or parts.password:
        raise UsageError(
            "--public-url takes no query and no credentials: viewers come without any",
            hint="give the address of the folder that holds tileset.json",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".removesuffix("/tileset.json").rstrip("/")


def parse_origin(text: str) -> str:
    """An --origin as browsers send it. Raises UsageError for what is none. Source: RFC 6454, section 6.2."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        raise UsageError("--origin is no URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise UsageError(
            "--origin is the scheme, host and port of the viewer's page, without a path",
            hint="write https://viewer.example.com",
        )
    try:
        netloc = parts.netloc.encode("idna").decode()
    except UnicodeError:
        raise UsageError("--origin names no host") from None
    return f"{parts.scheme}://{netloc}".lower()
