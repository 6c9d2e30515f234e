"""Status page: one self-contained HTML file about mirrors, problems first, for people who look at it in the morning."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from tilesync.core.wording import format_age, format_count, format_file_count, format_size
from tilesync.model.history import MAX_RUNS, HeldVersion, MirrorHistory, RunRecord
from tilesync.monitoring.sparkline import Sparkline, draw_sparkline
from tilesync.monitoring.status import Health, MirrorStatus, describe_health, parse_time, sort_problems_first
from tilesync.values import dataclass

UNKNOWN: Final = "\N{EN DASH}"
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters and halves of surrogate pairs, which HTML must not have. Source: HTML, "Preprocessing the input
stream"."""

_ICON_COLOURS: Final = {
    Health.FAILING: "#c8372d",
    Health.NEVER: "#5a6ba8",
    Health.STALE: "#b87400",
    Health.FRESH: "#1a8a55",
}
_ICON: Final = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='{}'/></svg>"
)


Sentence = tuple[tuple[str, bool], ...]
"""Parts of a sentence; True for those that stood between backticks."""


@dataclass(frozen=True, slots=True)
class CountedHealth:
    """Number of mirrors of one health, and its part of a bar of 1000 units."""

    health: str
    word: str
    count: str
    x: str
    width: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of a page about one mirror."""

    kind: str
    started: str
    time: str
    outcome: str
    facts: str
    message: str


@dataclass(frozen=True, slots=True)
class MirrorRow:
    """Texts and charts of one mirror. `squares`: kind (empty: no change) and title of each run, the oldest first."""

    name: str
    dest: str
    health: str
    word: str
    is_running: bool
    reasons: tuple[Sentence, ...]
    hint: Sentence
    command: str
    facts: str
    export_age: str
    export_title: str
    success_age: str
    success_title: str
    size: str
    files: str
    size_chart: Sparkline | None
    size_trend: str
    duration: str
    duration_chart: Sparkline | None
    duration_trend: str
    squares: tuple[tuple[str, str], ...]
    strip_label: str


@dataclass(frozen=True, slots=True)
class StatusPage:
    """Texts of the page. `runs`: those of the mirror, if there is only one."""

    title: str
    headline: str
    icon: str
    counts: tuple[CountedHealth, ...]
    total_size: str
    total_files: str
    time: str
    time_text: str
    problems: tuple[MirrorRow, ...]
    rows: tuple[MirrorRow, ...]
    runs: tuple[RunRow, ...]
    mirrors_heading: str
    footer: str
    tilesync_version: str
    max_runs: int = MAX_RUNS


def render_status_page(statuses: Sequence[MirrorStatus], *, title: str, now: datetime, tilesync_version: str) -> str:
    """Render the page as it is at the time `now`. It has no script, and loads nothing from elsewhere.

    All texts of mirrors are escaped: the display name of an iModel is free text.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("tilesync.monitoring"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert environment.loader is not None
    style = environment.loader.get_source(environment, "status_page.css")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = make_page(statuses, title=title, now=now, tilesync_version=tilesync_version)
    text = environment.get_template("status_page.html").render(
        page=page,
        style=Markup(style),  # noqa: S704 - our own file
        style_digest=digest,
    )
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def make_page(statuses: Sequence[MirrorStatus], *, title: str, now: datetime, tilesync_version: str) -> StatusPage:
    """Make the texts and charts of the page."""
    ordered = sort_problems_first(statuses)
    rows = tuple(_make_row(status, now) for status in ordered)
    held = [status.history.held for status in statuses if status.history.held is not None]
    worst = ordered[0].health if ordered else Health.FRESH
    ages = {format_age(status.max_age) for status in statuses if status.max_age is not None}
    limit = f"Stale after {', '.join(sorted(ages))} \N{MIDDLE DOT} " if ages else ""
    return StatusPage(
        title=title,
        headline=_make_headline(ordered),
        icon="data:image/svg+xml," + quote(_ICON.format(_ICON_COLOURS[worst])),
        counts=tuple(_count_healths(ordered)),
        total_size=format_size(sum(each.bytes for each in held)),
        total_files=format_file_count(sum(each.files for each in held)),
        time=now.astimezone(UTC).isoformat(timespec="seconds"),
        time_text=format_moment(now),
        problems=tuple(row for row in rows if row.health != Health.FRESH),
        rows=rows,
        runs=tuple(_make_run_rows(ordered[0])) if len(ordered) == 1 else (),
        mirrors_heading="All mirrors" if len(ordered) > 1 else "Trend",
        footer=f"{limit}Made by tilesync {tilesync_version}",
        tilesync_version=tilesync_version,
    )


def _make_headline(statuses: Sequence[MirrorStatus]) -> str:
    if not statuses:
        return "There are no mirrors"
    if len(statuses) == 1:
        return f"The mirror is {describe_health(statuses[0].health)}"
    fresh = sum(status.health is Health.FRESH for status in statuses)
    number = f"All {len(statuses):,}" if fresh == len(statuses) else f"{fresh:,} of {len(statuses):,}"
    return f"{number} mirrors are fresh"


def _count_healths(statuses: Sequence[MirrorStatus]) -> Iterator[CountedHealth]:
    x = 0.0
    for health in Health:
        count = sum(status.health is health for status in statuses)
        width = 1000 * count / (len(statuses) or 1)
        if count:
            yield CountedHealth(health.value, describe_health(health), f"{count:,}", f"{x:.1f}", f"{width:.1f}")
        x += width


def _make_row(status: MirrorStatus, now: datetime) -> MirrorRow:
    history = status.history
    held = history.held or HeldVersion("", "")
    runs = history.runs
    failed = [_is_failed(run, status) for run in runs]
    sizes = [float(run.held_bytes) if run.held_bytes else None for run in runs]
    seconds = [run.seconds if run.exit is not None else None for run in runs]
    known_seconds = [each for each in seconds if each is not None]
    squares = tuple(_make_square(run, status) for run in runs)
    return MirrorRow(
        name=status.name,
        dest=status.dest,
        health=status.health.value,
        word=describe_health(status.health),
        is_running=status.is_running,
        reasons=tuple(_split_sentence(reason) for reason in status.reasons),
        hint=_split_sentence(status.hint),
        command=status.command,
        facts=_describe_facts(history, held, now),
        export_age=_format_ago(held.modified, now),
        export_title=f"export {held.export}, {_format_time(held.modified)}" if held.export else "",
        success_age=_format_ago(history.last_success, now),
        success_title=_format_time(history.last_success),
        size=format_size(held.bytes) if held.version else UNKNOWN,
        files=format_file_count(held.files),
        size_chart=draw_sparkline(sizes, failed),
        size_trend=_describe_trend("size", [format_size(each) for each in sizes if each is not None]),
        duration=format_duration(known_seconds[-1]) if known_seconds else UNKNOWN,
        duration_chart=draw_sparkline(seconds, failed, starts_at_zero=True),
        duration_trend=_describe_trend("duration", [format_duration(each) for each in known_seconds]),
        squares=squares,
        strip_label=_describe_strip(runs, failed),
    )


def _split_sentence(text: str) -> Sentence:
    """Begin a sentence with a capital, and separate the commands in it."""
    parts = f"{text[:1].upper()}{text[1:]}".split("`")
    return tuple((part, number % 2 == 1) for number, part in enumerate(parts) if part)


def _describe_facts(history: MirrorHistory, held: HeldVersion, now: datetime) -> str:
    """Describe what is held, and when a run last ended well."""
    parts = []
    if history.last_success:
        parts.append(f"last success {_format_ago(history.last_success, now)}")
    if held.version:
        exported = f" of {_format_time(held.modified)}" if held.modified else ""
        parts.append(f"holds the export{exported}: {format_file_count(held.files)}, {format_size(held.bytes)}")
    text = " \N{MIDDLE DOT} ".join(parts) or "nothing is held"
    return text[:1].upper() + text[1:]


def _is_running(run: RunRecord, status: MirrorStatus) -> bool:
    return status.is_running and run is status.history.runs[-1]


def _is_failed(run: RunRecord, status: MirrorStatus) -> bool:
    return not run.is_success and not _is_running(run, status)


def _make_square(run: RunRecord, status: MirrorStatus) -> tuple[str, str]:
    """Return the kind of a run (a class of the style) and its title."""
    kind, word = _classify_run(run, status)
    return kind, f"{_format_short(run.started)} {word}"


def _classify_run(run: RunRecord, status: MirrorStatus) -> tuple[str, str]:
    if run.exit is None:
        return ("r", "running") if _is_running(run, status) else ("k", "killed")
    if run.exit:
        return "f", f"failed, exit {run.exit}"
    return ("p", "published") if run.published else ("", "no change")


def _make_run_rows(status: MirrorStatus) -> Iterator[RunRow]:
    """Make the rows of the runs of a mirror, the latest first."""
    for run in reversed(status.history.runs):
        kind, outcome = _classify_run(run, status)
        fetched = f"{format_file_count(run.fetched)} fetched, {format_size(run.bytes)}, in " if run.fetched else ""
        facts = f"{fetched}{format_duration(run.seconds)}" if run.exit is not None else ""
        yield RunRow(kind, run.started, _format_time(run.started), outcome, facts, run.message)


def _describe_strip(runs: Sequence[RunRecord], failed: Sequence[bool]) -> str:
    if not runs:
        return "no run yet"
    return f"{format_count(len(runs), 'run')}, {sum(failed)} failed or killed"


def _describe_trend(what: str, values: Sequence[str]) -> str:
    if not values:
        return ""
    return f"{what} of {format_count(len(values), 'run')}: first {values[0]}, last {values[-1]}"


def format_duration(seconds: float) -> str:
    """Format a duration: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 7 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def format_moment(moment: datetime) -> str:
    """Format a time for people: `30 Nov 2026, 06:00 UTC`."""
    moment = moment.astimezone(UTC)
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M} UTC"


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""Names of the months in English, whatever the locale is."""


def _format_time(text: str | None) -> str:
    moment = parse_time(text)
    return format_moment(moment) if moment is not None else text or "never"


def _format_short(text: str) -> str:
    """Format a time without year and zone, for the titles of many squares."""
    moment = parse_time(text)
    if moment is None:
        return text
    moment = moment.astimezone(UTC)
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment:%H:%M}"


def _format_ago(text: str | None, now: datetime) -> str:
    """Format an age in its largest unit; the title beside it has the time itself."""
    moment = parse_time(text)
    return f"{' '.join(format_age(now - moment).split()[:2])} ago" if moment is not None else UNKNOWN
