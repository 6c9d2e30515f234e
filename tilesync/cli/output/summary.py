"""Summary sentences of each command, and the tables of exports and versions."""

from __future__ import annotations

from collections.abc import Sequence

from tilesync.api.locations import Location
from tilesync.api.monitor import RunMonitor, RunStats
from tilesync.api.results import ExportInfo, PackResult, VersionInfo, VersionsResult
from tilesync.cli.output.table import format_table
from tilesync.cli.params import format_destination_path, format_size
from tilesync.core.ownership import describe_owner
from tilesync.core.wording import format_count, format_file_count
from tilesync.model import Completeness

SIGNED_URL_HINT = (
    "CesiumJS adds the signature of this URL to the URL of every file; 3d-tiles-renderer does so with a few lines from"
    " docs/stores.md; the account also needs a CORS rule: `tilesync doctor DEST --origin URL` prints it"
)
"""Advice on viewers for a signed URL. Tried with CesiumJS 1.145 and 3d-tiles-renderer 0.5.3."""


def format_mirror_summary(summary: RunMonitor, stats: RunStats, dest: Location, *, dry_run: bool) -> str:
    """Summarize what `mirror` did, or would do."""
    if dry_run:
        return (
            f"plan: fetch {format_file_count(stats.fetched)} ({format_size(stats.planned_bytes)}),"
            f" keep {format_file_count(stats.kept)}"
            + (f", reuse {format_file_count(stats.reused)} ({format_size(stats.reused_bytes)})" if stats.reused else "")
            + (f", leave out {format_file_count(stats.excluded)}" if stats.excluded else "")
            + (f", delete {format_file_count(stats.deleted)}" if stats.deleted else "")
            + (f", retire {format_count(summary.retired_versions, 'version')}" if summary.retired_versions else "")
            + "; nothing was written"
        )
    deleted = f"; {format_file_count(stats.deleted)} deleted" if stats.deleted else ""
    if not stats.fetched and not stats.reused and not summary.published:
        state = "stored" if summary.is_pointer_kept else "stored and published"
        done = f"nothing to do: {format_file_count(stats.kept)} of export {summary.export} are {state}{deleted}"
        return f"{done}; {format_presence_check(stats)}"
    seconds = summary.elapsed_seconds()
    rate = f" ({format_size(stats.transferred_bytes / seconds)}/s)" if stats.transferred_bytes and seconds > 0 else ""
    extra = [f"{stats.reused:,} reused, {format_size(stats.reused_bytes)}"] if stats.reused else []
    extra += [f"{stats.kept:,} kept"] if stats.kept else []
    extra += [f"{stats.excluded:,} left out"] if stats.excluded else []
    extra += [format_count(stats.renewals, "link renewal")] if stats.renewals else []
    extra += [format_count(stats.retries, "retry", "retries")] if stats.retries else []
    lines = [
        f"fetched {format_file_count(stats.fetched)}, {format_size(stats.transferred_bytes)} in {seconds:.1f} s{rate}"
        + (f"; {', '.join(extra)}" if extra else "")
        + f"; {format_file_count(stats.verified)} verified{deleted}"
    ]
    stored_files = stats.listed - stats.excluded
    lines.append(format_completeness(stats.completeness, stored_files))
    if summary.published or not (summary.is_pointer_kept or summary.state == "held"):
        verb, version, count = "repaired", summary.version, stored_files
        if summary.published:
            verb, version, count = "published", summary.published_version, summary.published_files
        lines.append(
            f"{verb}: {format_destination_path(dest, 'tileset.json')} -> version {version}, {format_file_count(count)}"
        )
    if summary.gzip_files:
        lines.append(format_gzip_hint(summary.gzip_files, summary.gzip_endings, dest))
    return "\n".join(lines)


def format_gzip_hint(count: int, suffixes: Sequence[str], dest: Location) -> str:
    """Explain how a web server must serve files that are stored as gzip."""
    return (
        f"{format_file_count(count)} ({', '.join(suffixes)}) {'is' if count == 1 else 'are'} stored as gzip:"
        " the web server must send `Content-Encoding: gzip` for them, or no viewer can read them;"
        f" `tilesync doctor {dest} --public-url URL` checks that and prints the lines (docs/hosting.md); or mirror with"
        " --content decoded"
    )


def format_presence_check(stats: RunStats) -> str:
    """Summarize the presence check of a run with nothing to do: all files that it checked were unchanged."""
    if stats.presence_checked >= stats.kept:
        return "checked all of them: none has changed"
    checked = f"checked {stats.presence_checked:,} of {stats.kept:,}"
    return f"{checked}: none has changed; the next run continues with the others"


def format_completeness(completeness: Completeness, stored_files: int) -> str:
    """Summarize completeness: the number of files that the tilesets refer to, of missing files, and of extra files."""
    left_out = completeness.referenced - completeness.missing - (stored_files - completeness.orphans)
    others = f"{_format_count(left_out, 'left out')} " if left_out else ""
    outcome = (
        _format_count(completeness.missing, "missing")
        if completeness.missing
        else f"all {'others ' if left_out else ''}are there"
    )
    extra = [_format_count(completeness.orphans, "not referenced", more=True)] if completeness.orphans else []
    extra += [f"{format_count(completeness.unfollowed, 'reference')} not followed"] if completeness.unfollowed else []
    return "; ".join(
        [f"the tilesets ask for {format_file_count(completeness.referenced)}, {others}and {outcome}", *extra]
    )


def _format_count(count: int, what: str, *, more: bool = False) -> str:
    return f"{count:,} {'more ' if more else ''}{'is' if count == 1 else 'are'} {what}"


def format_verify_summary(stats: RunStats, dest: Location, *, quick: bool) -> str:
    """Summarize a `verify` that found no problem."""
    if quick:
        return f"{dest}: {format_file_count(stats.listed)} present, with the right sizes"
    verified = f"{format_file_count(stats.listed)} intact ({format_size(stats.transferred_bytes)} read)"
    return f"{dest}: {verified}; {format_completeness(stats.completeness, stats.listed)}"


def format_pack_summary(packed: PackResult) -> str:
    """Summarize the package that `pack` wrote."""
    proven = f"{format_file_count(packed.files)} of version {packed.version}, all proven"
    return f"{packed.package}: {proven}; {format_size(packed.package_bytes)} in {packed.seconds:.1f} s"


def format_export_table(
    rows: Sequence[ExportInfo], *, has_imodel: bool, has_held: bool, width: int | None = None
) -> str:
    """Format the table of exports. `has_imodel` adds a column for the iModel, `has_held` one that says whether a
    destination holds the export. `width` is that of the terminal; None shows everything.
    """
    more = (["IMODEL"] if has_imodel else []) + (["HELD"] if has_held else [])
    head = ["ID", *more, "STATUS", "TYPE", "CHANGESET", "MODIFIED", "SIZE", "NAME", "ERROR"]
    return format_table(
        head,
        [
            [
                row.id,
                *([row.imodel or "-"] if has_imodel else []),
                *([row.held or "no"] if has_held else []),
                row.status,
                row.type or "-",
                (row.changeset or "-")[:12],
                row.modified or "-",
                format_size(row.size) if row.size is not None else "-",
                row.name or "-",
                row.error or "",
            ]
            for row in rows
        ],
        width=width,
        truncated=("NAME", "ERROR"),
    )


def format_ownership(dest: Location, found: VersionsResult) -> str:
    """Say who owns a destination, and when a mirror last succeeded."""
    owner = describe_owner(found.owner) if found.owner else "an unknown owner"
    last = f"the last successful mirror ended at {found.checked}" if found.checked else ""
    return f"{dest} belongs to {owner}" + (f"; {last}" if last else "")


def format_version_table(rows: Sequence[VersionInfo], *, width: int | None = None) -> str:
    """Format the table of versions; `*` marks the published one."""
    head = ["", "VERSION", "CHANGESET", "EXPORTED", "MIRRORED", "FILES", "BYTES", "SHARED", "STATE"]
    return format_table(
        head,
        [
            [
                "*" if row.current else "",
                row.version,
                (row.changeset or "-")[:12],
                row.modified or "-",
                row.finished or "-",
                f"{row.files:,}",
                format_size(row.bytes),
                "-" if row.shared_bytes is None else format_size(row.shared_bytes),
                row.state + (", pinned" if row.pinned else ""),
            ]
            for row in rows
        ],
        width=width,
    )
