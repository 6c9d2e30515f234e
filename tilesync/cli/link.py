"""`tilesync link`: print the URL that a viewer starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

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

if TYPE_CHECKING:
    pass


@click.command(short_help="Print a viewer URL: a secret.")
@click.argument("what", metavar="IMODEL_ID|DEST", envvar="TILESYNC_SOURCE", type=SourceType())
@SELECTION_OPTIONS
@wait_option("0s")
@option("--life", type=DurationType(), default="1h", show_default=True, help="How long the URL of a DEST is good.")
@AZURE_ENDPOINT_OPTION
@ALLOW_HTTP_OPTION
@SERVICE_OPTIONS
@OUTPUT_OPTIONS
def link(what: str, **options: Any) -> int:
    """Print the URL that a viewer starts from: a secret that lives about an hour.

    Of an iModel it leads to the latest finished export, at the service. Of a private container (az://…, or a link to it
    that only reads) it leads to what is mirrored there, and reads that container until --life is over.
    """
    session = create_session(options, source=what)

    async def work() -> None:
        from tilesync.api import aio
        from tilesync.api.inputs import find_viewer_location
        from tilesync.cli.output.summary import SIGNED_URL_HINT

        store = store_options(options)
        of_dest = find_viewer_location(what, store) is not None
        found = await aio.viewer_link(
            what,
            life=options["life"],
            store=store,
            selection=selection_options(options),
            on_event=session.show,
            monitor=session.monitor,
            **service_options(options),
        )
        if of_dest:
            until = f" until {found.expires:%Y-%m-%d %H:%M:%S} UTC" if found.expires is not None else ""
            session.print_message(f"a secret: whoever has it reads the whole container{until}")
            session.print_message(SIGNED_URL_HINT)
        if options["as_json"]:
            session.write_json_line({"kind": "link", "url": found.url})
        else:
            session.print_output(found.url)

    return session.run(work)
