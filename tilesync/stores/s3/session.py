"""Open a bucket with the credentials, region, endpoint and certificates that the AWS command line would use."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from tilesync.core.urls import check_store_url
from tilesync.errors import NotAuthorised, Transient, UsageError
from tilesync.protocols import Observer
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.runtime.safe_open import open_regular
from tilesync.stores.object_store.lock import lease_request_timeout
from tilesync.stores.s3.client import S3Clients, S3Objects
from tilesync.stores.s3.errors import raise_for_response
from tilesync.stores.s3.lease import LEASE_TERM
from tilesync.stores.s3.multipart import MultipartClient, no_response_error
from tilesync.stores.s3.objects import ObjectClient
from tilesync.stores.s3.signing import AwsKey, RequestSigner, SignedAccess
from tilesync.transport.blob_client_sync import open_sync_client
from tilesync.transport.proxies import Proxy
from tilesync.transport.request_batches import RequestBatches
from tilesync.transport.retry import SyncRetrier
from tilesync.transport.tls import fallback_ca_bundle, load_proxies, user_agent

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Store

_INSTALL_HINT: Final = "pip install obstore boto3 (the extra tilesync[s3])"
_CREDENTIALS_HINT: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary credentials), or AWS_PROFILE;"
    " roles, single sign-on and machine identities work as in the AWS command line"
)
_READ_TIMEOUT: Final = timedelta(seconds=60)
_OBSTORE_READ_TIMEOUT: Final = timedelta(minutes=5)
"""obstore measures this from the start of a request, so it includes the time to send the body."""

_CONNECT_TIMEOUT: Final = timedelta(seconds=20)
_OBSTORE_REQUEST_TIMEOUT: Final = timedelta(days=1)
"""Time limit of a whole request. obstore's default, 30 s, is too short for a large body on a slow line."""

_CREDENTIALS_TTL: Final = timedelta(minutes=9)
"""How long credentials are cached. botocore returns none that expire within ten minutes; obstore renews them five
minutes early.
"""

_DEFAULT_REGION: Final = "us-east-1"
"""Region where none is configured. Source: Amazon S3 API Reference, "CreateBucket"."""

_AMAZON_HOST_SUFFIXES: Final = (".amazonaws.com", ".amazonaws.com.cn")


class BucketAddress(NamedTuple):
    """The address of a bucket. `endpoint` is None for Amazon's own service.

    `is_virtual_hosted`: the bucket name is in the host. `ca_certificates`: trusted besides the usual ones (PEM).
    """

    endpoint: str | None
    region: str | None
    is_virtual_hosted: bool = False
    ca_certificates: bytes | None = None


class _S3Settings(NamedTuple):
    """Settings from the environment and the AWS profiles."""

    client: Any
    load_credentials: Callable[[], AwsKey]
    credential_provider: Any
    endpoint: str
    addressing_style: str | None
    region: str
    has_checksums: bool
    ca_certificates: bytes | None


@contextmanager
def open_bucket(
    bucket: str,
    prefix: str,
    observe: Observer,
    *,
    endpoint_url: str | None = None,
    retry_budget: timedelta = timedelta(seconds=60),
    term: timedelta = LEASE_TERM,
    allow_http: bool = False,
) -> Iterator[S3Objects]:
    """Open the objects of a bucket below `prefix`, which is empty or ends with a slash.

    Credentials, region, endpoint and certificates come from the variables and profiles of AWS; `endpoint_url` comes
    first. boto3 and obstore use the same proxy, except when boto3 fetches credentials: there it decides by itself.
    `allow_http`: tiles and signatures may travel unencrypted. Raises UsageError if a package is missing,
    NotAuthorised without credentials, DestinationError.
    """
    display_name = f"s3://{bucket}/{prefix}"
    if endpoint_url is not None:
        check_store_url(endpoint_url, allow_http=allow_http)
    try:
        settings = _load_settings(bucket, endpoint_url, display_name, SyncRetrier(observe, budget=retry_budget))
        store = _make_store(bucket, settings)
    except ImportError:
        raise UsageError("S3 needs the packages obstore and boto3", hint=_INSTALL_HINT) from None
    check_store_url(settings.endpoint, allow_http=allow_http)
    open_anonymous_client = partial(
        open_sync_client, observe, budget=timedelta(), allow_http=allow_http, ca_bundle=settings.ca_certificates
    )
    multipart_client = MultipartClient(settings.client, bucket, display_name)
    clients = S3Clients(
        ObjectClient(store, display_name),
        multipart_client,
        observe,
        retry_budget,
        open_anonymous_client,
        _make_signed_access(bucket, settings),
        RequestBatches(ca_certificates=settings.ca_certificates),
    )
    timeout = lease_request_timeout(term)
    renewal_clients = clients._replace(
        object_client=ObjectClient(_make_store(bucket, settings, timeout=timeout), display_name),
        retry_budget=min(retry_budget, timeout),
    )
    url = f"{settings.endpoint}/{bucket}/{prefix}"
    renewal_objects = S3Objects(renewal_clients, prefix, display_name=display_name, canonical_url=url)
    objects = S3Objects(
        clients, prefix, display_name=display_name, canonical_url=url, term=term, renewal_objects=renewal_objects
    )
    try:
        yield objects
    finally:
        objects.close()
        clients.batches.close()
        settings.client.close()


def resolve_bucket_address(bucket: str, endpoint_url: str | None) -> BucketAddress:
    """Return the address that `open_bucket` would use, without a request. Raises UsageError, DestinationError."""
    try:
        import boto3
        import botocore.session
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UsageError("S3 needs the packages obstore and boto3", hint=_INSTALL_HINT) from None
    try:
        core = botocore.session.Session()
        session = boto3.Session(botocore_session=core)
        region, (bundle, ca_certificates) = session.region_name, _read_ca_bundle(core)
        client = _make_client(session, bucket, region or _DEFAULT_REGION, endpoint_url, bundle)
    except BotoCoreError as error:
        raise UsageError(
            f"the settings for s3://{bucket} cannot be read ({_error_type_name(error)})", hint=_CREDENTIALS_HINT
        ) from None
    endpoint, style = client.meta.endpoint_url, _addressing_style(client)
    client.close()
    if _is_amazon(endpoint):
        return BucketAddress(None, region, ca_certificates=ca_certificates)
    return BucketAddress(endpoint, region, resolve_endpoint(bucket, endpoint, style)[1], ca_certificates)


def _read_ca_bundle(core: Any) -> tuple[str | None, bytes | None]:
    """Return path and content of the certificate bundle that AWS_CA_BUNDLE, or a profile, names."""
    bundle: str | None = core.get_config_variable("ca_bundle") or None
    if bundle is None:
        return None, None
    with translate_os_errors(f"cannot read {bundle}"), open(open_regular(bundle, follow_symlinks=True), "rb") as file:
        return bundle, file.read()


def _load_settings(bucket: str, endpoint_url: str | None, display_name: str, retrying: SyncRetrier) -> _S3Settings:
    import boto3
    import botocore.session
    from botocore.exceptions import BotoCoreError, ClientError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        core = botocore.session.Session()
        session = boto3.Session(botocore_session=core)
        if session.get_credentials() is None:
            raise NotAuthorised(f"there are no credentials for {display_name}", hint=_CREDENTIALS_HINT)
        provider = Boto3CredentialProvider(session, ttl=_CREDENTIALS_TTL)
        provider()
    except (BotoCoreError, ClientError) as error:
        raise NotAuthorised(
            f"the credentials for {display_name} cannot be loaded ({_error_type_name(error)})", hint=_CREDENTIALS_HINT
        ) from None
    bundle, ca_certificates = _read_ca_bundle(core)
    # botocore knows neither SSL_CERT_FILE nor the certificate store of the system.
    verify = bundle or ssl.get_default_verify_paths().cafile
    region = session.region_name
    client = _make_client(session, bucket, region or _DEFAULT_REGION, endpoint_url, verify)
    if region is None and _is_amazon(client.meta.endpoint_url):
        region = retrying.retry(display_name, lambda: resolve_region(client, bucket, display_name))
        client = _make_client(session, bucket, region, endpoint_url, verify)
    return _S3Settings(
        client,
        partial(_load_credentials, session),
        provider,
        client.meta.endpoint_url,
        _addressing_style(client),
        region or _DEFAULT_REGION,
        core.get_config_variable("request_checksum_calculation") != "when_required",
        ca_certificates,
    )


def _load_credentials(session: Any) -> AwsKey:
    """Return the credentials, which botocore renews where they are temporary. Raises Transient if it cannot."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        frozen = session.get_credentials().get_frozen_credentials()
    except (BotoCoreError, ClientError) as error:
        raise Transient(f"the credentials cannot be renewed ({_error_type_name(error)})") from None
    return AwsKey(frozen.access_key, frozen.secret_key, frozen.token)


def _make_signed_access(bucket: str, settings: _S3Settings) -> SignedAccess | None:
    """Return the access that needs no boto3; None behind a proxy, or where another signature is configured."""
    endpoint, is_virtual = resolve_endpoint(bucket, settings.endpoint, settings.addressing_style)
    if _proxy_for(endpoint) is not None or settings.client.meta.config.signature_version not in {None, "s3v4"}:
        return None
    url = endpoint if is_virtual else f"{endpoint}/{bucket}"

    def load_signer() -> RequestSigner:
        return RequestSigner(url, settings.region, settings.load_credentials())

    return SignedAccess(bucket, load_signer, settings.has_checksums, settings.ca_certificates)


def _make_client(session: Any, bucket: str, region: str, endpoint_url: str | None, verify: str | None) -> Any:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=_CONNECT_TIMEOUT.total_seconds(),
        read_timeout=_READ_TIMEOUT.total_seconds(),
        retries={"total_max_attempts": 1},
        max_pool_connections=64,
        request_checksum_calculation="when_required",  # each part is sent with its MD5
        user_agent_extra=user_agent(),
    )
    arguments = {"region_name": region, "endpoint_url": endpoint_url, "verify": verify}
    try:
        # Set although it is empty: without it botocore would read the proxy variables in its own way.
        unproxied = session.client("s3", config=config.merge(Config(proxies={})), **arguments)
        endpoint, _ = resolve_endpoint(bucket, unproxied.meta.endpoint_url, _addressing_style(unproxied))
        proxy = _proxy_for(endpoint)
        if proxy is None:
            return unproxied
        proxies = {urlsplit(endpoint).scheme: proxy.url}
        return session.client("s3", config=config.merge(Config(proxies=proxies)), **arguments)
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            f"these settings are not valid for S3 ({_error_type_name(error)})",
            hint="check --endpoint-url and AWS_REGION",
        ) from None


def _addressing_style(client: Any) -> str | None:
    style: str | None = (client.meta.config.s3 or {}).get("addressing_style")
    return style


def _proxy_for(endpoint: str) -> Proxy | None:
    proxy = load_proxies().proxy_for(endpoint)
    if proxy is not None and proxy.is_socks:
        raise UsageError(
            f"S3 cannot be used through a SOCKS proxy, which {proxy.setting} names",
            hint=f"set {proxy.setting} to an http:// proxy, or name {urlsplit(endpoint).hostname} in NO_PROXY",
        )
    return proxy


def resolve_region(client: Any, bucket: str, display_name: str) -> str:
    """Return the region of a bucket. The service states it even in refusals. Source: "HeadBucket"."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        response = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        response = error.response
    except BotoCoreError as error:
        raise no_response_error(error, display_name) from None
    metadata = response.get("ResponseMetadata", {})
    region = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if region is None and metadata.get("HTTPStatusCode", 0) >= 400:
        raise_for_response(
            metadata["HTTPStatusCode"],
            "NoSuchBucket" if metadata["HTTPStatusCode"] == 404 else "",
            bucket,
            display_name,
            operation="read",
        )
    return str(region or _DEFAULT_REGION)


def _make_store(bucket: str, settings: _S3Settings, *, timeout: timedelta = _OBSTORE_REQUEST_TIMEOUT) -> S3Store:
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    endpoint, virtual = resolve_endpoint(bucket, settings.endpoint, settings.addressing_style)
    proxy = _proxy_for(endpoint)
    options: ClientConfig = {
        "allow_http": settings.endpoint.startswith("http://"),
        "connect_timeout": _CONNECT_TIMEOUT,
        "read_timeout": _OBSTORE_READ_TIMEOUT,
        "timeout": timeout,
        "user_agent": user_agent(),
    }
    if settings.ca_certificates:
        options["root_certificate"] = settings.ca_certificates
    if proxy is not None:
        options["proxy_url"] = proxy.url
    else:  # a dummy proxy that is excluded: without it, obstore would read the proxy variables in its own way
        options["proxy_url"], options["proxy_excludes"] = "http://direct.invalid", urlsplit(endpoint).hostname or ""
    config: S3Config = {
        "region": settings.region,
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,  # else the variable of this name would override it
        "virtual_hosted_style_request": virtual,
        "skip_signature": False,
    }
    if settings.has_checksums:
        config["checksum_algorithm"] = "SHA256"

    def build(options: ClientConfig) -> S3Store:
        return S3Store(
            bucket,
            config=config,
            client_options=options,
            retry_config={"max_retries": 0},
            credential_provider=settings.credential_provider,
        )

    try:
        try:
            return build(options)
        except BaseError:  # the system has no certificates at all
            return build({"root_certificate": fallback_ca_bundle(), **options})
    except (BaseError, ValueError):
        raise UsageError(f"s3://{bucket} cannot be opened with these settings", hint="check AWS_CA_BUNDLE") from None


def _is_amazon(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith(_AMAZON_HOST_SUFFIXES) and ".vpce." not in host


def resolve_endpoint(bucket: str, endpoint: str, addressing_style: str | None) -> tuple[str, bool]:
    """Return the endpoint of a bucket, and whether the host name contains the bucket.

    Amazon wants that; other servers only where it is configured. Names with dots are in the path: a wildcard
    certificate does not cover them.
    """
    if "." in bucket or addressing_style == "path" or not (addressing_style == "virtual" or _is_amazon(endpoint)):
        return endpoint, False
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}".rstrip("/"), True


def _error_type_name(error: Exception) -> str:
    """Return the type name of an error of botocore. Its text is dropped: it may hold URLs."""
    return type(error).__name__
