"""Foreign or damaged documents give an exit code and a sentence, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, export
from tests.support.commandline import CommandResult, run_tilesync
from tests.support.s3 import ENVIRONMENT, BucketServer
from tests.support.simulator import EXPORT, Simulator
from tilesync.errors import DestinationError
from tilesync.stores.local.destination import open_local_read_only
from tilesync.stores.opening import Mode

MANIFEST = f"manifests/{EXPORT}.jsonl"
DEEP_JSON = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a destination with one version."""
    dest = tmp_path_factory.mktemp("published") / "dest"
    with Simulator() as sim:
        sim.offer_export(export(2))
        assert sim.mirror(dest).exit_code == 0
    return dest


@pytest.fixture
def dest(published: Path, tmp_path: Path) -> Path:
    """Make a copy of the destination, to be damaged."""
    shutil.copytree(published, tmp_path / "dest", symlinks=True)
    return tmp_path / "dest"


def change_header(**changes: Any) -> Callable[[str], str]:
    """Change the first line of a manifest."""

    def change(text: str) -> str:
        first, _, rest = text.partition("\n")
        return f"{json.dumps({**json.loads(first), **changes})}\n{rest}"

    return change


def change_first_row(**changes: Any) -> Callable[[str], str]:
    """Change the line of a file in a manifest."""

    def change(text: str) -> str:
        first, second, rest = text.split("\n", 2)
        return f"{first}\n{json.dumps({**json.loads(second), **changes})}\n{rest}"

    return change


DAMAGES: dict[str, Callable[[str], str]] = {
    "deep": lambda text: DEEP_JSON + "\n",
    "deep field": lambda text: text.replace('"include":[]', f'"include":{DEEP_JSON}'),
    "Infinity": lambda text: text.replace('"missing":0', '"missing":Infinity'),
    "1e999": lambda text: text.replace('"missing":0', '"missing":1e999'),
    "NaN": change_first_row(size=float("nan")),
    "a list": lambda text: "[]\n" + text,
    "no export": change_header(export=None),
    "odd export": change_header(export={"id": ["e1"]}),
    "odd counts": change_header(files={}),
    "odd moment": change_header(finished="yesterday"),
    "lone surrogate": change_first_row(name="tiles/\ud800.glb"),
    "odd name": change_first_row(name=5),
    "odd type": change_first_row(content_type={"a": 1}),
    "huge size": change_first_row(size=1 << 64),
    "not UTF-8": lambda text: "\udcff" + text,
}
"""Ways to damage a manifest."""


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest(dest: Path, damage: str) -> None:
    """`verify` reports it, `versions` warns, a run without the catalog ignores the version, and one that reads
    from there refuses; all in words.
    """
    path = dest / MANIFEST
    before = path.read_text()
    after = DAMAGES[damage](before)
    assert after != before
    path.write_bytes(after.encode(errors="surrogateescape"))
    result = run_tilesync("verify", dest, "--json")
    assert (result.exit_code, result.last_line["error"]) == (10, "VerifyFailed")
    assert f"manifests/{EXPORT}.jsonl" in result.stdout
    done = run_tilesync("mirror", dest, dest.with_name("copy"), "--json")
    assert (done.exit_code, done.last_line["error"]) in {(3, "Incomplete"), (4, "NoExport")}, done.stderr


@pytest.mark.parametrize("damage", ["deep", "NaN", "lone surrogate", "huge size"])
def test_a_lost_catalog_and_a_damaged_manifest(dest: Path, damage: str) -> None:
    """The version is not taken over, its files stay, and the export is mirrored as another version."""
    path = dest / MANIFEST
    path.write_text(DAMAGES[damage](path.read_text()))
    for catalog in (dest / ".tilesync").glob("catalog.sqlite3*"):
        catalog.unlink()
    assert run_tilesync("versions", dest, "--json").exit_code == (8 if damage == "deep" else 0)
    with Simulator() as sim:
        sim.offer_export(export(2))
        done = run_tilesync("mirror", IMODEL, dest, "--json", sim=sim)
    assert (done.exit_code, done.last_line["version"]) == (0, f"{EXPORT}-2"), done.stderr
    assert f"version {EXPORT} cannot be added to the catalog" in done.stderr
    assert (dest / "versions" / EXPORT / "tileset.json").is_file()


@pytest.mark.parametrize(
    "message",
    [
        DEEP_JSON,
        '{"version": Infinity, "manifest": 1}',
        '{"version": {}, "manifest": "m"}',
        '{"version": "\\ud800"}',
        "[]",
        "",
    ],
    ids=["deep", "Infinity", "other types", "lone surrogate", "a list", "empty"],
)
def test_a_damaged_latest_json(dest: Path, message: str) -> None:
    """A damaged latest.json counts as missing: the next run writes it, and commands that need it say so."""
    whole = (dest / "latest.json").read_text()
    (dest / "latest.json").write_text(message)
    assert run_tilesync("versions", dest, "--json").exit_code == 0
    result = run_tilesync("verify", dest, "--json")
    assert (result.exit_code, result.last_line["error"]) == (10, "VerifyFailed")
    with Simulator() as sim:
        sim.offer_export(export(2))
        done = run_tilesync("mirror", IMODEL, dest, "--json", sim=sim)
    assert done.exit_code == 0, done.stderr
    assert json.loads((dest / "latest.json").read_text())["version"] == json.loads(whole)["version"]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("UPDATE meta SET value='four' WHERE key='schema'", "its schema is 'four', which is not a number"),
        ("UPDATE meta SET value='9999999999999999999' WHERE key='schema'", "which is not a number"),
        ("UPDATE meta SET value='4.5' WHERE key='schema'", "its schema is '4.5'"),
        ("UPDATE meta SET value='round' WHERE key='layout'", "'round' is not a valid Layout"),
        ("UPDATE version SET content='boxed'", "'boxed' is not a valid Content"),
        ("UPDATE version SET include='{'", "Expecting"),
    ],
)
def test_a_damaged_catalog(dest: Path, sql: str, why: str) -> None:
    """A damaged catalog: exit 8 with the problem and the file to delete; after that nothing is lost."""
    catalog = dest / ".tilesync/catalog.sqlite3"
    with closing(sqlite3.connect(catalog)) as db, db:
        assert db.execute(sql).rowcount
    with Simulator() as sim:
        sim.offer_export(export(2))
        done = run_tilesync("mirror", IMODEL, dest, "--json", sim=sim)
        assert (done.exit_code, done.last_line["error"]) == (8, "DestinationError"), done.stderr
        assert f"the catalog is damaged ({why}" in done.last_line["message"] or why in done.last_line["message"]
        assert f"delete {catalog}" in done.last_line["hint"]
        for path in catalog.parent.glob("catalog.sqlite3*"):
            path.unlink()
        assert run_tilesync("mirror", IMODEL, dest, "--json", sim=sim).exit_code == 0


def test_a_damaged_record_costs_nothing(dest: Path) -> None:
    """A damaged export record is printed as far as possible, and has no effect."""
    with closing(sqlite3.connect(dest / ".tilesync/catalog.sqlite3")) as db, db:
        db.execute("UPDATE version SET record=?", (DEEP_JSON,))
    with Simulator() as sim:
        sim.offer_export(export(2))
        done = run_tilesync("mirror", IMODEL, dest, "--json", sim=sim)
    assert (done.exit_code, done.last_line["fetched"]) == (0, 0), done.stderr


ODD_VALUES: list[Any] = [5, None, {}, [], True, 1e300, "\ud800", "x" * 100_000]


@pytest.mark.parametrize("value", ODD_VALUES, ids=[ascii(value)[:12] for value in ODD_VALUES])
def test_odd_values_in_the_rows_of_the_service(tmp_path: Path, value: Any) -> None:
    """Fields of a wrong type count as missing; half of a surrogate pair is replaced."""
    with Simulator() as sim:
        sim.offer_export(export(2))
        sim.exports[0] |= {
            "displayName": value,
            "lastModified": value,
            "error": value,
            "stats": {"compressedSize": value},
        }
        sim.exports[0]["request"] = {"changesetId": value}
        if not isinstance(value, str):
            sim.exports[0]["request"] |= {"iModelId": value, "exportType": value}
        row = {**sim.exports[0], "_links": {"mesh": {"href": sim.create_link(EXPORT)}}}
        sim.respond_api = always_respond({"exports": [row], "_links": value})  # type: ignore[method-assign, assignment]  # any page
        done = run_tilesync("mirror", IMODEL, tmp_path / "dest", "--json", "--retry-for=0s", "--wait=0s", sim=sim)
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "dest" / MANIFEST).read_text().splitlines()[0])["export"]["id"] == EXPORT


def always_respond(document: Any) -> Callable[[Any], Any]:
    """Let the API always send the same response."""
    from tilesync.demo.loopback_server import FakeResponse

    return lambda request: FakeResponse(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


# --- manifests/ that cannot be looked into ---


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run a block with the rights of the user nobody."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_manifests_is_a_file(dest: Path) -> None:
    """If `manifests` is a file: exit 8; DEST is not taken for a folder without versions."""
    shutil.rmtree(dest / "manifests")
    (dest / "manifests").write_text("")
    done = run_tilesync("versions", dest, "--json")
    assert (done.exit_code, done.last_line["error"]) == (8, "DestinationError"), done.stderr
    assert f"cannot read {dest / 'manifests'}" in done.last_line["message"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may become another user")
def test_manifests_cannot_be_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    """If `manifests` cannot be read, the error says so; DEST is not taken for a folder without versions."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        manifests = Path(folder) / "manifests"
        manifests.mkdir(mode=0o700)
        (manifests / "e1.jsonl").write_text("{}")
        with (
            open_local_read_only(Path(folder), Mode.READ) as destination,
            as_nobody(),
            pytest.raises(DestinationError, match="Permission denied"),
        ):
            destination.publication.manifest_names()


# --- nobody's home ---


def run_without_home(*words: str, **env: str) -> CommandResult:
    """Run the program for an unknown user, without HOME."""
    code = (
        "import os, pwd, sys\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"
        "from tilesync.cli.main import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return CommandResult(done.returncode, done.stdout, done.stderr)


def test_no_home_for_the_state(bucket_server: BucketServer) -> None:
    """Without a home folder: exit 2 with the option to use; no folder `~` is made."""
    place, server = f"s3://{bucket_server.new_bucket()}/there", {"TILESYNC_ENDPOINT_URL": bucket_server.url}
    done = run_without_home("versions", place, "--json", **ENVIRONMENT, **server)
    assert (done.exit_code, done.last_line["error"]) == (2, "UsageError"), done.stderr
    assert "this user has no home folder" in done.last_line["message"]
    assert "--state-dir" in done.last_line["hint"]
    assert not Path("~").exists()


def test_no_home_in_a_source(tmp_path: Path) -> None:
    """Without a home folder a path with `~` is a usage error."""
    done = run_without_home("mirror", "~/somewhere", str(tmp_path / "dest"), "--json")
    assert (done.exit_code, done.last_line["error"]) == (2, "UsageError"), done.stderr
    assert "does not exist" in done.last_line["message"]
