"""Values of options, parsed from text: durations, rates and counts; and defaults. Each parser raises ValueError."""

from __future__ import annotations

import re
from datetime import time, timedelta
from typing import Final

_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_COUNT: Final = re.compile(r"[0-9]{1,12}")
_RATE: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(?:([kKmMgG])(i)?)?B?(?:/s)?")

# Defaults as texts: --help shows them, and the Python API parses them.
DEFAULT_RETRY_FOR: Final = "60s"
DOCTOR_RETRY_FOR: Final = "10s"
SERVE_RETRY_FOR: Final = "10s"
DEFAULT_WAIT: Final = "10m"
DEFAULT_POLL: Final = "15s"
DEFAULT_FOLLOW_POLL: Final = "60s"
DEFAULT_CACHE_SIZE: Final = "256M"

MIN_RATE_BYTES_PER_S: Final = 1000

MAX_DURATION: Final = timedelta(days=36_500)
"""Maximum of a duration option. A larger one could overflow date arithmetic."""


def parse_duration(text: str) -> timedelta:
    """Parse a duration: `90s`, `10m`, `1h`, `1h30m`, `7d`; a number without a unit is seconds."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration: write 90s, 10m or 1h")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total_seconds = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total_seconds > MAX_DURATION.total_seconds():
        raise ValueError(f"{text!r} is too long: the maximum is 36500 days")
    return timedelta(seconds=total_seconds)


def parse_time_of_day(text: str) -> time:
    """Parse a time of day: `06:00`, `22:30:15`."""
    try:
        return time.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a time of day: write 06:00") from None


def parse_rate(text: str) -> float | None:
    """Parse a rate in bytes per second: `500k`, `10M`, `1.5Mi`; `off` or an empty text is None, no limit."""
    if text.strip().lower() in {"", "off"}:
        return None
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a rate: write bytes per second as 500k, 10M or 1.5Mi")
    rate: float = float(match[1]) * (1024.0 if match[3] else 1000.0) ** " kmg".index((match[2] or " ").lower())
    if rate < MIN_RATE_BYTES_PER_S:
        raise ValueError(
            f"{text!r} is below the minimum of {MIN_RATE_BYTES_PER_S} bytes per second; 10M is ten million"
        )
    return rate


def parse_size(text: str) -> int:
    """Parse a size in bytes: `256M`, `1.5Gi`."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes as 256M or 1.5Gi")
    return int(float(match[1]) * (1024.0 if match[3] else 1000.0) ** " kmg".index((match[2] or " ").lower()))


def parse_count_or_word(text: str, word: str, *, max_count: int) -> int | None:
    """Parse a number from 1 to `max_count`, or the word, which is None."""
    stripped = text.strip().lower()
    if stripped == word:
        return None
    if not _COUNT.fullmatch(stripped) or not 1 <= int(stripped) <= max_count:
        raise ValueError(f"{text!r} is neither '{word}' nor a number from 1 to {max_count:,}")
    return int(stripped)
