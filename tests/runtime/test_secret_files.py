"""Test secrets in variables and in the files that variables name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilesync.errors import UsageError
from tilesync.runtime.safe_open import MAX_SMALL_FILE_BYTES
from tilesync.runtime.secret_files import read_secret

NAME = "ITP_SERVICE_CLIENT_SECRET"


def test_a_variable_is_read_as_it_is() -> None:
    """Without a file the variable counts; an unset one is an empty text."""
    assert read_secret(NAME, {NAME: " hush "}) == " hush "
    assert read_secret(NAME, {}) == ""
    assert read_secret(NAME, {f"{NAME}_FILE": ""}) == ""


@pytest.mark.parametrize("text", ["hush", "hush\n", "\ufeffhush\r\n", " hush "])
def test_the_text_of_a_file_is_read_through_a_symlink(tmp_path: Path, text: str) -> None:
    """White space and a byte order mark are dropped; Kubernetes mounts secrets as symlinks."""
    (tmp_path / "data").write_text(text, encoding="utf-8")
    (tmp_path / "secret").symlink_to("data")
    assert read_secret(NAME, {f"{NAME}_FILE": str(tmp_path / "secret")}) == "hush"


def create_unreadable(path: Path, kind: str) -> None:
    """Create a file that is no secret."""
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind != "No such file":
        content = {"empty": b"\n", "no UTF-8": b"\xc3\x28", "longer": b"a" * (MAX_SMALL_FILE_BYTES + 1)}
        path.write_bytes(content[kind])


@pytest.mark.parametrize("kind", ["No such file", "empty", "no UTF-8", "longer", "a FIFO", "a folder"])
def test_a_file_without_a_secret_is_a_usage_error(tmp_path: Path, kind: str) -> None:
    """The message names the variable, the path and the reason; a FIFO is refused at once."""
    create_unreadable(tmp_path / "secret", kind)
    with pytest.raises(UsageError) as raised:
        read_secret(NAME, {f"{NAME}_FILE": str(tmp_path / "secret")})
    assert f"{NAME}_FILE" in str(raised.value)
    assert str(tmp_path / "secret") in str(raised.value)
    assert kind in str(raised.value)
    assert raised.value.hint


def test_a_variable_and_its_file_are_refused(tmp_path: Path) -> None:
    """If both are set, the error says which to unset, and quotes neither secret."""
    (tmp_path / "secret").write_text("hush-1")
    with pytest.raises(UsageError, match=f"both {NAME} and {NAME}_FILE are set") as raised:
        read_secret(NAME, {NAME: "hush-2", f"{NAME}_FILE": str(tmp_path / "secret")})
    assert "hush" not in str(raised.value) + raised.value.hint
