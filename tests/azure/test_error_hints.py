"""Hints for error codes of the storage."""

from __future__ import annotations

import pytest

from tilesync.azure.error_hints import BAD_SIGNATURE_HINT, storage_hint


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AuthenticationFailed", BAD_SIGNATURE_HINT),
        ("AccountIsDisabled", "only its owner can enable it"),
        ("BlobArchived", "Hot or Cool"),
        ("LeaseIdMissing", "break the lease"),
        ("LeaseAlreadyPresent", "break the lease"),
        ("KeyVaultEncryptionKeyNotFound", "Key Vault"),
        ("KeyBasedAuthenticationNotPermitted", "Entra"),
    ],
)
def test_a_code_has_its_hint(code: str, words: str) -> None:
    """A listed code, and each code of leases and of Key Vault, says what the user can do."""
    assert words in storage_hint(code)


@pytest.mark.parametrize("code", ["", "NoSuchCode", "ServerBusy", "authenticationfailed"])
def test_other_codes_have_none(code: str) -> None:
    """For any other code only the caller knows what helps."""
    assert storage_hint(code) == ""
