"""Credentials of an Azure storage account."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from tests.support.azurite import ACCOUNT, KEY, Azurite, find_azurite, new_container, start_azurite
from tests.support.http_server import answer, serving
from tilesync.errors import NotAuthorised, TilesyncError, UsageError
from tilesync.stores.azure.credentials import READ_LIST_PERMISSIONS, delete_batch, open_account

ENDPOINT = f"http://127.0.0.1:1/{ACCOUNT}"


def send_managed_identity_token(request: BaseHTTPRequestHandler) -> None:
    """Respond as the endpoint of a managed identity, with a token that the emulator accepts: it checks claims only."""
    end = str(int(time.time()) + 3600)
    body = {
        "access_token": token(),
        "expires_on": end,
        "resource": "https://storage.azure.com",
        "token_type": "Bearer",
    }
    answer(json.dumps(body).encode(), Content_Type="application/json")(request)


def token() -> str:
    """Return an unsigned token with the claims of Entra."""

    def part(document: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    now, tenant = int(time.time()), "dd0d0df1-06c3-436c-8034-4b9a153097ce"
    claims = {
        "aud": "https://storage.azure.com",
        "iss": f"https://sts.windows.net/{tenant}/",
        "iat": now - 10,
        "nbf": now - 10,
        "exp": now + 3600,
        "oid": "23657296-5cd5-45b0-a809-d972a7f4dfe1",
        "tid": tenant,
    }
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}.{part({})}"


@pytest.fixture
def secure(azurite: Azurite, tmp_path: Path) -> Iterator[tuple[Azurite, Path]]:
    """A blob service with Entra identities, which need TLS; and its certificate authority."""
    program = find_azurite()
    assert program is not None
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = [tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")]
    authority.cert_pem.write_to_path(str(files[0]))
    issued.cert_chain_pems[0].write_to_path(str(files[1]))
    issued.private_key_pem.write_to_path(str(files[2]))
    options = ("--oauth", "basic", "--cert", str(files[1]), "--key", str(files[2]))
    with start_azurite(program, *options) as service:
        yield service, files[0]


def test_an_entra_identity_signs_with_a_delegation_key(
    secure: tuple[Azurite, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key a container is created, and links are signed with a user delegation key, which is requested once.

    The emulator does not accept such links of this SDK version, so they are not used here.
    """
    service, authority = secure
    with serving(send_managed_identity_token) as endpoint:
        monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint.url("/token"))
        monkeypatch.setenv("IDENTITY_HEADER", "a header")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        with open_account(ACCOUNT, "entra", f"{service.url}/{ACCOUNT}", {}) as account:
            account.create_container()
            links = {account.create_sas(READ_LIST_PERMISSIONS).query for _ in range(3)}
        assert len(endpoint.paths) == 1
    fields = {field.partition("=")[0] for query in links for field in query.split("&")}
    assert {"skoid", "sktid", "ske", "sig", "se", "sp"} <= fields
    assert "spr=https" in next(iter(links)).split("&")


def test_a_connection_string_comes_before_a_key() -> None:
    """A connection string is used before a key; each is checked before any request."""
    text = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={ENDPOINT};"
    environ = {"AZURE_STORAGE_CONNECTION_STRING": text, "AZURE_STORAGE_KEY": "no key"}
    with open_account(ACCOUNT, "tiles", ENDPOINT, environ) as account:
        link = account.create_sas()
        assert (account.container_url, link.base) == (f"{ENDPOINT}/tiles", f"{ENDPOINT}/tiles")
        assert "sp=racwdl" in link.query
        assert "sp=rl" in account.create_sas(READ_LIST_PERMISSIONS).query
        assert link.expires is not None


def test_secrets_of_another_account_are_not_used() -> None:
    """A connection string of another account is skipped, and so is a key where AZURE_STORAGE_ACCOUNT differs."""
    other = f"AccountName=other1;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/other1;"
    environ = {"AZURE_STORAGE_CONNECTION_STRING": other, "AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_ACCOUNT": ACCOUNT}
    with open_account(ACCOUNT, "tiles", ENDPOINT, environ) as account:
        assert account.container_url == f"{ENDPOINT}/tiles"
        assert "sig=" in account.create_sas().query
    with open_account("other1", "tiles", "http://127.0.0.1:1/other1", environ) as account:
        assert "sig=" in account.create_sas().query


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"AZURE_STORAGE_CONNECTION_STRING": "nothing"}, UsageError),
        (
            {
                "AZURE_STORAGE_CONNECTION_STRING": f"AccountName={ACCOUNT};BlobEndpoint={ENDPOINT};"
                "SharedAccessSignature=sv=1&sig=TOPSECRET"
            },
            UsageError,
        ),
        ({"AZURE_STORAGE_KEY": "TOPSECRET, not base64!"}, UsageError),
        ({"AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_ACCOUNT": "another1"}, NotAuthorised),
    ],
)
def test_invalid_credentials_are_refused(environ: dict[str, str], error: type[TilesyncError]) -> None:
    """Each error has a hint, and repeats no secret."""
    with pytest.raises(error) as raised, open_account(ACCOUNT, "tiles", ENDPOINT, environ) as account:
        account.create_sas()
    assert "TOPSECRET" not in str(raised.value)
    assert raised.value.hint


def test_a_wrong_key_is_not_authorised(azurite: Azurite) -> None:
    """A refused signature is NotAuthorised."""
    environ = {"AZURE_STORAGE_KEY": base64.b64encode(b"another key").decode()}
    with open_account(ACCOUNT, "tiles", f"{azurite.url}/{ACCOUNT}", environ) as account, pytest.raises(NotAuthorised):
        account.create_container()


def test_an_existing_container_is_no_error(azurite: Azurite) -> None:
    """Creating a container twice is no error."""
    name = new_container(azurite).rpartition("/")[2]
    environ = {"AZURE_STORAGE_KEY": KEY}
    with open_account(ACCOUNT, name, f"{azurite.url}/{ACCOUNT}", environ) as account:
        account.create_container()
        assert delete_batch(account.create_sas(), ["a", "b c+d%20"]) == [("a", 404), ("b c+d%20", 404)]
