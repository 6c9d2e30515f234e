"""Secrets of the environment are masked in texts and events."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.sample_secrets import LINK, SIG
from tilesync.api.masking import LINK_VARIABLES, SECRET_OPTION_VARIABLES, SECRET_VARIABLES, SecretMasker
from tilesync.events import FileFailed, Warned
from tilesync.runtime.secret_files import SECRETS_WITH_FILE


@pytest.mark.parametrize("name", [*SECRET_VARIABLES, *SECRET_OPTION_VARIABLES])
def test_the_value_of_a_secret_variable_is_masked(name: str) -> None:
    """The value is masked wherever a text quotes it, and the rest of the text stays."""
    masker = SecretMasker({name: "plain-words-as-a-secret"})
    text = masker.mask_text("the library said: plain-words-as-a-secret is wrong")
    assert "plain-words" not in text
    assert text.startswith("the library said: ")
    assert text.endswith(" is wrong")


@pytest.mark.parametrize("name", LINK_VARIABLES)
def test_the_signature_of_a_link_variable_is_masked(name: str) -> None:
    """Of a link only the signature is a secret: it is masked without its link too, as written and decoded."""
    masker = SecretMasker({name: LINK})
    for signature in (SIG, quote(SIG, safe="")):
        assert masker.mask_text(f"signature {signature} does not match") == "signature … does not match"


@pytest.mark.parametrize("name", SECRETS_WITH_FILE)
def test_a_secret_in_a_file_is_masked(tmp_path: Path, name: str) -> None:
    """The text of the file in NAME_FILE is masked as the variable is; a missing file has nothing to mask."""
    masker = SecretMasker({f"{name}_FILE": str(tmp_path / "secret")})
    assert masker.mask_text("plain-words-as-a-secret") == "plain-words-as-a-secret"
    (tmp_path / "secret").write_text("plain-words-as-a-secret\n")
    masker = SecretMasker({f"{name}_FILE": str(tmp_path / "secret")})
    assert masker.mask_text("it is plain-words-as-a-secret") == "it is …"


def test_names_and_unset_variables_are_kept() -> None:
    """Without secrets a text stays, and an event is the same object."""
    masker, event = SecretMasker({}), Warned("nothing secret")
    assert masker.mask_text("nothing secret") == "nothing secret"
    assert masker.mask_event(event) is event


def test_sentences_of_an_event_are_masked_and_file_names_are_not() -> None:
    """The message about a failed file may quote a server; its name is needed as it is."""
    masker = SecretMasker({"TILESYNC_TOKEN": "token-of-a-test"})
    event = masker.mask_event(FileFailed("token-of-a-test.glb", "BlobError", "refused: token-of-a-test"))
    assert isinstance(event, FileFailed)
    assert event.name == "token-of-a-test.glb"
    assert "token-of-a-test" not in event.message
