"""Who writes to an Azure storage account: keys, connection strings, tokens, Entra; and what only they can.

The one file that speaks through azure-storage-blob: its half second of import is paid by those who need it.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence

from tilesync.model import SasUrl


def delete_many(sas: SasUrl, names: Sequence[str]) -> list[tuple[str, int]]:
    """Delete many blobs of a container in one request; the status for each. Source: "Blob Batch" (REST)."""
    from azure.storage.blob import ContainerClient

    with ContainerClient.from_container_url(f"{sas.base}?{sas.query}", **_transport()) as container:
        replies = container.delete_blobs(*names, raise_on_any_failure=False)
        return [(name, reply.status_code) for name, reply in zip(names, replies, strict=True)]


def _transport() -> dict[str, object]:
    """Whom the SDK trusts, which knows neither SSL_CERT_FILE nor the system's authorities."""
    logging.getLogger("azure").setLevel(logging.ERROR)
    bundle = ssl.get_default_verify_paths().cafile
    return {"connection_verify": bundle} if bundle else {}
