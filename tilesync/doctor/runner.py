"""Checks in order: each says what it found and what mends it; one that needs another that failed is skipped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from tilesync.core.wording import format_count
from tilesync.doctor.result import CheckResult, CheckStatus
from tilesync.errors import TilesyncError
from tilesync.events import CheckCompleted
from tilesync.protocols import Observer


class Check(NamedTuple):
    """One check. `needs`: the checks without whose success it makes no sense. `look` raises where it fails."""

    name: str
    run: Callable[[], Awaitable[CheckResult]]
    requires: tuple[str, ...] = ()


async def run_checks(checks: Iterable[Check], observe: Observer) -> None:
    """Make each check and tell it. Raises an error of the class of the first that failed, when all have been made."""
    failed: list[tuple[str, TilesyncError]] = []
    unsure: dict[str, str] = {}
    count = 0
    for probe in checks:
        count += 1
        lacking = next((name for name in probe.requires if name in unsure), None)
        if lacking is not None:
            said = CheckResult(f"not looked at, since `{unsure[lacking]}` failed", CheckStatus.SKIPPED)
            unsure[probe.name] = unsure[lacking]
        else:
            try:
                said = await probe.run()
            except TilesyncError as error:
                said = CheckResult(str(error), CheckStatus.FAIL, error.hint)
                failed.append((probe.name, error))
                unsure[probe.name] = probe.name
        observe(CheckCompleted(probe.name, said.status, said.message, said.hint))
    if failed:
        name, first = failed[0]
        count_failed = format_count(len(failed), "check")
        raise type(first)(
            f"{count_failed} of {count} failed, first `{name}`: {first}", hint="what mends it stands beside each"
        )
