"""`tilesync link`: print the URL that a viewer loads."""

from __future__ import annotations

from typing import Any

import click

from tilesync.cli.help_groups import command
from tilesync.cli.options import (
    ALLOW_HTTP_OPTION,
    AZURE_ENDPOINT_OPTION,
    OUTPUT_OPTIONS,
    SELECTION_OPTIONS,
    SERVICE_OPTIONS,
    option,
    wait_option,
)
from tilesync.cli.params import (
    DurationType,
    SourceType,
)
from tilesync.cli.parse import (
    create_session,
    selection_options,
    service_options,
    store_options,
)


@command(short_help="Print the URL that a viewer loads (a secret).")
@click.argument("what", metavar="IMODEL_ID|DEST", envvar="TILESYNC_SOURCE", type=SourceType())
@SELECTION_OPTIONS
@wait_option("0s")
@option("--life", type=DurationType(), default="1h", show_default=True, help="How long the URL of a DEST is valid.")
@AZURE_ENDPOINT_OPTION
@ALLOW_HTTP_OPTION
@SERVICE_OPTIONS
@OUTPUT_OPTIONS
def link(what: str, **options: Any) -> int:
    """Print the URL that a viewer loads: a secret, valid for about an hour.

    For an iModel it points to the latest finished export at the service. For a private container (az://…, or a
    read-only link to it) it points to the mirrored version, and can read that container until --life is over.
    """
    session = create_session(options, source=what)

    async def work() -> None:
        from tilesync.api import aio
        from tilesync.api.locations import find_viewer_location
        from tilesync.cli.output.summary import SIGNED_URL_HINT

        store = store_options(options)
        is_dest = find_viewer_location(what, store.get("azure_endpoint")) is not None
        found = await aio.viewer_link(
            what,
            life=options["life"],
            on_event=session.show,
            monitor=session.monitor,
            **service_options(options),
            **selection_options(options),
            **store,
        )
        if is_dest:
            until = f" until {found.expires:%Y-%m-%d %H:%M:%S} UTC" if found.expires is not None else ""
            session.print_message(f"this URL is a secret: everyone who has it can read the whole container{until}")
            session.print_message(SIGNED_URL_HINT)
        if options["as_json"]:
            session.write_json_line({"kind": "link", "url": found.url})
        else:
            session.print_output(found.url)

    return session.run(work)
