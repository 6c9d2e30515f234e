"""What a signed container link says about itself."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote, urlsplit

from tilesync.core.foreign_json import parse_json, read_number
from tilesync.core.urls import _split_url, refuse_credentials
from tilesync.errors import UsageError
from tilesync.model import ROOT, SasUrl

_DATA_LAKE_HOST = re.compile(r"\.dfs\.(?:core|storage)\.")
_BLOB_HOST = re.compile(r"\.blob\.(?:core|storage)\.")
_PATH_SAFE = "/%~!$&'()*+,;=:@"
"""What a path may hold as it is, or holds encoded already. Source: RFC 3986, section 3.3."""

_EMULATOR_ACCOUNT = "devstoreaccount1"
"""The account of emulators. Source: "Use the Azurite emulator for local Azure Storage development"."""


def parse_sas_link(href: str, *, fetched: float = 0.0) -> SasUrl:
    """Split a link into its bare base and the query that signs it; `/tileset.json` before the `?` is dropped.

    The end of the link is the earlier of `se` (SAS, "Construct a service SAS") and, for a CDN link, the epoch in the
    CloudFront `Policy`. Raises UsageError, which does not repeat the link, when `href` is no signed https URL.
    """
    parts = _split_url(href.strip("\ufeff \t\r\n"))
    path = quote(parts.path.rstrip("/").removesuffix(f"/{ROOT}").rstrip("/"), safe=_PATH_SAFE)
    if parts.scheme not in {"https", "http"} or not parts.hostname or path in {"", "/"}:
        raise UsageError("the link is not of the form https://ACCOUNT/CONTAINER?SAS")
    refuse_credentials(parts)
    if _DATA_LAKE_HOST.search(parts.hostname):
        raise UsageError(
            "the link leads to the Data Lake service of the account (dfs), which lists and serves blobs in another way",
            hint="put .blob. in the place of .dfs. in its host: the signature stays good",
        )
    if not parts.query:
        raise UsageError(
            "the link carries no signature (nothing stands behind a '?')",
            hint="quote the link in the shell: an unquoted & cuts it off",
        )
    if (kind := re.search(r"(?:^|&)sr=(b|bs|bv)(?:&|$)", parts.query)) is not None:
        raise UsageError(
            f"the link is for one file alone (sr={kind[1]}), and an export has many",
            hint="get a link of the container (`sr=c`) that may read and list (`sp=rl`)",
        )
    return SasUrl(
        f"{parts.scheme}://{parts.netloc}{path}", parts.query, expires=parse_expiry(parts.query), fetched_at_s=fetched
    )


def guess_folder_depths(link: SasUrl) -> list[int]:
    """How many of the last parts of a link's path may be a folder in its container, the likeliest first.

    Source: "Resource URI syntax" (Blob service): the container is the first part of the path, behind the account where
    an emulator answers. Elsewhere (a CDN, a proxy) parts may stand before it. "Create a service SAS": `sdd` counts the
    parts of a folder that is signed by itself (`sr=d`).
    """
    parts, fields = urlsplit(link.base), dict(pair.partition("=")[::2] for pair in link.query.split("&"))
    segments = parts.path.strip("/").split("/")
    most = len(segments) - 1
    if _BLOB_HOST.search(parts.hostname or ""):
        return [most]
    if segments[0] == _EMULATOR_ACCOUNT:
        return [max(most - 1, 0)]
    signed = int(fields.get("sdd", "")) if fields.get("sr") == "d" and fields.get("sdd", "").isdecimal() else 0
    return [depth for depth in dict.fromkeys((signed, *range(most + 1))) if depth <= most]


def parse_expiry(query: str) -> datetime | None:
    """The earliest end that a signed query states; None when it states none that can be read."""
    fields = dict(pair.partition("=")[::2] for pair in query.split("&"))
    ends = [_parse_sas_time(unquote(fields.get("se", ""))), _parse_policy_time(fields.get("Policy", ""))]
    return min((end for end in ends if end is not None), default=None)


def parse_start(query: str) -> datetime | None:
    """The latest beginning that a signed query states (`st`, or that of a CloudFront policy); None when it states none
    that can be read.
    """
    fields = dict(pair.partition("=")[::2] for pair in query.split("&"))
    begins = [
        _parse_sas_time(unquote(fields.get("st", ""))),
        _parse_policy_time(fields.get("Policy", ""), "DateGreaterThan"),
    ]
    return max((begin for begin in begins if begin is not None), default=None)


def _parse_sas_time(text: str) -> datetime | None:
    try:
        end = datetime.fromisoformat(text)
        return end.astimezone(UTC) if end.tzinfo else end.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _parse_policy_time(text: str, condition: str = "DateLessThan") -> datetime | None:
    """A date of a CloudFront custom policy (base64 with `-_~` for `+=/`)."""
    try:
        policy = parse_json(base64.b64decode(unquote(text).translate(str.maketrans("-_~", "+=/"))))
        ends = [s["Condition"][condition]["AWS:EpochTime"] for s in policy["Statement"]]
        return datetime.fromtimestamp(read_number(min(ends)), UTC)
    except (ValueError, KeyError, TypeError, binascii.Error, OverflowError, OSError):
        return None


RENEWAL_MARGIN = timedelta(minutes=5)
"""How long before its end a long-lived link is renewed; a short-lived one at 20 % of its life."""


MAX_LINK_AGE = timedelta(minutes=50)
"""A link is renewed this long after its fetch, whatever it says: the service promises an hour."""


MIN_RENEWAL_INTERVAL = timedelta(seconds=60)
"""No renewal ahead of time this soon after one that did not move the expiry."""


def time_left(link: SasUrl, now: datetime) -> timedelta | None:
    """How long a link lives on, by the clock that `now` is of; None for one that states no end."""
    return None if link.expires is None else link.expires - now


def is_expired(link: SasUrl, now: datetime) -> bool:
    """Whether a link has ended; one that states no end never has."""
    rest = time_left(link, now)
    return rest is not None and rest <= timedelta()


def time_until_renewal(link: SasUrl, old: SasUrl | None, now: datetime) -> timedelta:
    """How long a link that was just fetched, in place of `old`, is used before a fresh one is due."""
    rest = time_left(link, now)
    wait = (
        MAX_LINK_AGE if rest is None or rest <= timedelta() else min(rest - min(RENEWAL_MARGIN, rest / 5), MAX_LINK_AGE)
    )
    if old is not None and link.expires is not None and old.expires == link.expires:
        wait = max(wait, MIN_RENEWAL_INTERVAL)
    return wait
