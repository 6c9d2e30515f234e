"""`tilesync demo`: the real mirror job, over real sockets, against a fake service."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.commands.serve import run_server
from tilesync.cli.help_groups import command
from tilesync.cli.options import NO_PROGRESS_OPTION, OUTPUT_OPTIONS, option
from tilesync.cli.params import FolderType, format_size
from tilesync.cli.parse import create_session
from tilesync.core.wording import format_file_count
from tilesync.errors import UsageError

if TYPE_CHECKING:
    from tilesync.cli.session import Session

DEFAULT_FOLDER = Path("tilesync-demo")

VIEW_OPTIONS = {"host": "127.0.0.1", "port": 0, "token": None, "cors_origin": ()}
"""Options of the server of `--view`."""

NEXT_STEPS = """
try next:
  tilesync view {dest}            look at it in the browser; needs tilesync[serve]
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
                format_mirror_summary(session.monitor, session.monitor.stats, dest, dry_run=False)
                + "\n"
                + NEXT_STEPS.format(dest=dest)
            )

        return session.run(work, closing_message=format_closing_message)


@command(short_help="Try a mirror; no account needed.")
@click.argument("folder", required=False, type=FolderType())
@option(
    "--view",
    "opens_viewer",
    is_flag=True,
    envvar=None,
    help="Then serve the city, and open it in the browser; needs tilesync[serve].",
)
@NO_PROGRESS_OPTION
@OUTPUT_OPTIONS
def demo(folder: Path | None, *, opens_viewer: bool, **options: Any) -> int:
    """Mirror a small city from a fake service on this machine; no account needed."""
    dest = folder or DEFAULT_FOLDER
    if opens_viewer:
        refuse_to_view(options)
    code = run_demo(create_session(options, dest=dest, changes_dest=True), dest)
    if code or not opens_viewer:
        return code
    return run_server((dest,), {**options, **VIEW_OPTIONS}, open_page=True)


def refuse_to_view(options: dict[str, Any]) -> None:
    """Raise UsageError if the city could not be served after its mirror."""
    from tilesync.api.serving import require_server_packages

    if options["as_json"]:
        raise UsageError("--view and --json cannot be used together", hint="leave out --json")
    require_server_packages()
