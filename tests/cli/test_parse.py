"""Test how options become arguments of the Python API: identity and source."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.builders import IMODEL
from tests.support.commandline import CommandResult, run_tilesync
from tests.support.simulator import EXPORT, Simulator
from tilesync.demo.loopback_server import FakeRequest, FakeResponse


def test_a_bad_link_is_not_repeated(tmp_path: Path) -> None:
    """An invalid link is not printed: it may contain a signature."""
    done = run_tilesync("mirror", "-", tmp_path, "--json", stdin="ftp://account/container?sig=HUSH\n")
    assert done.exit_code == 2
    assert "HUSH" not in done.stdout + done.stderr


def test_a_token_file_and_a_token_command(service: Simulator, tmp_path: Path) -> None:
    """--token-file and --token-command replace TILESYNC_TOKEN."""
    (tmp_path / "token").write_text("demo\n")
    for number, option in enumerate(
        (("--token-file", tmp_path / "token"), ("--token-command", f"cat {tmp_path / 'token'}"))
    ):
        done = run_tilesync("mirror", IMODEL, tmp_path / str(number), *option, TILESYNC_API_URL=service.url)
        assert done.exit_code == 0, done.stderr


def test_a_link_has_no_history(service: Simulator, tmp_path: Path) -> None:
    """--all-exports with a container link is a usage error."""
    link = service.create_link(EXPORT)
    done = run_tilesync("mirror", "-", tmp_path, "--all-exports", "--json", stdin=link, sim=service)
    done.assert_failed(2, "UsageError")


def test_a_client_secret_in_a_file(service: Simulator, tmp_path: Path) -> None:
    """ITP_SERVICE_CLIENT_SECRET_FILE names a file with the secret: that is sent, and printed nowhere."""
    asked: list[bytes] = []

    def answer(request: FakeRequest) -> FakeResponse:
        asked.append(request.body)
        return FakeResponse(200, json.dumps({"access_token": service.token, "expires_in": 3600}).encode())

    service.token_answer = answer
    (tmp_path / "secret").write_text("TOPSECRET\n")
    path = str(tmp_path / "secret")

    def run(secret: str, file: str, client_id: str = "c") -> CommandResult:
        return run_tilesync(
            "mirror", IMODEL, tmp_path / "dest", "--json", TILESYNC_API_URL=service.url, ITP_ISSUER_URL=service.url,
            ITP_SERVICE_CLIENT_ID=client_id, ITP_SERVICE_CLIENT_SECRET=secret, ITP_SERVICE_CLIENT_SECRET_FILE=file,
        )  # fmt: skip

    done, both, neither = run("", path), run("other", path), run("", "")
    run("", str(tmp_path / "missing"), client_id="").assert_failed(5, "NotAuthorised")
    assert done.exit_code == 0, done.stderr
    assert b"client_secret=TOPSECRET" in asked[0].split(b"&")
    both.assert_failed(2, "UsageError")
    assert "ITP_SERVICE_CLIENT_SECRET_FILE" in neither.assert_failed(2, "UsageError")["hint"]
    assert "TOPSECRET" not in "".join(each.stdout + each.stderr for each in (done, both, neither))
