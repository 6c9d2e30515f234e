"""No secret is in any output or file of a run, even if the service or the storage quotes it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.azurite import KEY
from tests.support.builders import IMODEL, export
from tests.support.commandline import CommandResult, run_tilesync
from tests.support.faults import error_response, is_api, is_blob, is_listing
from tests.support.simulator import EXPORT, Simulator
from tilesync.demo.loopback_server import FakeResponse

TOKEN = "opaque-token-0123456789"
SIG = "c2lnbmF0dXJlIG9mIGEgdGVzdA+/="
LINK = f"https://other.blob.core.windows.net/e1?sv=2023-11-03&sp=rl&sig={quote(SIG, safe='')}"
SECRET_FORMS = {SIG, quote(SIG, safe=""), quote(SIG), quote(quote(SIG, safe=""), safe=""), TOKEN}


def read_everything(folder: Path) -> str:
    """Read everything below a folder as text; of a catalog every value of every row."""
    outputs = []
    for path in folder.rglob("*"):
        if path.is_file():
            outputs.append(path.read_bytes().decode("latin-1"))
        if path.name == "catalog.sqlite3":
            with closing(sqlite3.connect(path)) as db:
                tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
                outputs += [str(row) for table in tables for row in db.execute(f'SELECT * FROM "{table}"')]
    return "\n".join(outputs)


def assert_no_secret(*texts: str) -> None:
    """Assert that no form of any secret is in these texts."""
    for text in texts:
        for form in SECRET_FORMS:
            assert form not in text, text[max(0, text.index(form) - 200) : text.index(form) + 200]


def mirror_without_leaks(sim: Simulator, folder: Path, *options: str, **env: str) -> CommandResult:
    """Mirror with all kinds of output, and assert that none has a secret."""
    files = {"--report": folder / "report.json", "--log-file": folder / "log"}
    words = [str(word) for pair in files.items() for word in pair]
    done = run_tilesync("mirror", IMODEL, folder / "dest", "-v", "--json", *words, *options, sim=sim, **env)
    assert_no_secret(done.stdout, done.stderr, read_everything(folder))
    return done


@pytest.mark.parametrize("status", [401, 403, 404, 422, 500])
@pytest.mark.parametrize("quoted", [TOKEN, f"Bearer {TOKEN}", LINK, f'{{"token": "{LINK}"}}'])
def test_an_error_that_quotes_a_secret(tmp_path: Path, status: int, quoted: str) -> None:
    """The error message of the API is printed without the token and without links."""
    body = json.dumps({"error": {"code": "E", "message": f"no to {quoted}", "details": [{"message": quoted}]}})
    with Simulator() as sim:
        sim.token = TOKEN
        sim.offer_export()
        sim.add_fault(is_api, error_response(status, body=body.encode()), times=None)
        done = mirror_without_leaks(sim, tmp_path, "--retry-for", "0s")
    assert done.exit_code in {2, 4, 5, 6}
    assert status == 500 or "no to" in done.last_line["message"]


@pytest.mark.parametrize("how", ["file", "command"])
def test_a_token_that_is_no_variable(tmp_path: Path, how: str) -> None:
    """A token from a file or a command is masked too."""
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    option = ("--token-file", str(secret)) if how == "file" else ("--token-command", f"cat {secret}")
    (tmp_path / "run").mkdir()
    with Simulator() as sim:
        sim.token = TOKEN
        sim.add_fault(is_api, error_response(422, body=json.dumps({"error": {"message": f"not {TOKEN}"}}).encode()))
        done = run_tilesync("mirror", IMODEL, tmp_path / "run/dest", "--json", *option, TILESYNC_API_URL=sim.url)
    assert done.exit_code == 2
    assert_no_secret(done.stdout, done.stderr)
    assert "not …" in done.last_line["message"]


def test_a_token_endpoint_that_quotes_the_client_secret(tmp_path: Path) -> None:
    """Neither the client secret nor its encoded form is printed."""
    with Simulator() as sim:
        body = json.dumps({"error": {"message": f"client_secret {TOKEN} of client_secret={TOKEN}"}}).encode()
        sim.token_answer = lambda request: FakeResponse(401, body, {"Content-Type": "application/json"})
        done = run_tilesync(
            "mirror", IMODEL, tmp_path / "dest", "--json", TILESYNC_API_URL=sim.url, ITP_ISSUER_URL=sim.url,
            ITP_SERVICE_CLIENT_ID="service-1", ITP_SERVICE_CLIENT_SECRET=TOKEN,
        )  # fmt: skip
    assert (done.exit_code, done.last_line["error"]) == (5, "NotAuthorised")
    assert_no_secret(done.stdout, done.stderr)


@pytest.mark.parametrize("when", [is_listing, is_blob])
def test_an_error_of_the_storage_that_quotes_the_link(tmp_path: Path, when: Any) -> None:
    """Azure's error body has the string to sign: no part of it is printed."""
    body = f"<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code><Message>{LINK}</Message></Error>"
    with Simulator() as sim:
        sim.token = TOKEN
        sim.offer_export()
        sim.add_fault(when, error_response(400, body=body.encode(), x_ms_error_code=f"Odd {LINK}"), times=None)
        done = mirror_without_leaks(sim, tmp_path, "--retry-for", "0s")
    assert done.exit_code in {3, 5, 6}


ANYWHERE = st.sampled_from([LINK, f"see {LINK}", [LINK], {"href": LINK}, {"a": {"b": [LINK]}}, quote(LINK, safe="")])
FIELDS = st.sampled_from(["displayName", "name", "error", "stats", "request", "log", "result", "type", "owner"])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(FIELDS, ANYWHERE, min_size=1), st.dictionaries(st.sampled_from(["contextId", "url"]), ANYWHERE))
def test_a_link_in_any_field_of_a_record(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], inner: dict[str, Any]
) -> None:
    """The signature of a link in the record of an export is in no manifest, catalog, report, log or output."""
    folder = tmp_path_factory.mktemp("run")
    with Simulator() as sim:
        sim.offer_export(export(2))
        request = {"iModelId": IMODEL, "exportType": "3DTiles", **inner}
        sim.exports[0] |= {**fields, "request": request}
        done = mirror_without_leaks(sim, folder)
        rows = run_tilesync("exports", IMODEL, "--json", sim=sim)
    assert done.exit_code == 0, done.stderr
    assert_no_secret(rows.stdout, rows.stderr, (folder / f"dest/manifests/{EXPORT}.jsonl").read_text())


def test_an_older_catalog_with_more_fields(tmp_path: Path) -> None:
    """Export records of earlier versions can be read; a new manifest has known fields only."""
    with Simulator() as sim:
        sim.offer_export(export(2))
        assert mirror_without_leaks(sim, tmp_path).exit_code == 0
        with closing(sqlite3.connect(tmp_path / "dest/.tilesync/catalog.sqlite3")) as db, db:
            (record,) = db.execute("SELECT record FROM version").fetchone()
            db.execute("UPDATE version SET record = ?", (json.dumps({**json.loads(record), "log": LINK}),))
        (tmp_path / f"dest/manifests/{EXPORT}.jsonl").unlink()
        done = run_tilesync("mirror", IMODEL, tmp_path / "dest", "--json", sim=sim)
    assert done.exit_code == 0, done.stderr
    manifest = (tmp_path / f"dest/manifests/{EXPORT}.jsonl").read_text()
    assert_no_secret(manifest, done.stdout, done.stderr)
    assert json.loads(manifest.splitlines()[0])["export"].keys() >= {"id", "status", "request"}


@pytest.mark.parametrize("words", [("--transfers", LINK), ("--wait", LINK), (LINK,), ("--layout", LINK)])
def test_a_link_in_the_wrong_place(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A usage error that quotes an argument, as click does, quotes no signature."""
    report = tmp_path / "report.json"
    done = run_tilesync("mirror", IMODEL, tmp_path / "dest", *words, "--json", "--report", report)
    assert done.exit_code == 2
    assert_no_secret(done.stdout, done.stderr, report.read_text())


def test_secrets_of_the_environment_are_in_no_output(tmp_path: Path) -> None:
    """Secrets of the environment are in no output, whoever quotes them."""
    document = f"keys {KEY} and aws-secret-0123456789 and {LINK}"
    with Simulator() as sim:
        sim.add_fault(is_api, error_response(422, body=json.dumps({"error": {"message": document}}).encode()))
        done = run_tilesync(
            "mirror", IMODEL, tmp_path / "dest", "--json", sim=sim, AWS_SECRET_ACCESS_KEY="aws-secret-0123456789",
            AZURE_STORAGE_KEY=KEY,
        )  # fmt: skip
    assert_no_secret(done.stdout, done.stderr)
    assert "aws-secret" not in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
