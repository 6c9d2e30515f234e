"""Check runner: run checks in order, report each result, skip checks that depend on a failed one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from tilesync.checks.result import CheckResult, CheckStatus
from tilesync.core.wording import format_count
from tilesync.errors import TilesyncError
from tilesync.events import CheckCompleted
from tilesync.protocols import Observer


class Check(NamedTuple):
    """One check. `requires`: names of checks that must succeed first. `run` raises an error if the check fails."""

    name: str
    run: Callable[[], Awaitable[CheckResult]]
    requires: tuple[str, ...] = ()


async def run_checks(checks: Iterable[Check], observe: Observer) -> None:
    """Run and report all checks. Then raises an error of the class of the first failure, if there is one."""
    failed: list[tuple[str, TilesyncError]] = []
    causes: dict[str, str] = {}
    count = 0
    for check in checks:
        count += 1
        blocker = next((name for name in check.requires if name in causes), None)
        if blocker is not None:
            result = CheckResult(f"not checked, because `{causes[blocker]}` failed", CheckStatus.SKIPPED)
            causes[check.name] = causes[blocker]
        else:
            try:
                result = await check.run()
            except TilesyncError as error:
                result = CheckResult(str(error), CheckStatus.FAIL, error.hint)
                failed.append((check.name, error))
                causes[check.name] = check.name
        observe(CheckCompleted(check.name, result.status, result.message, result.hint))
    if failed:
        name, first = failed[0]
        count_failed = format_count(len(failed), "check")
        raise type(first)(
            f"{count_failed} of {count} failed, first `{name}`: {first}", hint="see the hint of each failed check above"
        )
