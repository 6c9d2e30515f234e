"""Address of a Dask cluster, as `--cluster` takes it: a URL, a scheduler file, or `local:N`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tilesync.core.foreign_json import parse_json, read_mapping, read_text
from tilesync.core.urls import is_loopback
from tilesync.errors import UsageError
from tilesync.runtime.safe_open import read_small_file
from tilesync.values import dataclass

MAX_LOCAL_WORKERS: Final = 64
"""Maximum workers of a cluster on this machine, which is meant for trying."""

_LOCAL: Final = re.compile(r"local:([0-9]{1,4})")
_FORMS: Final = "tcp://HOST:PORT, tls://HOST:PORT, the scheduler file of a cluster, or local:N for N workers here"


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """Address of a cluster: the URL of its scheduler, or the number of workers of one on this machine, which starts.

    `text`: as it was written, for messages. `scheduler_file`: the file that the URL was read from.
    """

    text: str
    url: str = ""
    scheduler_file: str = ""
    local_workers: int = 0

    @property
    def is_cleartext(self) -> bool:
        """True if signatures go to another machine unencrypted."""
        parts = urlsplit(self.url)
        return parts.scheme == "tcp" and not is_loopback(parts.hostname or "")


def parse_cluster_address(text: str) -> ClusterAddress:
    """Parse an address. Raises UsageError, also for a scheduler file that is missing or broken."""
    if local := _LOCAL.fullmatch(text):
        count = int(local[1])
        if not 1 <= count <= MAX_LOCAL_WORKERS:
            raise UsageError(f"local:{count} is not possible", hint=f"give 1 to {MAX_LOCAL_WORKERS} workers")
        return ClusterAddress(text, local_workers=count)
    if "://" in text:
        return ClusterAddress(text, url=_check_url(text, text))
    return ClusterAddress(text, url=_read_scheduler_file(Path(text)), scheduler_file=text)


def _check_url(url: str, text: str) -> str:
    """Return the URL of a scheduler. Raises UsageError for any other URL."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"tcp", "tls"} and bool(parts.hostname) and parts.port is not None
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UsageError(f"{text} is not the address of a Dask cluster", hint=f"give {_FORMS}")
    return url


def _read_scheduler_file(path: Path) -> str:
    """Read the URL of the scheduler from the file that `dask scheduler --scheduler-file` writes."""
    try:
        document: Any = parse_json(read_small_file(path))
        url = read_text(read_mapping(document)["address"])
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"cannot read the scheduler file {path}: {reason}", hint=f"give {_FORMS}") from None
    except (ValueError, KeyError, TypeError):
        hint = "it is the file that `dask scheduler --scheduler-file FILE` writes"
        raise UsageError(f"{path} is not a scheduler file", hint=hint) from None
    return _check_url(url, f"the address {url[:80]!r} in {path}")
