"""A bucket, opened: whose it is, where it lies and whom it trusts, as the AWS command line would have it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from tilesync.core.urls import check_store_url
from tilesync.errors import NotAuthorised, UsageError
from tilesync.protocols import Observer
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.runtime.safe_open import open_regular
from tilesync.stores.object_store.lock import lease_request_timeout
from tilesync.stores.s3.client import S3Clients, S3Objects
from tilesync.stores.s3.errors import raise_for_response
from tilesync.stores.s3.lease import LEASE_TERM
from tilesync.stores.s3.multipart import MultipartClient, no_response_error
from tilesync.stores.s3.objects import ObjectClient
from tilesync.transport.blob_client_sync import open_sync_client
from tilesync.transport.proxies import Proxy
from tilesync.transport.retry import SyncRetrier
from tilesync.transport.tls import fallback_ca_bundle, load_proxies, user_agent

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Store

_INSTALL_HINT: Final = "pip install obstore boto3 (which is what tilesync[s3] stands for)"
_CREDENTIALS_HINT: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN where there is one), or AWS_PROFILE;"
    " roles, single sign-on and the identity of a machine are found as the AWS command line finds them"
)
_READ_TIMEOUT: Final = timedelta(seconds=60)
_OBSTORE_READ_TIMEOUT: Final = timedelta(minutes=5)
"""obstore counts the silence of a server from the beginning of what is sent to it."""

_CONNECT_TIMEOUT: Final = timedelta(seconds=20)
_OBSTORE_REQUEST_TIMEOUT: Final = timedelta(days=1)
"""A body that moves may take its time; obstore's own limit is half a minute for all of it."""

_CREDENTIALS_TTL: Final = timedelta(minutes=9)
"""How long credentials are used before they are asked for again. botocore gives none that end within ten minutes;
obstore renews them five minutes early.
"""

_DEFAULT_REGION: Final = "us-east-1"
"""The region of those who name none. Source: Amazon S3 API Reference, "CreateBucket"."""

_AMAZON_HOST_SUFFIXES: Final = (".amazonaws.com", ".amazonaws.com.cn")


class BucketAddress(NamedTuple):
    """Where a bucket answers. `endpoint`: of its service, None where that is Amazon's own; `virtual`: its host names
    the bucket. `authorities`: whom it is trusted by, besides the usual ones (PEM).
    """

    endpoint: str | None
    region: str | None
    is_virtual_hosted: bool = False
    ca_certificates: bytes | None = None


class _S3Settings(NamedTuple):
    """What the environment and the profiles say."""

    client: Any
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
    """The objects of a bucket below `prefix`, which is empty or ends with a slash. `budget`: how long a failing answer
    is borne with. `allow_http`: tiles and signatures may go in the clear.

    Credentials, region, endpoint and authorities come from the variables and profiles of AWS, the endpoint from
    `endpoint_url` first. Both packages go through the same proxy; how boto3 asks for roles and identities, before that,
    is its own affair. Raises UsageError where a package is missing, NotAuthorised where nobody asks,
    DestinationError.
    """
    shown = f"s3://{bucket}/{prefix}"
    if endpoint_url is not None:
        check_store_url(endpoint_url, allow_http=allow_http)
    try:
        found = _load_settings(bucket, endpoint_url, shown, SyncRetrier(observe, budget=retry_budget))
        store = _make_store(bucket, found)
    except ImportError:
        raise UsageError("S3 needs the packages obstore and boto3", hint=_INSTALL_HINT) from None
    check_store_url(found.endpoint, allow_http=allow_http)
    asking = partial(
        open_sync_client, observe, budget=timedelta(), allow_http=allow_http, ca_bundle=found.ca_certificates
    )
    wires = S3Clients(
        ObjectClient(store, shown), MultipartClient(found.client, bucket, shown), observe, retry_budget, asking
    )
    haste = lease_request_timeout(term)
    hasty = wires._replace(
        object_client=ObjectClient(_make_store(bucket, found, timeout=haste), shown),
        retry_budget=min(retry_budget, haste),
    )
    home = f"{found.endpoint}/{bucket}/{prefix}"
    beating = S3Objects(hasty, prefix, display_name=shown, canonical_url=home)
    objects = S3Objects(wires, prefix, display_name=shown, canonical_url=home, term=term, renewal_objects=beating)
    try:
        yield objects
    finally:
        objects.close()
        found.client.close()


def resolve_bucket_address(bucket: str, endpoint_url: str | None) -> BucketAddress:
    """Where `open_bucket` finds a bucket, without asking anybody. Raises UsageError, DestinationError."""
    try:
        import boto3
        import botocore.session
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UsageError("S3 needs the packages obstore and boto3", hint=_INSTALL_HINT) from None
    try:
        core = botocore.session.Session()
        session = boto3.Session(botocore_session=core)
        region, (bundle, authorities) = session.region_name, _read_ca_bundle(core)
        client = _make_client(session, bucket, region or _DEFAULT_REGION, endpoint_url, bundle)
    except BotoCoreError as error:
        raise UsageError(
            f"the settings for s3://{bucket} cannot be read ({_error_type_name(error)})", hint=_CREDENTIALS_HINT
        ) from None
    endpoint, style = client.meta.endpoint_url, _addressing_style(client)
    client.close()
    if _is_amazon(endpoint):
        return BucketAddress(None, region, ca_certificates=authorities)
    return BucketAddress(endpoint, region, resolve_endpoint(bucket, endpoint, style)[1], authorities)


def _read_ca_bundle(core: Any) -> tuple[str | None, bytes | None]:
    """The file of authorities that AWS_CA_BUNDLE, or a profile, names; and what is in it."""
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
            raise NotAuthorised(f"nobody is named who may write to {display_name}", hint=_CREDENTIALS_HINT)
        provider = Boto3CredentialProvider(session, ttl=_CREDENTIALS_TTL)
        provider()
    except (BotoCoreError, ClientError) as error:
        raise NotAuthorised(
            f"the credentials for {display_name} cannot be had ({_error_type_name(error)})", hint=_CREDENTIALS_HINT
        ) from None
    bundle, authorities = _read_ca_bundle(core)
    verify = bundle or ssl.get_default_verify_paths().cafile  # botocore knows neither SSL_CERT_FILE nor the system's
    region = session.region_name
    client = _make_client(session, bucket, region or _DEFAULT_REGION, endpoint_url, verify)
    if region is None and _is_amazon(client.meta.endpoint_url):
        region = retrying.retry(display_name, lambda: resolve_region(client, bucket, display_name))
        client = _make_client(session, bucket, region, endpoint_url, verify)
    return _S3Settings(
        client,
        provider,
        client.meta.endpoint_url,
        _addressing_style(client),
        region or _DEFAULT_REGION,
        core.get_config_variable("request_checksum_calculation") != "when_required",
        authorities,
    )


def _make_client(session: Any, bucket: str, region: str, endpoint_url: str | None, verify: str | None) -> Any:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=_CONNECT_TIMEOUT.total_seconds(),
        read_timeout=_READ_TIMEOUT.total_seconds(),
        retries={"total_max_attempts": 1},
        max_pool_connections=64,
        request_checksum_calculation="when_required",  # each part goes with its MD5
        user_agent_extra=user_agent(),
    )
    asking = {"region_name": region, "endpoint_url": endpoint_url, "verify": verify}
    try:
        unproxied = session.client("s3", config=config, **asking)
        endpoint, _ = resolve_endpoint(bucket, unproxied.meta.endpoint_url, _addressing_style(unproxied))
        proxy = _proxy_for(endpoint)
        through = {urlsplit(endpoint).scheme: proxy.url} if proxy is not None else {}
        # even where it is empty: without any botocore would read the environment in its own way
        return session.client("s3", config=config.merge(Config(proxies=through)), **asking)
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            f"no way leads to S3 with these settings ({_error_type_name(error)})",
            hint="check --endpoint-url and AWS_REGION",
        ) from None


def _addressing_style(client: Any) -> str | None:
    style: str | None = (client.meta.config.s3 or {}).get("addressing_style")
    return style


def _proxy_for(endpoint: str) -> Proxy | None:
    proxy = load_proxies().proxy_for(endpoint)
    if proxy is not None and proxy.is_socks:
        raise UsageError(
            f"S3 cannot be asked through a SOCKS proxy, which {proxy.setting} names",
            hint=f"set {proxy.setting} to an http:// proxy, or name {urlsplit(endpoint).hostname} in NO_PROXY",
        )
    return proxy


def resolve_region(client: Any, bucket: str, display_name: str) -> str:
    """The region of a bucket, which the service tells also those whom it grants nothing. Source: "HeadBucket"."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    except BotoCoreError as error:
        raise no_response_error(error, display_name) from None
    about = answer.get("ResponseMetadata", {})
    region = about.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if region is None and about.get("HTTPStatusCode", 0) >= 400:
        raise_for_response(
            about["HTTPStatusCode"],
            "NoSuchBucket" if about["HTTPStatusCode"] == 404 else "",
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
    else:  # without any obstore would read the environment in its own way
        options["proxy_url"], options["proxy_excludes"] = "http://direct.invalid", urlsplit(endpoint).hostname or ""
    config: S3Config = {
        "region": settings.region,
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,  # else the variable of this name would win
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
        except BaseError:  # no authorities at all on this machine
            return build({"root_certificate": fallback_ca_bundle(), **options})
    except (BaseError, ValueError):
        raise UsageError(f"s3://{bucket} cannot be opened with these settings", hint="check AWS_CA_BUNDLE") from None


def _is_amazon(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith(_AMAZON_HOST_SUFFIXES) and ".vpce." not in host


def resolve_endpoint(bucket: str, endpoint: str, addressing_style: str | None) -> tuple[str, bool]:
    """Where a bucket is asked for, and whether its host names it: as Amazon wants it, other servers where that is
    configured; not where a certificate has no room for the dots of its name.
    """
    if "." in bucket or addressing_style == "path" or not (addressing_style == "virtual" or _is_amazon(endpoint)):
        return endpoint, False
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}".rstrip("/"), True


def _error_type_name(error: Exception) -> str:
    """What an error of botocore is, without what it says: that may hold URLs."""
    return type(error).__name__
