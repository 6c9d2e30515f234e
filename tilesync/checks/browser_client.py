"""Browser client: HTTP requests without identity, like those of a browser."""

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
"""Response headers that the checks read; a repeated header has all its values, as browsers combine them."""


class BrowserClient:
    """HTTP client without identity, like a browser. It sends each request once, and follows no redirect.

    It allows http://, since the requests contain no secrets.
    """

    def __init__(self, client: SyncBlobClient) -> None:
        self._client = client

    async def send_request(self, method: str, url: str, headers: Mapping[str, str]) -> HttpResponse:
        """Send a request and return the response. Raises Unavailable if there is none."""

        def accept(response: SyncBlobResponse) -> HttpResponse:
            if response.status >= 500 and response.status != 501:
                raise Transient(f"{url} answered {response.status}")
            observed = {
                name: ", ".join(values) for name in OBSERVED_HEADERS if (values := response.header_values(name))
            }
            return HttpResponse(url, response.status, observed, response.read())

        request = SyncBlobRequest(method, url, headers, has_secret=False)
        return await run_in_thread(self._client.request, urlsplit(url).netloc, lambda: request, accept)
