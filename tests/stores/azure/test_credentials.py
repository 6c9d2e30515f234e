"""Who writes to an Azure storage account."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from tests.support.azurite import ACCOUNT, KEY, Azurite, find_azurite, new_container, start_azurite
from tilesync.errors import NotAuthorised, TilesyncError, UsageError
from tilesync.stores.azure.credentials import READ_LIST_PERMISSIONS, delete_batch, open_account

ENDPOINT = f"http://127.0.0.1:1/{ACCOUNT}"


class ManagedIdentityEndpoint:
    """The endpoint at which a machine of Azure's asks for the token of its managed identity."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        identities = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Be silent."""

            def do_GET(self) -> None:
                """A token that the emulator takes: it looks at the claims."""
                identities.requests.append(self.path)
                end = str(int(time.time()) + 3600)
                body = json.dumps(
                    {
                        "access_token": token(),
                        "expires_on": end,
                        "resource": "https://storage.azure.com",
                        "token_type": "Bearer",
                    }
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def __enter__(self) -> ManagedIdentityEndpoint:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def token() -> str:
    """A token as Entra issues it, signed by nobody."""

    def part(said: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")

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
    """A blob service that knows identities of Entra, which wants TLS; and the authority that signed for it."""
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


def test_an_identity_of_entra_signs_by_a_delegated_key(
    secure: tuple[Azurite, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no key at all a container is made, and links to it are signed by a key that the service delegates; one is
    asked for, and serves for many links (the emulator knows no such links of this version of the SDK, so that they
    serve is not tried here).
    """
    service, authority = secure
    with ManagedIdentityEndpoint() as identities:
        monkeypatch.setenv("IDENTITY_ENDPOINT", identities.url)
        monkeypatch.setenv("IDENTITY_HEADER", "a header")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        with open_account(ACCOUNT, "entra", f"{service.url}/{ACCOUNT}", {}) as account:
            account.create_container()
            links = {account.create_sas(READ_LIST_PERMISSIONS).query for _ in range(3)}
        assert len(identities.requests) == 1
    fields = {field.partition("=")[0] for query in links for field in query.split("&")}
    assert {"skoid", "sktid", "ske", "sig", "se", "sp"} <= fields
    assert "spr=https" in next(iter(links)).split("&")


def test_what_is_given_comes_first() -> None:
    """A connection string before a key; each is checked before anything is asked."""
    text = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={ENDPOINT};"
    given = {"AZURE_STORAGE_CONNECTION_STRING": text, "AZURE_STORAGE_KEY": "no key"}
    with open_account(ACCOUNT, "tiles", ENDPOINT, given) as account:
        link = account.create_sas()
        assert (account.container_url, link.base) == (f"{ENDPOINT}/tiles", f"{ENDPOINT}/tiles")
        assert "sp=racwdl" in link.query
        assert "sp=rl" in account.create_sas(READ_LIST_PERMISSIONS).query
        assert link.expires is not None


def test_another_accounts_secrets_are_not_taken() -> None:
    """A connection string of another account is passed over, and a key where AZURE_STORAGE_ACCOUNT names another."""
    other = f"AccountName=other1;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/other1;"
    given = {"AZURE_STORAGE_CONNECTION_STRING": other, "AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_ACCOUNT": ACCOUNT}
    with open_account(ACCOUNT, "tiles", ENDPOINT, given) as account:
        assert account.container_url == f"{ENDPOINT}/tiles"
        assert "sig=" in account.create_sas().query
    with open_account("other1", "tiles", "http://127.0.0.1:1/other1", given) as account:
        assert "sig=" in account.create_sas().query


@pytest.mark.parametrize(
    ("given", "error"),
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
def test_what_is_no_identity_is_refused(given: dict[str, str], error: type[TilesyncError]) -> None:
    """Each says what is wrong, and repeats no secret."""
    with pytest.raises(error) as told, open_account(ACCOUNT, "tiles", ENDPOINT, given) as account:
        account.create_sas()
    assert "TOPSECRET" not in str(told.value)
    assert told.value.hint


def test_a_wrong_key_may_not_make_a_container(azurite: Azurite) -> None:
    """The refusal of the service is one of identity."""
    given = {"AZURE_STORAGE_KEY": base64.b64encode(b"another key").decode()}
    with open_account(ACCOUNT, "tiles", f"{azurite.url}/{ACCOUNT}", given) as account, pytest.raises(NotAuthorised):
        account.create_container()


def test_a_container_that_is_there_need_not_be_made(azurite: Azurite) -> None:
    """Making it twice is no error."""
    name = new_container(azurite).rpartition("/")[2]
    given = {"AZURE_STORAGE_KEY": KEY}
    with open_account(ACCOUNT, name, f"{azurite.url}/{ACCOUNT}", given) as account:
        account.create_container()
        assert delete_batch(account.create_sas(), ["a", "b c+d%20"]) == [("a", 404), ("b c+d%20", 404)]
