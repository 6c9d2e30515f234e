"""A bucket, opened: whose it is, where it lies and whom it trusts, as the AWS command line would have it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from tilesync.core.urls import check_store
from tilesync.errors import NotAuthorised, UsageError
from tilesync.protocols import Observer
from tilesync.runtime.os_errors import mapped
from tilesync.runtime.safe_open import open_regular
from tilesync.stores.object_store.lock import patience_of
from tilesync.stores.s3.client import S3Objects, Wires
from tilesync.stores.s3.errors import refuse
from tilesync.stores.s3.lease import TERM
from tilesync.stores.s3.multipart import Parts, unanswered
from tilesync.stores.s3.objects import Whole
from tilesync.transport.blob_client_sync import blocking
from tilesync.transport.proxies import Proxy
from tilesync.transport.retry import Insistence
from tilesync.transport.tls import fallback_bundle, proxies, user_agent

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Store

_EXTRA: Final = "pip install obstore boto3 (which is what tilesync[s3] stands for)"
_SET: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN where there is one), or AWS_PROFILE;"
    " roles, single sign-on and the identity of a machine are found as the AWS command line finds them"
)
_SILENCE: Final = timedelta(seconds=60)
_PATIENT: Final = timedelta(minutes=5)
"""obstore counts the silence of a server from the beginning of what is sent to it."""

_CONNECT: Final = timedelta(seconds=20)
_WHOLE: Final = timedelta(days=1)
"""A body that moves may take its time; obstore's own limit is half a minute for all of it."""

_LIFE: Final = timedelta(minutes=9)
"""How long credentials are used before they are asked for again. botocore gives none that end within ten minutes;
obstore renews them five minutes early.
"""

_HOME: Final = "us-east-1"
"""The region of those who name none. Source: Amazon S3 API Reference, "CreateBucket"."""

_AMAZON: Final = (".amazonaws.com", ".amazonaws.com.cn")


class BucketAddress(NamedTuple):
    """Where a bucket answers. `endpoint`: of its service, None where that is Amazon's own; `virtual`: its host names
    the bucket. `authorities`: whom it is trusted by, besides the usual ones (PEM).
    """

    endpoint: str | None
    region: str | None
    virtual: bool = False
    authorities: bytes | None = None


class _Found(NamedTuple):
    """What the environment and the profiles say."""

    client: Any
    provider: Any
    endpoint: str
    style: str | None
    region: str
    checksums: bool
    authorities: bytes | None


@contextmanager
def open_bucket(
    bucket: str,
    prefix: str,
    observe: Observer,
    *,
    endpoint_url: str | None = None,
    budget: timedelta = timedelta(seconds=60),
    term: timedelta = TERM,
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
        check_store(endpoint_url, allow_http=allow_http)
    try:
        found = _look_around(bucket, endpoint_url, shown, Insistence(observe, budget=budget))
        store = _store(bucket, found)
    except ImportError:
        raise UsageError("S3 needs the packages obstore and boto3", hint=_EXTRA) from None
    check_store(found.endpoint, allow_http=allow_http)
    asking = partial(blocking, observe, budget=timedelta(), allow_http=allow_http, bundle=found.authorities)
    wires = Wires(Whole(store, shown), Parts(found.client, bucket, shown), observe, budget, asking)
    haste = patience_of(term)
    hasty = wires._replace(whole=Whole(_store(bucket, found, within=haste), shown), budget=min(budget, haste))
    home = f"{found.endpoint}/{bucket}/{prefix}"
    beating = S3Objects(hasty, prefix, shown=shown, home=home)
    objects = S3Objects(wires, prefix, shown=shown, home=home, term=term, beating=beating)
    try:
        yield objects
    finally:
        objects.close()
        found.client.close()


def address_of(bucket: str, endpoint_url: str | None) -> BucketAddress:
    """Where `open_bucket` finds a bucket, without asking anybody. Raises UsageError, DestinationError."""
    try:
        import boto3
        import botocore.session
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UsageError("S3 needs the packages obstore and boto3", hint=_EXTRA) from None
    try:
        core = botocore.session.Session()
        session = boto3.Session(botocore_session=core)
        region, (bundle, authorities) = session.region_name, _bundle(core)
        client = _client(session, bucket, region or _HOME, endpoint_url, bundle)
    except BotoCoreError as error:
        raise UsageError(f"the settings for s3://{bucket} cannot be read ({_kind(error)})", hint=_SET) from None
    endpoint, style = client.meta.endpoint_url, _style(client)
    client.close()
    if _amazon(endpoint):
        return BucketAddress(None, region, authorities=authorities)
    return BucketAddress(endpoint, region, addressed(bucket, endpoint, style)[1], authorities)


def _bundle(core: Any) -> tuple[str | None, bytes | None]:
    """The file of authorities that AWS_CA_BUNDLE, or a profile, names; and what is in it."""
    bundle: str | None = core.get_config_variable("ca_bundle") or None
    if bundle is None:
        return None, None
    with mapped(f"cannot read {bundle}"), open(open_regular(bundle, follow=True), "rb") as file:
        return bundle, file.read()


def _look_around(bucket: str, endpoint_url: str | None, shown: str, insistence: Insistence) -> _Found:
    import boto3
    import botocore.session
    from botocore.exceptions import BotoCoreError, ClientError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        core = botocore.session.Session()
        session = boto3.Session(botocore_session=core)
        if session.get_credentials() is None:
            raise NotAuthorised(f"nobody is named who may write to {shown}", hint=_SET)
        provider = Boto3CredentialProvider(session, ttl=_LIFE)
        provider()
    except (BotoCoreError, ClientError) as error:
        raise NotAuthorised(f"the credentials for {shown} cannot be had ({_kind(error)})", hint=_SET) from None
    bundle, authorities = _bundle(core)
    verify = bundle or ssl.get_default_verify_paths().cafile  # botocore knows neither SSL_CERT_FILE nor the system's
    region = session.region_name
    client = _client(session, bucket, region or _HOME, endpoint_url, verify)
    if region is None and _amazon(client.meta.endpoint_url):
        region = insistence.insist(shown, lambda: region_of(client, bucket, shown))
        client = _client(session, bucket, region, endpoint_url, verify)
    return _Found(
        client,
        provider,
        client.meta.endpoint_url,
        _style(client),
        region or _HOME,
        core.get_config_variable("request_checksum_calculation") != "when_required",
        authorities,
    )


def _client(session: Any, bucket: str, region: str, endpoint_url: str | None, verify: str | None) -> Any:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=_CONNECT.total_seconds(),
        read_timeout=_SILENCE.total_seconds(),
        retries={"total_max_attempts": 1},
        max_pool_connections=64,
        request_checksum_calculation="when_required",  # each part goes with its MD5
        user_agent_extra=user_agent(),
    )
    asking = {"region_name": region, "endpoint_url": endpoint_url, "verify": verify}
    try:
        unproxied = session.client("s3", config=config, **asking)
        endpoint, _ = addressed(bucket, unproxied.meta.endpoint_url, _style(unproxied))
        proxy = _proxy_for(endpoint)
        through = {urlsplit(endpoint).scheme: proxy.url} if proxy is not None else {}
        # even where it is empty: without any botocore would read the environment in its own way
        return session.client("s3", config=config.merge(Config(proxies=through)), **asking)
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            f"no way leads to S3 with these settings ({_kind(error)})", hint="check --endpoint-url and AWS_REGION"
        ) from None


def _style(client: Any) -> str | None:
    style: str | None = (client.meta.config.s3 or {}).get("addressing_style")
    return style


def _proxy_for(endpoint: str) -> Proxy | None:
    proxy = proxies().proxy_for(endpoint)
    if proxy is not None and proxy.is_socks:
        raise UsageError(
            f"S3 cannot be asked through a SOCKS proxy, which {proxy.setting} names",
            hint=f"set {proxy.setting} to an http:// proxy, or name {urlsplit(endpoint).hostname} in NO_PROXY",
        )
    return proxy


def region_of(client: Any, bucket: str, shown: str) -> str:
    """The region of a bucket, which the service tells also those whom it grants nothing. Source: "HeadBucket"."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    except BotoCoreError as error:
        raise unanswered(error, shown) from None
    about = answer.get("ResponseMetadata", {})
    region = about.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if region is None and about.get("HTTPStatusCode", 0) >= 400:
        refuse(
            about["HTTPStatusCode"], "NoSuchBucket" if about["HTTPStatusCode"] == 404 else "", bucket, shown, act="read"
        )
    return str(region or _HOME)


def _store(bucket: str, found: _Found, *, within: timedelta = _WHOLE) -> S3Store:
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    endpoint, virtual = addressed(bucket, found.endpoint, found.style)
    proxy = _proxy_for(endpoint)
    options: ClientConfig = {
        "allow_http": found.endpoint.startswith("http://"),
        "connect_timeout": _CONNECT,
        "read_timeout": _PATIENT,
        "timeout": within,
        "user_agent": user_agent(),
    }
    if found.authorities:
        options["root_certificate"] = found.authorities
    if proxy is not None:
        options["proxy_url"] = proxy.url
    else:  # without any obstore would read the environment in its own way
        options["proxy_url"], options["proxy_excludes"] = "http://direct.invalid", urlsplit(endpoint).hostname or ""
    config: S3Config = {
        "region": found.region,
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,  # else the variable of this name would win
        "virtual_hosted_style_request": virtual,
        "skip_signature": False,
    }
    if found.checksums:
        config["checksum_algorithm"] = "SHA256"

    def build(options: ClientConfig) -> S3Store:
        return S3Store(
            bucket,
            config=config,
            client_options=options,
            retry_config={"max_retries": 0},
            credential_provider=found.provider,
        )

    try:
        try:
            return build(options)
        except BaseError:  # no authorities at all on this machine
            return build({"root_certificate": fallback_bundle(), **options})
    except (BaseError, ValueError):
        raise UsageError(f"s3://{bucket} cannot be opened with these settings", hint="check AWS_CA_BUNDLE") from None


def _amazon(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith(_AMAZON) and ".vpce." not in host


def addressed(bucket: str, endpoint: str, style: str | None) -> tuple[str, bool]:
    """Where a bucket is asked for, and whether its host names it: as Amazon wants it, other servers where that is
    configured; not where a certificate has no room for the dots of its name.
    """
    if "." in bucket or style == "path" or not (style == "virtual" or _amazon(endpoint)):
        return endpoint, False
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}".rstrip("/"), True


def _kind(error: Exception) -> str:
    """What an error of botocore is, without what it says: that may hold URLs."""
    return type(error).__name__
