"""Report file of a run (`--report`): its last JSON line with every failure, diagnostic and warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tilesync.api.monitor import RunMonitor
from tilesync.cli.output.atomic_file import replace_file
from tilesync.errors import UsageError


def write_report(path: Path, last_line: dict[str, Any], monitor: RunMonitor) -> None:
    """Write the report in one step; to a device or FIFO, write directly. Raises OSError."""
    data = monitor.report(last_line)
    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    replace_file(path, text.encode(errors="surrogatepass"))


def report_write_error(path: Path, error: OSError) -> UsageError:
    """Build the error for a report that cannot be written."""
    return UsageError(f"the report {path} cannot be written ({error.strerror})", hint="check --report")


def page_write_error(path: Path, error: OSError) -> UsageError:
    """Build the error for a status page that cannot be written."""
    return UsageError(f"the page {path} cannot be written ({error.strerror})", hint="check --page")
