"""Hints for the error codes of Azure Blob Storage: what the user can do when the storage refuses a request.

A code that is not listed has no hint. Source: "Blob service error codes", "Common REST API error codes".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_CUSTOMER_KEY_HINT: Final = (
    "the blob is encrypted with a key that only its writer has, and tilesync sends none: ask its owner to copy it"
    " without that key, or leave it out with --exclude"
)
_ACCOUNT_SAS_HINT: Final = "get a link that covers blobs (`ss=b`), containers and objects (`srt=co`)"

BAD_SIGNATURE_HINT: Final = (
    "check that the link is complete (quote it in the shell); if the key that signed it was rotated, get a new link"
)
"""Hint for a link that the user gave. If tilesync signed the link itself, the caller has a better hint."""

_HINT_BY_CODE: Final[Mapping[str, str]] = {
    "AccountIsDisabled": "the storage account is disabled, perhaps with its subscription: only its owner can enable it",
    "AuthenticationFailed": BAD_SIGNATURE_HINT,
    "AuthorizationFailure": (
        "the firewall of the storage account blocks this machine, or the link is for another service: ask the owner to"
        " allow this address, or run from an allowed network"
    ),
    "AuthorizationProtocolMismatch": "the link works only with https:// (`spr=https`)",
    "AuthorizationResourceTypeMismatch": _ACCOUNT_SAS_HINT,
    "AuthorizationServiceMismatch": _ACCOUNT_SAS_HINT,
    "AuthorizationSourceIPMismatch": (
        "the link allows only other addresses (`sip=`): run from one of them, or get a link without that limit"
    ),
    "BlobArchived": ("the blob is in the archive tier: its owner must first move it to Hot or Cool, which takes hours"),
    "BlobBeingRehydrated": "the blob is leaving the archive tier: try again in some hours",
    "BlobCustomerSpecifiedEncryptionMismatch": _CUSTOMER_KEY_HINT,
    "BlobImmutableDueToPolicy": "an immutability policy of the container forbids changes: choose another container",
    "BlobUsesCustomerSpecifiedEncryption": _CUSTOMER_KEY_HINT,
    "InvalidQueryParameterValue": "the link is damaged: copy it again, complete and in quotes",
    "KeyBasedAuthenticationNotPermitted": (
        "the storage account accepts neither its keys nor links signed with them: log in to Entra, or get a user"
        " delegation SAS"
    ),
    "PublicAccessNotPermitted": "the request had no signature: copy the complete link, in quotes",
}
LIST_PERMISSION_HINT: Final = (
    "check that the link allows listing (`sp=rl`), or use --inventory walk, which needs no listing"
)
READ_PERMISSION_HINT: Final = "get a link that allows reading (`sp=r`), better also listing (`sp=rl`)"
"""For a refused listing, and for a refused blob, if the response gives no other reason."""

_KEY_VAULT_HINT: Final = (
    "the storage account cannot reach its encryption key in Key Vault: its owner must restore the key or the access"
)
_LEASED_HINT: Final = "another client holds a lease on that blob: break the lease, or wait until it ends"


def storage_hint(code: str) -> str:
    """Return the hint for an error code of the storage; empty if only the caller knows what helps."""
    if code.startswith("KeyVault"):
        return _KEY_VAULT_HINT
    return _LEASED_HINT if code.startswith("Lease") else _HINT_BY_CODE.get(code, "")
