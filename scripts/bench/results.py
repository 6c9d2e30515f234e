"""Write RESULTS.md: the last results of each workload, with date and machine."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
WORKLOADS = (
    "start",
    "large",
    "small",
    "tail",
    "uploads",
    "growth",
    "changed",
    "changed_many",
    "inside_container",
    "inside_bucket",
    "unchanged",
    "listing",
    "verify",
    "pinned",
    "shaped",
)
"""Sections that compare.py writes."""

CONCURRENCY, FLEET, SERVE, LIVE, DIFF, PACKING = "concurrency", "fleet", "serve", "live", "diff", "packing"
FIRST_TILE = "first_tile"
"""Sections that concurrency.py, fleet.py, serve.py, serve_live.py, diff.py, packing.py and first_tile.py write."""


def record_table(name: str, table: str, suffix: str = "") -> None:
    """Replace the table of that name; keep all others."""
    today = datetime.datetime.now(datetime.UTC).date()
    said = RESULTS.read_text() if RESULTS.exists() else ""
    there = dict(re.findall(r"^<!-- (\w+) -->\n(.*?)(?=^<!-- |\Z)", said, re.MULTILINE | re.DOTALL))
    there[name] = f"{table}\nMeasured {today}: {describe_machine()}{suffix}.\n\n"
    order = (*WORKLOADS, CONCURRENCY, FLEET, SERVE, LIVE, FIRST_TILE, DIFF, PACKING)
    sections = [f"<!-- {each} -->\n{there[each]}" for each in order if each in there]
    RESULTS.write_text("# Measured\n\nServer and clients share the machine.\n\n" + "".join(sections).rstrip() + "\n")


def describe_machine() -> str:
    """Describe the machine."""
    with Path("/proc/cpuinfo").open() as info:
        model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores ({model}), {gigabytes:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    )
