"""Credentials of an Azure storage account (key, connection string, Entra), and the requests that need them.

Only this file uses azure-storage-blob, so only runs that need it pay for its import (half a second).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tilesync.azure.error_hints import storage_hint
from tilesync.azure.sas import parse_sas_link
from tilesync.core.urls import check_store_url
from tilesync.errors import DestinationError, NotAuthorised, TilesyncError, Transient, UnknownHost, UsageError
from tilesync.model import SasUrl
from tilesync.transport.connect_errors import is_unresolved
from tilesync.transport.tls import load_proxies

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

SAS_LIFETIME: Final = timedelta(hours=1)
"""Lifetime of a created SAS link."""

SAS_START_MARGIN: Final = timedelta(minutes=15)
"""Time before now at which a link becomes valid, since clocks differ. Source: "Best practices when using SAS"."""

_ENTRA_AUTHORITY_URL: Final = "https://login.microsoftonline.com"
_IMDS_URL: Final = "http://169.254.169.254"
"""Hosts of Entra and of managed identities. Source: azure-identity, "AZURE_AUTHORITY_HOST"; Azure Instance Metadata
Service.
"""

READ_PERMISSIONS, READ_LIST_PERMISSIONS, WRITE_PERMISSIONS = "r", "rl", "racwdl"
"""Permissions of a link: read; read and list; and also add, create, write and delete."""

MAX_DELEGATED_SAS_LIFETIME: Final = timedelta(days=7)
"""Longest lifetime of a link for an Entra identity. Source: "Get User Delegation Key"."""

IDENTITY_HINT: Final = (
    "set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN; or log in to Entra"
    " (`az login`, AZURE_CLIENT_ID, a managed identity)"
)
"""Hint for a machine with azure-identity; without the package, Entra needs it first."""

_KEY_OR_CLOCK_HINT: Final = (
    "check that the key or identity is a current one of the account, and that this machine's clock is right"
)
_ROLES_HINT: Final = (
    "the identity needs the roles Storage Blob Data Contributor, and Storage Blob Delegator on the account"
)


class StorageAccount:
    """One container of a storage account, accessed with one identity.

    Raises NotAuthorised, UsageError, DestinationError, and Transient if another attempt may succeed. No message has a
    secret.
    """

    def __init__(self, service: BlobServiceClient, container: str) -> None:
        self._service = service
        self._container = container
        self._cached_delegation_key: tuple[Any, datetime] | None = None

    @property
    def container_url(self) -> str:
        """Return the URL of the container, without a query."""
        parts = urlsplit(self._service.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/{self._container}"

    def create_sas(self, permission: str = WRITE_PERMISSIONS, *, lifetime: timedelta = SAS_LIFETIME) -> SasUrl:
        """Create a SAS link to the container, signed with the account key, or with a delegation key for Entra.

        Raises UsageError if the lifetime is too long for a delegation key.
        """
        from azure.storage.blob import generate_container_sas

        now = datetime.now(UTC)
        key = getattr(self._service.credential, "account_key", None)
        if not key and lifetime > MAX_DELEGATED_SAS_LIFETIME:
            raise UsageError(
                "a link signed for an Entra identity is valid for seven days at most",
                hint="choose a shorter time, or set AZURE_STORAGE_KEY",
            )
        with _translate_errors("a link to the destination cannot be signed"):
            signer = {"account_key": key} if key else {"user_delegation_key": self._user_delegation_key(now, lifetime)}
            query = generate_container_sas(
                str(self._service.account_name),
                self._container,
                permission=permission,
                start=now - SAS_START_MARGIN,
                expiry=now + lifetime,
                protocol="https" if self.container_url.startswith("https:") else "https,http",
                **signer,
            )
        return parse_sas_link(f"{self.container_url}?{query}", fetched=monotonic())

    def _user_delegation_key(self, now: datetime, lifetime: timedelta) -> Any:
        """Return a user delegation key, cached, that is valid at least as long as a link."""
        if self._cached_delegation_key is None or self._cached_delegation_key[1] < now + lifetime:
            end = now + min(2 * lifetime, MAX_DELEGATED_SAS_LIFETIME)
            self._cached_delegation_key = self._service.get_user_delegation_key(now - SAS_START_MARGIN, end), end
        return self._cached_delegation_key[0]

    def create_container(self) -> None:
        """Create the container if it does not exist."""
        from azure.core.exceptions import ResourceExistsError

        with _translate_errors(f"the container {self._container} cannot be created"):
            try:
                self._service.create_container(self._container)
            except ResourceExistsError as error:
                if getattr(error, "error_code", None) != "ContainerAlreadyExists":
                    raise


@contextmanager
def open_account(
    name: str, container: str, endpoint: str, environ: Mapping[str, str], *, allow_http: bool = False
) -> Iterator[StorageAccount]:
    """Open an account with the first credentials found: a connection string of this account, a key, Entra.

    Where AZURE_STORAGE_ACCOUNT is set, AZURE_STORAGE_KEY belongs to that account only: a run may use several accounts.
    """
    from azure.storage.blob import BlobServiceClient

    check_store_url(endpoint, allow_http=allow_http)
    text, key = environ.get("AZURE_STORAGE_CONNECTION_STRING"), environ.get("AZURE_STORAGE_KEY")
    if text and (candidate := _service_from_connection_string(text, endpoint)).account_name == name:
        if not getattr(candidate.credential, "account_key", None):
            raise UsageError(
                "AZURE_STORAGE_CONNECTION_STRING holds no AccountKey",
                hint="set AZURE_STORAGE_SAS_TOKEN to the SAS token instead",
            )
        service = candidate
    elif key and environ.get("AZURE_STORAGE_ACCOUNT") in {None, "", name}:
        service = BlobServiceClient(
            endpoint, credential={"account_name": name, "account_key": key}, **_client_options(endpoint)
        )
    elif endpoint.startswith("http:"):
        raise NotAuthorised(
            f"no key for the storage account {name} is set, and Entra tokens are sent to https:// URLs only",
            hint="set AZURE_STORAGE_KEY (and AZURE_STORAGE_ACCOUNT to its account), or AZURE_STORAGE_CONNECTION_STRING",
        )
    else:
        service = BlobServiceClient(endpoint, credential=_entra_credential(name, environ), **_client_options(endpoint))
    with service:
        yield StorageAccount(service, container)


def _service_from_connection_string(text: str, endpoint: str) -> BlobServiceClient:
    from azure.storage.blob import BlobServiceClient

    try:
        return BlobServiceClient.from_connection_string(text, **_client_options(endpoint))
    except ValueError:
        raise UsageError(
            "AZURE_STORAGE_CONNECTION_STRING is no connection string",
            hint='copy it from the page "Access keys" of the storage account',
        ) from None


def _entra_credential(name: str, environ: Mapping[str, str]) -> Any:
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise NotAuthorised(
            f"there are no credentials for the storage account {name}",
            hint=f"{IDENTITY_HINT} after `pip install azure-identity`",
        ) from None
    authority = environ.get("AZURE_AUTHORITY_HOST") or _ENTRA_AUTHORITY_URL
    options = _client_options(authority if "://" in authority else f"https://{authority}", _IMDS_URL)
    try:
        return DefaultAzureCredential(**{name: value for name, value in options.items() if name != "retry_total"})
    except ValueError:
        raise UsageError("AZURE_AUTHORITY_HOST is not an https URL", hint="correct it or unset it") from None


def delete_batch(sas: SasUrl, names: Sequence[str]) -> list[tuple[str, int]]:
    """Delete many blobs of a container in one request, and return name and status of each that was answered.

    Source: "Blob Batch" (REST).
    """
    from azure.storage.blob import ContainerClient

    with ContainerClient.from_container_url(f"{sas.base}?{sas.query}", **_client_options(sas.base)) as container:
        with _translate_errors("blobs cannot be deleted"):
            responses = list(container.delete_blobs(*names, delete_snapshots="include", raise_on_any_failure=False))
        return [(name, response.status_code) for name, response in zip(names, responses, strict=False)]


def _client_options(*urls: str) -> dict[str, Any]:
    """Return the options of SDK clients for these URLs: certificate authorities, proxies, no retries.

    The SDK knows neither SSL_CERT_FILE nor the certificate store of the system. Its logger is silenced too.
    """
    bundle = ssl.get_default_verify_paths().cafile or os.environ.get("REQUESTS_CA_BUNDLE")
    chosen = {urlsplit(url).scheme: load_proxies().proxy_for(url) for url in urls}
    if any(proxy is not None and proxy.is_socks for proxy in chosen.values()):
        _require_socks_support()
    return {
        "retry_total": 0,
        "use_env_settings": False,
        "proxies": {scheme: proxy.url for scheme, proxy in chosen.items() if proxy is not None},
        **({"connection_verify": bundle} if bundle else {}),
    }


def _require_socks_support() -> None:
    """Raise UsageError if the SDK cannot use a SOCKS proxy."""
    if find_spec("socks") is None:
        raise UsageError(
            "the Azure SDK needs the package PySocks for a SOCKS proxy",
            hint="pip install socksio pysocks (the extra tilesync[socks]), or use an http:// proxy",
        )


@contextmanager
def _translate_errors(what: str) -> Iterator[None]:
    """Translate errors of the SDK. Their texts are dropped: they may hold a URL with a signature."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except ClientAuthenticationError as error:
        raise NotAuthorised(
            f"{what}: the service refuses the identity ({_describe_error_code(error) or 'no token'})",
            hint=_error_hint(error) or IDENTITY_HINT,
        ) from None
    except HttpResponseError as error:
        raise _translate_response_error(error, what) from None
    except AzureError as error:
        if is_unresolved(str(error)):
            raise UnknownHost(f"{what}: the name of the storage account's host does not resolve") from None
        raise Transient(f"{what}: the storage account cannot be reached ({type(error).__name__})") from None
    except ValueError:
        raise UsageError(f"{what}: the account key is not valid Base64", hint="check AZURE_STORAGE_KEY") from None


def _translate_response_error(error: Any, what: str) -> TilesyncError:
    status = error.status_code
    if status in {401, 403}:
        return NotAuthorised(
            f"{what}: the identity has no permission ({_describe_error_code(error)})",
            hint=_error_hint(error) or _ROLES_HINT,
        )
    if status is None or status == 429 or status >= 500:
        return Transient(f"{what}: the storage account answered {_describe_error_code(error)}")
    return DestinationError(f"{what} ({_describe_error_code(error)})", hint=_error_hint(error))


def _describe_error_code(error: Any) -> str:
    """Return status and error code of a response, the parts that are safe to show."""
    return " ".join(str(part) for part in (error.status_code, getattr(error, "error_code", None)) if part)


def _error_hint(error: Any) -> str:
    code = str(getattr(error, "error_code", ""))
    return _KEY_OR_CLOCK_HINT if code == "AuthenticationFailed" else storage_hint(code)
