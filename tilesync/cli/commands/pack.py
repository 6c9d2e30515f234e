"""`tilesync pack`: write a version of a destination into one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import (
    NO_PROGRESS_OPTION,
    OUTPUT_OPTIONS,
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    option,
)
from tilesync.cli.params import DestinationType, FilePathType
from tilesync.cli.parse import create_session, store_options
from tilesync.errors import UsageError

if TYPE_CHECKING:
    from tilesync.api.locations import Location


INTERRUPTED_HINT = "OUT was not changed; run the same command again: it begins anew"


class PackageType(FilePathType):
    """Parameter type of OUT, or of VERSION before it; refuses standard output."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path | None:
        """Return the path; None for an empty text. A dash and a URL are usage errors."""
        if str(value).strip() == "-":
            self.fail("a package cannot go to standard output: write a file, whose ending is the format", param, ctx)
        return super().convert(value, param, ctx)


@command(short_help="Write a version into one file, to carry it.")
@click.argument("dest", type=DestinationType())
@click.argument("version_and_out", metavar="[VERSION] OUT", nargs=-1, type=PackageType())
@option(
    "--compress",
    type=click.Choice(["none", "deflate", "zstd"]),
    default="none",
    show_default=True,
    help="Compress each file, if that makes it smaller. Fewer programs can read the package then.",
)
@option("--overwrite", is_flag=True, envvar=None, help="Replace OUT if it exists.")
@NO_PROGRESS_OPTION
@option("--report", group=OptionGroup.OUTPUT, type=FilePathType(), help="Write the last JSON line to this file.")
@STATE_DIR_OPTION
@STORE_OPTIONS
@OUTPUT_OPTIONS
def pack(
    dest: Location, version_and_out: tuple[Path | None, ...], *, compress: Any, overwrite: bool, **options: Any
) -> int:
    """Write VERSION of DEST, or the current version, into the file OUT, and prove each file while it is written.

    OUT ends with .3tz (3D Tiles Archive), .3dtiles (SQLite), .tar or .zip. The first characters of a version name are
    enough. The package also has the manifest of the version, so `tilesync verify OUT` can check it anywhere.
    """
    from tilesync.cli.output.summary import format_pack_summary

    if not version_and_out:
        dest, version_and_out = _find_dest_in_environment(dest)
    version, out = _split_arguments(version_and_out)
    session = create_session(options, dest=dest, interrupted_hint=INTERRUPTED_HINT)
    packed: list[str] = []

    async def work() -> None:
        from tilesync.api.packing import pack as run_pack

        result = await run_pack(
            dest,
            out,
            version,
            compress=compress,
            overwrite=overwrite,
            on_event=session.show,
            monitor=session.monitor,
            **store_options(options),
        )
        packed.append(format_pack_summary(result))

    return session.run(work, closing_message=lambda: packed[0])


def _find_dest_in_environment(only_argument: Location) -> tuple[Location, tuple[Path]]:
    """Return DEST from its variable, and the only argument as OUT. Raises UsageError without the variable.

    Click cannot do this: it gives the first argument to DEST, whatever the variable says.
    """
    from tilesync.api.locations import is_folder

    text = os.environ.get("TILESYNC_DEST")
    if not text or not is_folder(only_argument):
        raise UsageError("OUT is missing", hint="name the file to write: `tilesync pack DEST OUT`")
    return DestinationType().convert(text, None, click.get_current_context()), (Path(str(only_argument)),)


def _split_arguments(arguments: tuple[Path | None, ...]) -> tuple[str | None, Path]:
    """Split the arguments after DEST into VERSION, None without one, and OUT. Raises UsageError."""
    if len(arguments) > 2:
        raise UsageError("too many arguments", hint="give DEST, perhaps a version, and the file to write")
    *versions, out = arguments
    if out is None or (versions and versions[0] is None):
        raise UsageError("an argument is empty", hint="check whether a variable of your script is not set")
    return (str(versions[0]) if versions else None), out
