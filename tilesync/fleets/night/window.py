"""Window of a night: when a fleet stops by itself."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo


def compute_end(
    now: datetime, until: time | None, max_duration: timedelta | None, *, zone: tzinfo | None = None
) -> datetime | None:
    """Return when the run stops: at the next `until` or after `max_duration`, whichever is first; None for no limit.

    An `until` without a zone is meant in `zone` (None: that of this machine). One that has passed today is tomorrow's.
    """
    now = now.astimezone(UTC)
    ends = [] if max_duration is None else [now + max_duration]
    if until is not None:
        ends.append(_find_next(now, until, until.tzinfo or zone))
    return min(ends).astimezone(zone) if ends else None


def _find_next(now: datetime, until: time, zone: tzinfo | None) -> datetime:
    """Return the next moment at which clocks in the zone show this time; its offset may be another one than now."""
    today = now.astimezone(zone).date()
    days = (datetime.combine(today + timedelta(days=days), until.replace(tzinfo=None)) for days in range(3))
    moments = ((day if zone is None else day.replace(tzinfo=zone)).astimezone(UTC) for day in days)
    return next(moment for moment in moments if moment > now)
