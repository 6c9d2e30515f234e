"""Someone without any identity, who asks as a browser does."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from tilesync.errors import Transient
from tilesync.model.storage import Answer
from tilesync.runtime.threads import in_thread
from tilesync.transport.blob_client_sync import Blocking, Reply, Send

HEADERS = (
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


class AnyVisitor:
    """Asks through a pool of connections; plain http is as good as any: there is nothing secret."""

    def __init__(self, talk: Blocking) -> None:
        self._talk = talk

    async def ask(self, method: str, url: str, headers: Mapping[str, str]) -> Answer:
        """An answer. Raises Unavailable when none comes."""

        def accept(reply: Reply) -> Answer:
            if reply.status >= 500 and reply.status != 501:
                raise Transient(f"{url} answered {reply.status}")
            found = {name: ", ".join(values) for name in HEADERS if (values := reply.values(name))}
            return Answer(url, reply.status, found, reply.read())

        send = Send(method, url, headers, secret=False)
        return await in_thread(self._talk.ask, urlsplit(url).netloc, lambda: send, accept)
