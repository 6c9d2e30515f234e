"""Addresses of clusters, as `--cluster` takes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilesync.cluster.address import ClusterAddress, parse_cluster_address
from tilesync.errors import UsageError


@pytest.mark.parametrize(
    ("text", "is_cleartext"),
    [
        ("tcp://10.0.0.5:8786", True),
        ("tcp://scheduler.example:8786", True),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("tls://scheduler.example:8786", False),
    ],
)
def test_the_url_of_a_scheduler(text: str, *, is_cleartext: bool) -> None:
    """A URL stays as it is; tcp:// to another machine is not encrypted."""
    address = parse_cluster_address(text)
    assert address == ClusterAddress(text, url=text)
    assert address.is_cleartext is is_cleartext


def test_a_cluster_on_this_machine() -> None:
    """`local:N` has no address, and nothing that leaves the machine."""
    address = parse_cluster_address("local:3")
    assert (address.local_workers, address.url, address.is_cleartext) == (3, "", False)


def test_a_scheduler_file(tmp_path: Path) -> None:
    """The file that `dask scheduler --scheduler-file` writes has the address, and other members."""
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps({"type": "Scheduler", "address": "tcp://10.0.0.5:8786", "workers": {}}))
    address = parse_cluster_address(str(path))
    assert (address.url, address.text, address.is_cleartext) == ("tcp://10.0.0.5:8786", str(path), True)


@pytest.mark.parametrize(
    "text",
    [
        "tcp://",
        "tcp://host",
        "tcp://host:port",
        "tcp://host:99999",
        "https://host:8786",
        "local:0",
        "local:65",
        "ucx://a:1",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    """The error has a hint that lists what is possible."""
    with pytest.raises(UsageError) as refused:
        parse_cluster_address(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"address": 5}', '{"address": "https://x"}', '{"address": "tcp://h"}']
)
def test_a_broken_scheduler_file_is_refused(tmp_path: Path, content: str | None) -> None:
    """A file that is missing, or has no address of a scheduler, is named in the error."""
    path = tmp_path / "scheduler.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=r"scheduler\.json"):
        parse_cluster_address(str(path))
