"""SAS links: parsing, expiry, allowed schemes."""

import base64
import json
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import FakeClock
from tilesync.azure.sas import parse_expiry, parse_sas_link, parse_start
from tilesync.errors import UsageError


def policy(*ends: object) -> str:
    """Build a CloudFront custom policy as it appears in a query."""
    document = {"Statement": [{"Condition": {"DateLessThan": {"AWS:EpochTime": end}}} for end in ends]}
    return base64.b64encode(json.dumps(document).encode()).decode().translate(str.maketrans("+=/", "-_~"))


@pytest.mark.parametrize(
    ("href", "base"),
    [
        ("https://a.blob.core.windows.net/c?sv=1&sig=a%2Fb%3D", "https://a.blob.core.windows.net/c"),
        ("  https://a.blob.core.windows.net/c/?sv=1&sig=a%2Fb%3D\n", "https://a.blob.core.windows.net/c"),
        ("https://a.blob.core.windows.net/c/tileset.json?sv=1&sig=a%2Fb%3D", "https://a.blob.core.windows.net/c"),
        ("http://127.0.0.1:10000/acc/c?sv=1&sig=a%2Fb%3D", "http://127.0.0.1:10000/acc/c"),
        ("HTTPS://a.net/c%20d?sv=1&sig=a%2Fb%3D", "https://a.net/c%20d"),
        ("https://a.net/c/e 1/ä%2F?sv=1&sig=a%2Fb%3D", "https://a.net/c/e%201/%C3%A4%2F"),
        ("https://a.net/c/e1//tileset.json/?sv=1&sig=a%2Fb%3D", "https://a.net/c/e1"),
    ],
)
def test_a_link_is_split(href: str, base: str) -> None:
    """Base and query are separated, the query unchanged, and `/tileset.json` before the `?` is dropped."""
    link = parse_sas_link(href, fetched=3.0)
    assert (link.base, link.query, link.fetched_at_s) == (base, "sv=1&sig=a%2Fb%3D", 3.0)


@pytest.mark.parametrize(
    "href",
    ["", "nonsense", "ftp://a/c?sig=SECRET", "https://a.net?sig=SECRET", "https://a.net/?sig=SECRET", "/c?sig=SECRET",
     "https:///c?sig=SECRET", "https://a.net/tileset.json?sig=SECRET", "https://a.net/c", "https://a.net/c?",
     "https://a.net/c#sig=SECRET", "https://[a/c?sig=SECRET", "https://a.net:port/c?sig=SECRET",
     "https://user:SECRET@a.net/c?sig=SECRET", "https://SECRET@a.net/c?sig=SECRET"],
)  # fmt: skip
def test_invalid_links(href: str) -> None:
    """A text that is not a signed container link is a usage error that does not repeat it."""
    with pytest.raises(UsageError) as error:
        parse_sas_link(href)
    assert "SECRET" not in str(error.value) + error.value.hint


@pytest.mark.parametrize(
    "host", ["a.dfs.core.windows.net", "a.z1.dfs.storage.azure.net", "a.dfs.core.chinacloudapi.cn"]
)
def test_a_data_lake_link_is_refused(host: str) -> None:
    """A Data Lake link is refused with a hint: the blob endpoint of the same account accepts its signature."""
    with pytest.raises(UsageError, match="Data Lake") as refused:
        parse_sas_link(f"https://{host}/c?sv=1&sig=SECRET")
    assert ".blob." in refused.value.hint
    assert parse_sas_link(f"https://{host.replace('.dfs.', '.blob.')}/c?sv=1&sig=SECRET")


@pytest.mark.parametrize(
    ("query", "end"),
    [
        ("se=2026-03-01T09:30:00Z&sig=x", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("sig=x&se=2026-03-01T09%3A30%3A00Z", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("se=2026-03-01T09:30Z", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("se=2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("se=2026-03-01T09:30:00.1234567Z", datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)),
        ("se=2026-03-01T10:30:00%2B01:00", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("se=9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (f"Policy={policy(1772357400)}&Signature=x", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        (f"Policy={quote(policy(1772357400))}", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        (f"Policy={policy(1772357401, 1772357400)}", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        (f"se=2026-03-01T09:30:00Z&Policy={policy(1772357401)}", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        (f"se=2026-03-01T09:30:01Z&Policy={policy(1772357400)}", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("sig=x", None),
        ("", None),
        ("se=", None),
        ("se=soon", None),
        ("se=0001-01-01T00:00:00%2B01:00", None),
        ("Policy=AAAA", None),
        (f"Policy={policy()}", None),
        (f"Policy={policy('soon')}", None),
        (f"Policy={policy(10**30)}", None),
        ("ske=2026-03-01T09:30:00Z&st=2026-03-01T08:30:00Z", None),
    ],
)
def test_expiry(query: str, end: datetime | None) -> None:
    """The earliest stated end counts, in UTC; an unreadable one counts as none."""
    assert parse_expiry(query) == end


@given(st.text(max_size=60), st.text(max_size=60))
def test_expiry_never_fails(se: str, policy_text: str) -> None:
    """Any query gives a time in UTC or None."""
    end = parse_expiry(f"se={quote(se)}&Policy={quote(policy_text)}")
    assert end is None or end.tzinfo is UTC


def test_start_of_a_link() -> None:
    """`st` is parsed in each form of Azure; a link without one is valid already."""
    assert parse_start("st=2026-03-01T12%3A00%3A00Z&se=x") == parse_start("st=2026-03-01T12%3A00Z") == FakeClock().now()
    assert parse_start("st=nonsense&sp=r") is parse_start("sp=r") is None
