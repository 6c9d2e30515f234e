"""The last sentences of a run, and the table of exports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilesync.cli.output.report import Summary
from tilesync.cli.output.table import table
from tilesync.cli.params import Place, at_top, size
from tilesync.core.ownership import shown
from tilesync.core.wording import counted, files
from tilesync.jobs.run.stats import Tally
from tilesync.jobs.versions.listing import Holding, held_as
from tilesync.jobs.versions.ownership import Standing
from tilesync.model import Completeness, Export

SIGNED_VIEWERS = (
    "CesiumJS passes its signature on to every file; 3d-tiles-renderer wants the few lines of README.md (Private"
    " containers); pages need a CORS rule of the account besides: `tilesync doctor DEST --origin URL` prints it"
)
"""Which viewers can use a signed URL. Tried with CesiumJS 1.145 and 3d-tiles-renderer 0.5.3."""


def mirrored(summary: Summary, tally: Tally, dest: Place, *, dry_run: bool) -> str:
    """What `mirror` did, or would do."""
    if dry_run:
        return (
            f"plan: fetch {files(tally.fetched)} ({size(tally.planned_bytes)}), keep {files(tally.kept)}"
            + (f", reuse {files(tally.reused)} ({size(tally.reused_bytes)})" if tally.reused else "")
            + (f", leave out {files(tally.excluded)}" if tally.excluded else "")
            + (f", delete {files(tally.deleted)}" if tally.deleted else "")
            + (f", retire {counted(summary.retired, 'version')}" if summary.retired else "")
            + "; nothing was written"
        )
    deleted = f"; {files(tally.deleted)} deleted" if tally.deleted else ""
    if not tally.fetched and not tally.reused and not summary.published:
        there = "held" if summary.stays else "held and published"
        done = f"nothing to do: {files(tally.kept)} of export {summary.export} are {there}{deleted}"
        return f"{done}; {seen(tally)}"
    seconds = summary.seconds()
    rate = f" ({size(tally.bytes / seconds)}/s)" if tally.bytes and seconds > 0 else ""
    extra = [f"{tally.reused:,} reused, {size(tally.reused_bytes)}"] if tally.reused else []
    extra += [f"{tally.kept:,} kept"] if tally.kept else []
    extra += [f"{tally.excluded:,} left out"] if tally.excluded else []
    extra += [counted(tally.renewals, "link renewal")] if tally.renewals else []
    extra += [f"{tally.retries} retries"] if tally.retries else []
    lines = [
        f"fetched {files(tally.fetched)}, {size(tally.bytes)} in {seconds:.1f} s{rate}"
        + (f"; {', '.join(extra)}" if extra else "")
        + f"; {files(tally.verified)} verified{deleted}"
    ]
    held = tally.listed - tally.excluded
    lines.append(complete(tally.completeness, held))
    if summary.published or not (summary.stays or summary.state == "held"):
        verb, version, count = "whole again", summary.version, held
        if summary.published:
            verb, version, count = "published", summary.pointed, summary.files
        lines.append(f"{verb}: {at_top(dest, 'tileset.json')} -> version {version}, {files(count)}")
    if summary.gzip_files:
        lines.append(gzip_told(summary.gzip_files, summary.gzip_endings, dest))
    return "\n".join(lines)


def gzip_told(count: int, endings: Sequence[str], dest: Place) -> str:
    """What a folder with files that are stored as gzip asks of the web server before it."""
    return (
        f"{files(count)} ({', '.join(endings)}) {'is' if count == 1 else 'are'} stored as gzip: the web server must"
        " send `Content-Encoding: gzip` for them, or no viewer can read them;"
        f" `tilesync doctor {dest} --public-url URL` checks that and prints the lines (README, Hosting); or mirror with"
        " --content decoded"
    )


def seen(tally: Tally) -> str:
    """How many of the held files were looked at; each was there: else there would have been something to do."""
    if tally.looked >= tally.kept:
        return "looked at all of them: they lie there as they were left"
    return f"looked at {tally.looked:,} of {tally.kept:,}: they lie there as they were left; the next run goes on there"


def complete(found: Completeness, held: int) -> str:
    """Whether what the tilesets ask for is among the files that are held, and what else is."""
    left_out = found.referenced - found.missing - (held - found.orphans)
    others = f"{_are(left_out, 'left out')} " if left_out else ""
    there = _are(found.missing, "missing") if found.missing else f"all {'others ' if left_out else ''}are there"
    extra = [_are(found.orphans, "asked for by none", more=True)] if found.orphans else []
    extra += [f"{counted(found.unfollowed, 'reference')} not followed"] if found.unfollowed else []
    return "; ".join([f"the tilesets ask for {files(found.referenced)}, {others}and {there}", *extra])


def _are(count: int, what: str, *, more: bool = False) -> str:
    return f"{count:,} {'more ' if more else ''}{'is' if count == 1 else 'are'} {what}"


def verified(tally: Tally, dest: Place, *, quick: bool) -> str:
    """What `verify` found when it found nothing."""
    if quick:
        return f"{dest}: {files(tally.listed)} present, sizes right"
    return (
        f"{dest}: {files(tally.listed)} whole ({size(tally.bytes)} read); {complete(tally.completeness, tally.listed)}"
    )


def export_row(export: Export, there: Sequence[Holding] | None = None) -> dict[str, Any]:
    """One export for programs; with `held` where it was asked what a folder holds."""
    return {
        "kind": "export",
        "id": export.id,
        "name": export.name,
        "status": export.status,
        "type": export.type,
        "imodel": export.imodel,
        "changeset": export.changeset,
        "modified": export.modified,
        "size": export.size,
        "error": export.error or None,
        **({} if there is None else {"held": held_as(export, there) or None}),
    }


def export_table(
    rows: Sequence[Export], there: Sequence[Holding] | None = None, *, imodel: bool, width: int | None = None
) -> str:
    """The exports for people; with the iModel of each where they may differ, and how it is held where that is known.

    `width` is that of the terminal, None where all is to be shown.
    """
    more = (["IMODEL"] if imodel else []) + (["HELD"] if there is not None else [])
    head = ["ID", *more, "STATUS", "TYPE", "CHANGESET", "MODIFIED", "SIZE", "NAME", "ERROR"]
    return table(
        head,
        [
            [
                row.id,
                *([row.imodel or "-"] if imodel else []),
                *([held_as(row, there) or "no"] if there is not None else []),
                row.status,
                row.type or "-",
                (row.changeset or "-")[:12],
                row.modified or "-",
                size(row.size) if row.size is not None else "-",
                row.name or "-",
                row.error,
            ]
            for row in rows
        ],
        width=width,
        elided=("NAME", "ERROR"),
    )


def belongs(dest: Place, standing: Standing) -> str:
    """Whose a destination is, and when a run last ended well."""
    of = shown(standing.owner) if standing.owner else "nobody that is known"
    last = f"the last mirror that ended well was at {standing.checked}" if standing.checked else ""
    return f"{dest} belongs to {of}" + (f"; {last}" if last else "")


def version_row(holding: Holding, standing: Standing) -> dict[str, Any]:
    """One held version for programs. `modified` is when the service exported it, `finished` when it was mirrored;
    `owner` and `checked` are of the whole destination.
    """
    version = holding.version
    return {
        "kind": "version",
        "version": version.name,
        "export": version.export,
        "imodel": version.imodel,
        "changeset": version.changeset,
        "modified": version.modified or None,
        "finished": version.published,
        "files": version.files,
        "bytes": version.bytes,
        "shared_bytes": holding.shared,
        "state": holding.state,
        "current": holding.current,
        "pinned": holding.pinned,
        "content": version.content.value,
        "owner": standing.owner,
        "checked": standing.checked,
    }


def version_table(rows: Sequence[Holding], *, width: int | None = None) -> str:
    """The held versions for people; `*` marks the one that the pointer names."""
    head = ["", "VERSION", "CHANGESET", "EXPORTED", "MIRRORED", "FILES", "BYTES", "SHARED", "STATE"]
    return table(
        head,
        [
            [
                "*" if row.current else "",
                row.version.name,
                (row.version.changeset or "-")[:12],
                row.version.modified or "-",
                row.version.published or "-",
                f"{row.version.files:,}",
                size(row.version.bytes),
                "-" if row.shared is None else size(row.shared),
                row.state + (", pinned" if row.pinned else ""),
            ]
            for row in rows
        ],
        width=width,
    )
