"""`tilesync demo`: the real mirror job, over real sockets, against a fake service."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import command
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
  tilesync demo {dest}            add the next export as a new version
with an account:
  export TILESYNC_TOKEN=…         docs/identity.md says how to get a token
  tilesync exports IMODEL_ID
  tilesync mirror IMODEL_ID DEST"""


def bypass_proxies(environ: MutableMapping[str, str]) -> None:
    """Exempt this machine from the proxies that the environment names: they cannot reach its fake service."""
    exempt = environ.get("no_proxy") or environ.get("NO_PROXY")
    environ["no_proxy"] = f"{exempt},127.0.0.1" if exempt else "127.0.0.1"


def run_demo(session: Session, dest: Path) -> int:
    """Mirror the demo city into `dest`, print what to try next, return the exit code. Each run has a newer export."""
    from tilesync.cli.output.summary import format_mirror_summary
    from tilesync.demo.scenario import IMODEL, LINK_LIFETIME, DemoService

    bypass_proxies(os.environ)
    version_count = len(list((dest / "manifests").glob("*.jsonl"))) if dest.is_dir() else 0
    with DemoService(version_count + 1) as service:
        city = (
            f"{format_file_count(len(service.city_files))}, {format_size(sum(map(len, service.city_files.values())))}"
        )
        session.print_message(f"starting a fake service on this machine, with a city of {city};")
        session.print_message(
            f"its links expire after {LINK_LIFETIME.total_seconds()} s, and it simulates busy and broken responses"
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

        def format_closing_message() -> str:
            return (
                format_mirror_summary(session.monitor, session.stats, dest, dry_run=False)
                + "\n"
                + NEXT_STEPS.format(dest=dest)
            )

        return session.run(work, closing_message=format_closing_message)


@command(short_help="Try a mirror; no account needed.")
@click.argument("folder", required=False, type=FolderType())
@NO_PROGRESS_OPTION
@OUTPUT_OPTIONS
def demo(folder: Path | None, **options: Any) -> int:
    """Mirror a small city from a fake service on this machine; no account needed."""
    return run_demo(create_session(options, dest=folder or DEFAULT_FOLDER, changes_dest=True), folder or DEFAULT_FOLDER)
