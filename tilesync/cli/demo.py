"""`tilesync demo`: the real main job, over real sockets, against the stand-in."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.options import NO_PROGRESS_OPTION, OUTPUT_OPTIONS
from tilesync.cli.params import FolderType, format_size
from tilesync.cli.parse import create_session
from tilesync.core.wording import format_file_count

if TYPE_CHECKING:
    from tilesync.cli.session import Session

DEFAULT_FOLDER = Path("tilesync-demo")

NEXT_STEPS = """
try next:
  tilesync verify {dest}
  tilesync demo {dest}            the next export, beside this one
with an account:
  export TILESYNC_TOKEN=…         README.md says where it comes from
  tilesync exports IMODEL_ID
  tilesync mirror IMODEL_ID DEST"""


def run_demo(session: Session, dest: Path) -> int:
    """Mirror the demo city into `dest` and say what to try next; the exit code. Each time there is a newer export."""
    from tilesync.cli.output.summary import format_mirror_summary
    from tilesync.demo.scenario import IMODEL, LINK_LIFETIME, DemoService

    held = len(list((dest / "manifests").glob("*.jsonl"))) if dest.is_dir() else 0
    with DemoService(held + 1) as service:
        city = (
            f"{format_file_count(len(service.city_files))}, {format_size(sum(map(len, service.city_files.values())))}"
        )
        session.print_message(f"a stand-in of the service starts on loopback, with a city of {city};")
        session.print_message(
            f"its links live {LINK_LIFETIME.total_seconds()} s, and it has a bad day: busy answers, broken bodies"
        )

        async def work() -> None:
            from tilesync.api import aio
            from tilesync.api.auth import Token

            await aio.mirror(
                IMODEL,
                dest,
                auth=Token(service.token),
                api_url=service.url,
                poll=timedelta(seconds=1),
                on_event=session.show,
                monitor=session.monitor,
            )

        def closing() -> str:
            return (
                format_mirror_summary(session.monitor, session.stats, dest, dry_run=False)
                + "\n"
                + NEXT_STEPS.format(dest=dest)
            )

        return session.run(work, closing_message=closing)


@click.command(short_help="See it work; no account needed.")
@click.argument("folder", required=False, type=FolderType())
@NO_PROGRESS_OPTION
@OUTPUT_OPTIONS
def demo(folder: Path | None, **options: Any) -> int:
    """Run the main job against an embedded stand-in of the service; no account needed."""
    return run_demo(create_session(options, dest=folder or DEFAULT_FOLDER, changes_dest=True), folder or DEFAULT_FOLDER)
