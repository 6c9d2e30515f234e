"""Who writes to an Azure storage account: keys, connection strings, tokens, Entra; and what only they can.

The one file that speaks through azure-storage-blob: its half second of import is paid by those who need it.
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
"""Of a link that is minted."""

SAS_START_MARGIN: Final = timedelta(minutes=15)
"""A link begins so long ago: clocks differ. Source: "Best practices when using SAS"."""

_ENTRA_AUTHORITY_URL: Final = "https://login.microsoftonline.com"
_IMDS_URL: Final = "http://169.254.169.254"
"""Where Entra, and the identity of a machine, answer. Source: azure-identity, "AZURE_AUTHORITY_HOST"; Azure Instance
Metadata Service.
"""

READ_PERMISSIONS, READ_LIST_PERMISSIONS, WRITE_PERMISSIONS = "r", "rl", "racwdl"
"""What a link allows: to read; to list, too; and to add, create, write and delete."""

MAX_DELEGATED_SAS_LIFETIME: Final = timedelta(days=7)
"""Of a link for an identity of Entra. Source: "Get User Delegation Key"."""

IDENTITY_HINT: Final = (
    "set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN; or log in to Entra"
    " (`az login`, AZURE_CLIENT_ID, a managed identity)"
)
"""For a machine with azure-identity; without it Entra wants that first."""

_KEY_OR_CLOCK_HINT: Final = "is the key, or the identity, a current one of the account, and this machine's clock right?"
_ROLES_HINT: Final = "it needs the role Storage Blob Data Contributor, and Storage Blob Delegator on the account"


class StorageAccount:
    """A storage account as some identity sees it, and one container of it.

    Raises NotAuthorised, UsageError, DestinationError, and Transient for what another attempt may cure; no message
    holds a secret.
    """

    def __init__(self, service: BlobServiceClient, container: str) -> None:
        self._service = service
        self._container = container
        self._cached_delegation_key: tuple[Any, datetime] | None = None

    @property
    def container_url(self) -> str:
        """The bare URL of the container."""
        parts = urlsplit(self._service.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/{self._container}"

    def create_sas(self, permission: str = WRITE_PERMISSIONS, *, lifetime: timedelta = SAS_LIFETIME) -> SasUrl:
        """A container link; signed by the account's key, or for an identity of Entra by a delegated one.

        Raises UsageError for a life that no delegated key has.
        """
        from azure.storage.blob import generate_container_sas

        now = datetime.now(UTC)
        key = getattr(self._service.credential, "account_key", None)
        if not key and lifetime > MAX_DELEGATED_SAS_LIFETIME:
            raise UsageError(
                "a link that is signed for an identity of Entra lives seven days at most",
                hint="ask for less, or give AZURE_STORAGE_KEY",
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
        """A key of the user's, good for the life of a link at least."""
        if self._cached_delegation_key is None or self._cached_delegation_key[1] < now + lifetime:
            end = now + min(2 * lifetime, MAX_DELEGATED_SAS_LIFETIME)
            self._cached_delegation_key = self._service.get_user_delegation_key(now - SAS_START_MARGIN, end), end
        return self._cached_delegation_key[0]

    def create_container(self) -> None:
        """Make the container, where it is not there yet."""
        from azure.core.exceptions import ResourceExistsError

        with _translate_errors(f"the container {self._container} cannot be made"):
            try:
                self._service.create_container(self._container)
            except ResourceExistsError as error:
                if getattr(error, "error_code", None) != "ContainerAlreadyExists":
                    raise


@contextmanager
def open_account(
    name: str, container: str, endpoint: str, environ: Mapping[str, str], *, allow_http: bool = False
) -> Iterator[StorageAccount]:
    """The account, seen by the first identity that is there: a connection string of it, a key, Entra.

    A key is that of AZURE_STORAGE_ACCOUNT, where that is set: another account may be asked in the same run.
    """
    from azure.storage.blob import BlobServiceClient

    check_store_url(endpoint, allow_http=allow_http)
    text, key = environ.get("AZURE_STORAGE_CONNECTION_STRING"), environ.get("AZURE_STORAGE_KEY")
    if text and (said := _service_from_connection_string(text, endpoint)).account_name == name:
        if not getattr(said.credential, "account_key", None):
            raise UsageError(
                "AZURE_STORAGE_CONNECTION_STRING holds no AccountKey",
                hint="give the token in AZURE_STORAGE_SAS_TOKEN instead",
            )
        service = said
    elif key and environ.get("AZURE_STORAGE_ACCOUNT") in {None, "", name}:
        service = BlobServiceClient(
            endpoint, credential={"account_name": name, "account_key": key}, **_client_options(endpoint)
        )
    elif endpoint.startswith("http:"):
        raise NotAuthorised(
            f"no key for the storage account {name} is given, and Entra's tokens go to https:// alone",
            hint="set AZURE_STORAGE_KEY (AZURE_STORAGE_ACCOUNT says whose it is), or AZURE_STORAGE_CONNECTION_STRING",
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
            "AZURE_STORAGE_CONNECTION_STRING is no connection string", hint="copy it from the account's access keys"
        ) from None


def _entra_credential(name: str, environ: Mapping[str, str]) -> Any:
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise NotAuthorised(
            f"no identity for the storage account {name} is given",
            hint=f"{IDENTITY_HINT} after `pip install azure-identity`",
        ) from None
    authority = environ.get("AZURE_AUTHORITY_HOST") or _ENTRA_AUTHORITY_URL
    options = _client_options(authority if "://" in authority else f"https://{authority}", _IMDS_URL)
    try:
        return DefaultAzureCredential(**{name: value for name, value in options.items() if name != "retry_total"})
    except ValueError:
        raise UsageError("AZURE_AUTHORITY_HOST is no https URL", hint="correct or unset it") from None


def delete_batch(sas: SasUrl, names: Sequence[str]) -> list[tuple[str, int]]:
    """Delete many blobs of a container in one request; the status for each that was answered.

    Source: "Blob Batch" (REST).
    """
    from azure.storage.blob import ContainerClient

    with ContainerClient.from_container_url(f"{sas.base}?{sas.query}", **_client_options(sas.base)) as container:
        with _translate_errors("deleting"):
            replies = list(container.delete_blobs(*names, delete_snapshots="include", raise_on_any_failure=False))
        return [(name, reply.status_code) for name, reply in zip(names, replies, strict=False)]


def _client_options(*urls: str) -> dict[str, Any]:
    """Whom the SDK trusts, which knows neither SSL_CERT_FILE nor the system's authorities; by which proxies it asks
    these `urls`; that it is silent, and that it leaves it to others to try again.
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
    """Raise UsageError where requests cannot speak SOCKS."""
    if find_spec("socks") is None:
        raise UsageError(
            "the Azure SDK speaks to a SOCKS proxy by the package PySocks, which is missing",
            hint="pip install socksio pysocks (which is what tilesync[socks] stands for), or use an http:// proxy",
        )


@contextmanager
def _translate_errors(what: str) -> Iterator[None]:
    """The SDK's errors in our terms; their texts may hold a URL."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except ClientAuthenticationError as error:
        raise NotAuthorised(
            f"{what}: the identity is refused ({_describe_error_code(error) or 'no token'})",
            hint=_error_hint(error) or IDENTITY_HINT,
        ) from None
    except HttpResponseError as error:
        raise _translate_response_error(error, what) from None
    except AzureError as error:
        if is_unresolved(str(error)):
            raise UnknownHost(f"{what}: the name of the storage account's host does not resolve") from None
        raise Transient(f"{what}: the storage account cannot be reached ({type(error).__name__})") from None
    except ValueError:
        raise UsageError(f"{what}: the account's key is no key", hint="check AZURE_STORAGE_KEY") from None


def _translate_response_error(error: Any, what: str) -> TilesyncError:
    status = error.status_code
    if status in {401, 403}:
        return NotAuthorised(
            f"{what}: the identity may not do that ({_describe_error_code(error)})",
            hint=_error_hint(error) or _ROLES_HINT,
        )
    if status is None or status == 429 or status >= 500:
        return Transient(f"{what}: the storage account answered {_describe_error_code(error)}")
    return DestinationError(f"{what} ({_describe_error_code(error)})", hint=_error_hint(error))


def _describe_error_code(error: Any) -> str:
    return " ".join(str(part) for part in (error.status_code, getattr(error, "error_code", None)) if part)


def _error_hint(error: Any) -> str:
    code = str(getattr(error, "error_code", ""))
    return _KEY_OR_CLOCK_HINT if code == "AuthenticationFailed" else storage_hint(code)
