"""Where small files of a version are put in an Azure container, by other processes too."""

from __future__ import annotations

from dataclasses import dataclass

from tilesync.azure.responses import plain_etag
from tilesync.core.http_headers import HEAD, Serving
from tilesync.model import Blob, Held, Proof, SasUrl
from tilesync.model.storage import Found
from tilesync.stores.azure.block_upload import whole
from tilesync.stores.azure.errors import VERSION
from tilesync.stores.object_store.files import as_held, key_of
from tilesync.transport.http1_connection import Reply
from tilesync.transport.http1_pool import Wish


@dataclass(frozen=True, slots=True)
class BlobShelf:
    """A container, through a link that is good now. Picklable."""

    link: SasUrl
    prefix: str
    serving: Serving

    def take(self, version: str, blob: Blob, data: bytes, proof: Proof) -> Wish:
        """What puts a file in place, whose bytes are proven; the service checks its MD5."""
        label = self.serving.label(blob, data[:HEAD])
        url = self.link.blob(self.prefix + key_of(version, blob.name))
        return Wish(url, {"x-ms-version": VERSION, **whole(label, proof.md5)}, body=data)

    def held(self, blob: Blob, proof: Proof, reply: Reply) -> Held:
        """The file that is in place then."""
        return as_held(blob, proof, Found(blob.name, blob.size, plain_etag(reply.etag), proof.md5))
