"""Statuses of a fleet with faults, as they are on the last day of November."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from tilesync.model.history import HeldVersion, MirrorHistory, RunRecord
from tilesync.monitoring.status import MirrorStatus, make_status

NOW = datetime(2026, 11, 30, 6, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
NIGHTS = 30
EXPORT = "f25139b4-7239-521c-bdf9-0911c03c851b"

FAULTS = {
    3: "refused",
    11: "disk full",
    17: "not run",
    23: "no export",
    29: "killed",
    31: "behind",
    37: "running",
    41: "never run",
}
"""Fault of each mirror that has one, by its number."""

EXPECTED_HEALTH = {
    "refused": "failing",
    "disk full": "failing",
    "not run": "stale",
    "no export": "failing",
    "killed": "failing",
    "behind": "stale",
    "running": "fresh",
    "never run": "never",
}

ODD_NAMES = {
    7: "<script>document.title='hacked'</script>&amp;\"'><img src=x onerror=alert(1)>",
    13: "مشروع الجسر " + "x" * 488,
    19: "🏗️ Baustelle \u202egnirts\u0000\ud83d",
}
"""Display names that are hard to show: markup, right to left and 500 characters, emoji and half a surrogate pair."""


def iso(moment: datetime) -> str:
    """Format a time as the history has it."""
    return moment.isoformat().replace("+00:00", "Z")


def make_fleet(count: int = 50) -> list[MirrorStatus]:
    """Make a fleet with faults; its mirrors are in the order of their numbers."""
    return [_make_mirror(number) for number in range(count)]


def _make_mirror(number: int) -> MirrorStatus:
    dice, fault = random.Random(number), FAULTS.get(number, "")
    history, size = MirrorHistory(), dice.randint(2, 900) * 10_000_000
    for days in reversed(range(NIGHTS)):
        if fault == "never run" or (fault == "not run" and days < 10):
            break
        began = NOW - timedelta(days=days, hours=4)
        has_new = not history.runs or dice.random() < 0.2
        size = round(size * dice.uniform(0.97, 1.08)) if has_new else size
        held = HeldVersion(EXPORT, EXPORT, iso(began - timedelta(hours=3)), iso(began), size // 40_000, size)
        run = _make_run(fault, days, began, dice, size if fault != "no export" else 0, has_new=has_new)
        history = history.with_run(run, held if has_new and run.is_success else None)
    name = ODD_NAMES.get(number, f"mirror-{number:02d}")
    return make_status(
        name,
        f"/srv/tiles/mirror-{number:02d}",
        history,
        now=NOW,
        max_age=WEEK,
        command=f"tilesync fleet fleet.toml --only mirror-{number:02d}",
        is_running=fault == "running",
    )


def _make_run(fault: str, days: int, began: datetime, dice: random.Random, size: int, *, has_new: bool) -> RunRecord:
    code, error, message, hint = 0, "", "", ""
    if fault == "refused" and days < 4:
        code, error, message, hint = 5, "NotAuthorised", "the service refuses this identity", "check `TILESYNC_TOKEN`"
    if fault == "disk full" and not days:
        code, error, message, hint = 8, "DiskFull", "no space left on /srv/tiles", "free some space, then run again"
    if fault == "no export":
        code, error, message, hint = 4, "NoExport", "no export finished in time", "`tilesync exports` shows them"
    if fault in {"killed", "running"} and not days:
        return RunRecord(iso(began), held_bytes=size)
    return RunRecord(
        iso(began),
        finished=iso(began + timedelta(seconds=30)),
        exit=code,
        error=error,
        message=message,
        hint=hint,
        seconds=dice.uniform(0.3, 2) + (size / 3e7 if has_new else 0),
        newest="another" if fault == "behind" else EXPORT,
        behind=fault == "behind",
        published=has_new and not code,
        fetched=200 if has_new and not code else 0,
        bytes=size // 9 if has_new and not code else 0,
        held_bytes=size,
    )
