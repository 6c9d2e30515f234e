"""SAS links: parse a signed container link, read how long it is valid, and compute when to renew it."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote, urlsplit

from tilesync.core.foreign_json import parse_json, read_number
from tilesync.core.urls import refuse_credentials, split_url
from tilesync.errors import UsageError
from tilesync.model import ROOT, SasUrl

_DATA_LAKE_HOST = re.compile(r"\.dfs\.(?:core|storage)\.")
_BLOB_HOST = re.compile(r"\.blob\.(?:core|storage)\.")
_PATH_SAFE = "/%~!$&'()*+,;=:@"
"""Characters that a path may contain unencoded, and `%`. Source: RFC 3986, section 3.3."""

_EMULATOR_ACCOUNT = "devstoreaccount1"
"""Account name of emulators. Source: "Use the Azurite emulator for local Azure Storage development"."""


def parse_sas_link(href: str, *, fetched: float = 0.0) -> SasUrl:
    """Split a link into its bare base URL and its signed query; drop `/tileset.json` before the `?`.

    The link expires at the earlier of `se` (SAS, "Construct a service SAS") and, for a CDN link, the epoch in the
    CloudFront `Policy`. Raises UsageError, which does not repeat the link, when `href` is not a signed https URL.
    """
    parts = split_url(href.strip("\ufeff \t\r\n"))
    path = quote(parts.path.rstrip("/").removesuffix(f"/{ROOT}").rstrip("/"), safe=_PATH_SAFE)
    if parts.scheme not in {"https", "http"} or not parts.hostname or path in {"", "/"}:
        raise UsageError("the link is not of the form https://ACCOUNT/CONTAINER?SAS")
    refuse_credentials(parts)
    if _DATA_LAKE_HOST.search(parts.hostname):
        raise UsageError(
            "the link is for the Data Lake endpoint of the account (dfs), which has another API",
            hint="replace .dfs. with .blob. in its host name: the signature stays valid",
        )
    if not parts.query:
        raise UsageError(
            "the link has no signature (no query after a '?')",
            hint="quote the link in the shell: an unquoted & cuts it off",
        )
    if (resource := re.search(r"(?:^|&)sr=(b|bs|bv)(?:&|$)", parts.query)) is not None:
        raise UsageError(
            f"the link is for a single file (sr={resource[1]}), but an export has many",
            hint="get a link for the container (`sr=c`) that allows reading and listing (`sp=rl`)",
        )
    return SasUrl(
        f"{parts.scheme}://{parts.netloc}{path}", parts.query, expires=parse_expiry(parts.query), fetched_at_s=fetched
    )


def guess_folder_depths(link: SasUrl) -> list[int]:
    """Guess how many segments at the end of a link's path are a folder inside its container; likeliest guess first.

    Source: "Resource URI syntax" (Blob service): the container is the first segment of the path; for an emulator, the
    segment after the account. Elsewhere (a CDN, a proxy) more segments may come before it. "Create a service SAS":
    `sdd` is the number of segments of a signed folder (`sr=d`).
    """
    parts, fields = urlsplit(link.base), dict(pair.partition("=")[::2] for pair in link.query.split("&"))
    segments = parts.path.strip("/").split("/")
    max_depth = len(segments) - 1
    if _BLOB_HOST.search(parts.hostname or ""):
        return [max_depth]
    if segments[0] == _EMULATOR_ACCOUNT:
        return [max(max_depth - 1, 0)]
    signed_depth = int(fields.get("sdd", "")) if fields.get("sr") == "d" and fields.get("sdd", "").isdecimal() else 0
    return [depth for depth in dict.fromkeys((signed_depth, *range(max_depth + 1))) if depth <= max_depth]


def parse_expiry(query: str) -> datetime | None:
    """Parse the earliest expiry that a signed query states; None if it states none that can be read."""
    fields = dict(pair.partition("=")[::2] for pair in query.split("&"))
    ends = [_parse_sas_time(unquote(fields.get("se", ""))), _parse_policy_time(fields.get("Policy", ""))]
    return min((end for end in ends if end is not None), default=None)


def parse_start(query: str) -> datetime | None:
    """Parse the latest start that a signed query states (`st`, or that of a CloudFront policy).

    None if it states none that can be read.
    """
    fields = dict(pair.partition("=")[::2] for pair in query.split("&"))
    starts = [
        _parse_sas_time(unquote(fields.get("st", ""))),
        _parse_policy_time(fields.get("Policy", ""), "DateGreaterThan"),
    ]
    return max((start for start in starts if start is not None), default=None)


def _parse_sas_time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _parse_policy_time(text: str, condition: str = "DateLessThan") -> datetime | None:
    """Parse a date of a CloudFront custom policy (base64 with `-_~` for `+=/`)."""
    try:
        policy = parse_json(base64.b64decode(unquote(text).translate(str.maketrans("-_~", "+=/"))))
        times = [s["Condition"][condition]["AWS:EpochTime"] for s in policy["Statement"]]
        return datetime.fromtimestamp(read_number(min(times)), UTC)
    except (ValueError, KeyError, TypeError, binascii.Error, OverflowError, OSError):
        return None


RENEWAL_MARGIN = timedelta(minutes=5)
"""A link is renewed this long before it expires, or when 20 % of its life is left, whichever is later."""


MAX_LINK_AGE = timedelta(minutes=50)
"""A link is renewed at this age even if it states a later expiry, since the service promises only one hour."""


MIN_RENEWAL_INTERVAL = timedelta(seconds=60)
"""Minimum time until the next renewal if the last one returned a link with the same expiry."""


def time_left(link: SasUrl, now: datetime) -> timedelta | None:
    """Compute how long a link is still valid at `now`; None if it states no expiry."""
    return None if link.expires is None else link.expires - now


def is_expired(link: SasUrl, now: datetime) -> bool:
    """Return whether a link has expired; a link without a stated expiry never does."""
    remaining = time_left(link, now)
    return remaining is not None and remaining <= timedelta()


def time_until_renewal(link: SasUrl, old: SasUrl | None, now: datetime) -> timedelta:
    """Compute the time until the next renewal of a link that was just fetched to replace `old`."""
    remaining = time_left(link, now)
    wait = (
        MAX_LINK_AGE
        if remaining is None or remaining <= timedelta()
        else min(remaining - min(RENEWAL_MARGIN, remaining / 5), MAX_LINK_AGE)
    )
    if old is not None and link.expires is not None and old.expires == link.expires:
        wait = max(wait, MIN_RENEWAL_INTERVAL)
    return wait
