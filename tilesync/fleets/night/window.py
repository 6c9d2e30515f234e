"""Window of a night: when a fleet stops by itself."""

from __future__ import annotations

from datetime import datetime, time, timedelta


def compute_end(now: datetime, until: time | None, max_duration: timedelta | None) -> datetime | None:
    """Return when the run stops: at the next `until` or after `max_duration`, whichever is first; None for no limit.

    `now` has a time zone, in which `until` is meant; an `until` that has passed today is tomorrow's.
    """
    ends = [] if max_duration is None else [now + max_duration]
    if until is not None:
        end = datetime.combine(now.date(), until, tzinfo=until.tzinfo or now.tzinfo)
        if end <= now:
            end = datetime.combine(now.date() + timedelta(days=1), until, tzinfo=until.tzinfo or now.tzinfo)
        ends.append(end)
    return min(ends, default=None)
