"""Hints for the error codes of Azure Blob Storage: what helps where the storage refuses a request.

A code that is not listed has no hint of its own. Source: "Blob service error codes", "Common REST API error codes".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_CUSTOMER_KEY_HINT: Final = (
    "the blob is encrypted with a key that only its writer has, and tilesync sends none: its owner must copy it without"
    " such a key; or leave it out with --exclude"
)
_ACCOUNT_SAS_HINT: Final = "get a link that covers blobs (`ss=b`), containers and what lies in them (`srt=co`)"

BAD_SIGNATURE_HINT: Final = (
    "is the link whole (in quotes, in the shell)? One that was signed with a key that has changed since wants replacing"
)
"""For a link that somebody gave. One that was just made has other reasons: whoever makes it knows them."""

_HINT_BY_CODE: Final[Mapping[str, str]] = {
    "AccountIsDisabled": "the storage account is disabled, often with its subscription: only its owner can enable it",
    "AuthenticationFailed": BAD_SIGNATURE_HINT,
    "AuthorizationFailure": (
        "the storage account's firewall does not let this machine in, or the link is for another service: ask its owner"
        " to allow this address, or run from a network that is allowed"
    ),
    "AuthorizationProtocolMismatch": "the link is for https:// alone (`spr=https`)",
    "AuthorizationResourceTypeMismatch": _ACCOUNT_SAS_HINT,
    "AuthorizationServiceMismatch": _ACCOUNT_SAS_HINT,
    "AuthorizationSourceIPMismatch": (
        "the link is for other addresses (`sip=`): run from one of them, or get a link without that limit"
    ),
    "BlobArchived": (
        "the blob is in the archive tier: its owner must set its tier to Hot or Cool, which takes hours, before it can"
        " be read"
    ),
    "BlobBeingRehydrated": "the blob is on its way out of the archive tier: it can be read in some hours",
    "BlobCustomerSpecifiedEncryptionMismatch": _CUSTOMER_KEY_HINT,
    "BlobImmutableDueToPolicy": "a policy of the container keeps blobs from being changed: choose another container",
    "BlobUsesCustomerSpecifiedEncryption": _CUSTOMER_KEY_HINT,
    "InvalidQueryParameterValue": "the link is damaged: get it anew, whole and in quotes",
    "KeyBasedAuthenticationNotPermitted": (
        "the storage account takes neither its keys nor links signed by them: log in to Entra, or get a user delegation"
        " SAS"
    ),
    "PublicAccessNotPermitted": "the request came without a signature: copy the link whole, in quotes",
}
LIST_PERMISSION_HINT: Final = "check that the link may list (`sp=rl`), or walk the tilesets instead: --inventory walk"
READ_PERMISSION_HINT: Final = "the link must allow to read (`sp=r`), and list better too (`sp=rl`): get one that does"
"""For a refusal of the listing, and of a blob, that says nothing more."""

_KEY_VAULT_HINT: Final = (
    "the storage account cannot get at its encryption key in Key Vault: its owner must restore the key, or the access"
    " to it"
)
_LEASED_HINT: Final = "someone else has leased that blob: break the lease, or wait for its end"


def storage_hint(code: str) -> str:
    """What helps where the storage answers with this error code; empty where only the caller knows."""
    if code.startswith("KeyVault"):
        return _KEY_VAULT_HINT
    return _LEASED_HINT if code.startswith("Lease") else _HINT_BY_CODE.get(code, "")
