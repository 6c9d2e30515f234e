"""Secrets from the variables, files and commands that a fleet file refers to."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from tilesync.api.auth import Auth, ClientCredentials, ShareKey, Token, TokenCommand, TokenFile
from tilesync.errors import NotAuthorised, TilesyncError, UsageError
from tilesync.fleets.file.secrets import create_auth, read_secret, read_secret_blocking
from tilesync.fleets.file.settings import Credentials, SecretReference
from tilesync.model import Secret

NAME = "TILESYNC_TEST_SECRET"


def test_each_kind_of_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable, a file and a command give the secret, without the line break at its end."""
    monkeypatch.setenv(NAME, "https://h/c?sig=x\n")
    (tmp_path / "link").write_bytes(b"\xef\xbb\xbfhttps://h/c?sig=x\r\n")
    for reference in (
        SecretReference(env=NAME),
        SecretReference(file=tmp_path / "link"),
        SecretReference(command="echo 'https://h/c?sig=x'"),
    ):
        assert read_secret_blocking(reference, "source") == Secret("https://h/c?sig=x")
        assert asyncio.run(read_secret(reference, "source")).text == "https://h/c?sig=x"


def test_a_pipe_is_read_once_its_writer_ends(tmp_path: Path) -> None:
    """A file that is a FIFO is read until its writer ends, as from a program that decrypts it."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("secret\n"))
    writer.start()
    assert read_secret_blocking(SecretReference(file=tmp_path / "pipe"), "token").text == "secret"
    writer.join(10)


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        (SecretReference(env=NAME), UsageError, f"the variable {NAME} of token is empty or not set"),
        (SecretReference(env="HOME_OF_NOBODY"), UsageError, "the variable HOME_OF_NOBODY of token is empty or not set"),
        (SecretReference(file=Path("/nonexistent/t")), UsageError, "the file /nonexistent/t of token cannot be read"),
        (SecretReference(file=Path("/")), UsageError, "the file / of token cannot be read"),
        (SecretReference(command="true"), UsageError, "a command of token is empty or not set"),
        (SecretReference(command="false"), NotAuthorised, "the command of token failed with exit code 1"),
        (SecretReference(command="/nonexistent/program"), NotAuthorised, "the command of token cannot be run"),
        (SecretReference(command="'"), UsageError, "the command of token cannot be read"),
    ],
)
def test_missing_and_empty_secrets(
    reference: SecretReference, kind: type[TilesyncError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that is missing or empty is an error that names its place and its key in the file."""
    monkeypatch.setenv(NAME, " \n")
    with pytest.raises(kind) as caught:
        read_secret_blocking(reference, "token")
    assert message in str(caught.value)


def test_an_empty_file_and_an_unreadable_one(tmp_path: Path) -> None:
    """A file that is empty or no text is an error, which does not show what is in it."""
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UsageError, match="empty of token is empty or not set"):
        read_secret_blocking(SecretReference(file=tmp_path / "empty"), "token")
    (tmp_path / "key").write_bytes(b"secret\xff\xfe")
    with pytest.raises(UsageError, match="of share-key cannot be read") as caught:
        read_secret_blocking(SecretReference(file=tmp_path / "key"), "share-key")
    assert "secret\\xff" not in str(caught.value)


def test_identities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of identity is made from its references; without any, that of the environment counts."""
    monkeypatch.setenv(NAME, "s3cret")
    variable, file = SecretReference(env=NAME), SecretReference(file=tmp_path / "t")
    cases: list[tuple[Credentials, Auth | None]] = [
        (Credentials(), None),
        (Credentials(token=variable), Token(Secret("s3cret"))),
        (Credentials(token=file), TokenFile(tmp_path / "t")),
        (Credentials(token=SecretReference(command="print-token")), TokenCommand("print-token")),
        (Credentials(share_key=variable), ShareKey(Secret("s3cret"))),
        (Credentials(client_id="c", client_secret=variable), ClientCredentials("c", Secret("s3cret"))),
        (
            Credentials(client_id="c", client_secret=variable, issuer_url="https://ims"),
            ClientCredentials("c", Secret("s3cret"), "https://ims"),
        ),
    ]
    for credentials, auth in cases:
        assert asyncio.run(create_auth(credentials)) == auth
