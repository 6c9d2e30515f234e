"""Checks in order: each says what it found and what mends it; one that needs another that failed is skipped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from tilesync.core.wording import counted
from tilesync.doctor.result import Result, Said
from tilesync.errors import TilesyncError
from tilesync.events import Checked
from tilesync.protocols import Observer


class Probe(NamedTuple):
    """One check. `needs`: the checks without whose success it makes no sense. `look` raises where it fails."""

    name: str
    look: Callable[[], Awaitable[Said]]
    needs: tuple[str, ...] = ()


async def examine(probes: Iterable[Probe], observe: Observer) -> None:
    """Make each check and tell it. Raises an error of the class of the first that failed, when all have been made."""
    failed: list[tuple[str, TilesyncError]] = []
    unsure: dict[str, str] = {}
    count = 0
    for probe in probes:
        count += 1
        lacking = next((name for name in probe.needs if name in unsure), None)
        if lacking is not None:
            said = Said(f"not looked at, since `{unsure[lacking]}` failed", Result.SKIPPED)
            unsure[probe.name] = unsure[lacking]
        else:
            try:
                said = await probe.look()
            except TilesyncError as error:
                said = Said(str(error), Result.FAIL, error.hint)
                failed.append((probe.name, error))
                unsure[probe.name] = probe.name
        observe(Checked(probe.name, said.result, said.message, said.hint))
    if failed:
        name, first = failed[0]
        count_failed = counted(len(failed), "check")
        raise type(first)(
            f"{count_failed} of {count} failed, first `{name}`: {first}", hint="what mends it stands beside each"
        )
