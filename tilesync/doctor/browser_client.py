"""Someone without any identity, who asks as a browser does."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from tilesync.errors import Transient
from tilesync.model.storage import HttpResponse
from tilesync.runtime.threads import run_in_thread
from tilesync.transport.blob_client_sync import SyncBlobClient, SyncBlobRequest, SyncBlobResponse

OBSERVED_HEADERS = (
    "access-control-allow-headers",
    "access-control-allow-origin",
    "age",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "location",
    "server",
)
"""What is looked at; one that came twice has both values, as browsers see it."""


class HttpBrowserClient:
    """Asks through a pool of connections; plain http is as good as any: there is nothing secret."""

    def __init__(self, client: SyncBlobClient) -> None:
        self._client = client

    async def send_request(self, method: str, url: str, headers: Mapping[str, str]) -> HttpResponse:
        """An answer. Raises Unavailable when none comes."""

        def accept(reply: SyncBlobResponse) -> HttpResponse:
            if reply.status >= 500 and reply.status != 501:
                raise Transient(f"{url} answered {reply.status}")
            found = {name: ", ".join(values) for name in OBSERVED_HEADERS if (values := reply.header_values(name))}
            return HttpResponse(url, reply.status, found, reply.read())

        send = SyncBlobRequest(method, url, headers, has_secret=False)
        return await run_in_thread(self._client.request, urlsplit(url).netloc, lambda: send, accept)
