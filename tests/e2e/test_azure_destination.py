"""Test an Azure destination end to end, on Azurite: publish, resume, renew links, verify, and view."""

from __future__ import annotations

import gzip
import json
import random
import re
import signal
import sqlite3
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import faults
from tests.support.azure_proxy import AzureFixture, kill_at_random_times, refuse_uploads
from tests.support.azurite import ACCOUNT, KEY, Azurite, ProxiedRequest, RefusedResponse, signed_link
from tests.support.builders import export, glb, glb_with_image, md5_base64, tileset
from tests.support.city_editions import small_city
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator
from tests.support.viewers import Browser, view_url

IMMUTABLE = "public, max-age=31536000, immutable"


# --- whole ---


def test_an_export_is_published_ready_to_be_served(azure_store: AzureFixture, sim: Simulator) -> None:
    """Every file lies in its version, and is served as what it is; the pointer is asked for anew each time; a second
    run moves nothing.
    """
    packed = gzip.compress(glb(b"packed"), mtime=0)
    files = sim.offer_export({**export(30), "tiles/packed.glb": packed, "a/picture.png": b"\x89PNG\r\n\x1a\n1"})
    run = azure_store.mirror(sim)
    assert (run.exit_code, run.last_line["fetched"], run.last_line["published"]) == (0, len(files), True), run.stderr
    azure_store.assert_published(EXPORT, files)
    served = {}
    for blob in azure_store.client.list_blobs():
        settings = blob.content_settings
        served[blob.name] = (settings.content_type, settings.content_encoding or "", settings.cache_control)
        assert bytes(settings.content_md5 or b"")
    assert served["tileset.json"] == served["latest.json"] == ("application/json", "", "no-cache")
    lead = f"versions/{EXPORT}/"
    assert served[f"{lead}tileset.json"] == ("application/json", "", IMMUTABLE)
    assert served[f"{lead}tiles/001.glb"] == ("model/gltf-binary", "", IMMUTABLE)
    assert served[f"{lead}tiles/packed.glb"] == ("model/gltf-binary", "gzip", IMMUTABLE)
    assert served[f"{lead}a/picture.png"][0] == "image/png"
    azure_store.clear_requests()
    again = azure_store.mirror(sim)
    assert (again.exit_code, again.last_line["kept"], again.last_line["published"]) == (0, len(files), False)
    assert not azure_store.transfer_requests()
    assert (
        len(azure_store.proxy.requests) <= 13
    )  # one of them a page of the files, to see that they lie there; one says when


def test_unchanged_files_are_copied_inside_the_store(azure_store: AzureFixture, sim: Simulator) -> None:
    """The second export reuses files of the first by copies inside the store, without a transfer of bytes."""
    sim.offer_export(export(40))
    assert azure_store.mirror(sim).exit_code == 0
    files = sim.offer_export(export(44), export_id=OTHER_EXPORT)
    azure_store.clear_requests()
    run = azure_store.mirror(sim)
    assert run.exit_code == 0, run.stderr
    assert run.last_line["reused"] >= 40
    assert run.last_line["fetched"] + run.last_line["reused"] == len(files)
    azure_store.assert_published(OTHER_EXPORT, files)
    put = {each.blob for each in azure_store.transfer_requests() if each.method == "PUT"}
    assert len(put) == run.last_line["fetched"]


def test_a_lost_state_costs_a_listing(azure_store: AzureFixture, sim: Simulator) -> None:
    """A machine without the state of a destination lists it, and transfers no file that is already correct."""
    files = sim.offer_export(export(40))
    assert azure_store.mirror(sim).exit_code == 0
    azure_store.clear_requests()
    run = azure_store.mirror(sim, XDG_STATE_HOME=str(azure_store.state.with_name("elsewhere")))
    assert (run.exit_code, run.last_line["kept"], run.last_line["fetched"]) == (0, len(files), 0), run.stderr
    assert not [each for each in azure_store.transfer_requests() if each.blob.rpartition("/")[2] != "tileset.json"]
    lists = [each for each in azure_store.proxy.requests if each.query.get("prefix") == f"versions/{EXPORT}/"]
    assert len(lists) == 1


@pytest.mark.long
@pytest.mark.parametrize("state", ["lost", "kept"])
def test_files_stored_before_a_kill_are_not_sent_again(azure_store: AzureFixture, sim: Simulator, state: str) -> None:
    """An interrupted run is continued by the same machine, or by another one after the lock has expired."""
    files = sim.offer_export(export(60))
    stuck = threading.Event()

    def jam(passing: ProxiedRequest) -> RefusedResponse | None:
        if passing.method == "PUT" and "versions/" in passing.blob and passing.blob_request_number > 40:
            stuck.set()
            return RefusedResponse(503, "ServerBusy")
        return None

    azure_store.proxy.intercept = jam
    running = azure_store.start_mirror(sim, "--transfers", "4", "--retry-for", "5m")
    assert stuck.wait(30)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    azure_store.proxy.intercept = lambda passing: None
    there = set(azure_store.blobs(f"versions/{EXPORT}/"))
    assert there
    for catalog in azure_store.state.glob("tilesync/destinations/*/catalog.sqlite3"):
        with sqlite3.connect(catalog) as connection:  # as if nothing had been noted since the files were listed
            connection.execute("UPDATE blob SET state = 0 WHERE state = 1")
    azure_store.clear_requests()
    other = {"XDG_STATE_HOME": str(azure_store.state.with_name("elsewhere"))} if state == "lost" else {}
    run = azure_store.mirror(sim, **other)
    assert run.exit_code == 0, run.stderr
    assert ("waiting up to" in run.stderr) == (state == "lost")
    put = {each.blob.partition(f"{EXPORT}/")[2] for each in azure_store.transfer_requests() if each.method == "PUT"}
    assert not put & there
    azure_store.assert_published(EXPORT, files)


def test_after_a_lost_state_correct_files_are_not_sent_again(azure_store: AzureFixture, sim: Simulator) -> None:
    """If the state of an unfinished version is lost, correct files are kept, checked by their MD5."""
    files = sim.offer_export(export(60))
    stop = threading.Event()

    def jam(passing: ProxiedRequest) -> RefusedResponse | None:
        if passing.method == "PUT" and "versions/" in passing.blob and passing.blob_request_number > 40:
            stop.set()
            return RefusedResponse(403, "AuthorizationPermissionMismatch")
        return None

    azure_store.proxy.intercept = jam
    assert azure_store.mirror(sim, "--transfers", "4").exit_code == 5
    assert stop.is_set()
    azure_store.proxy.intercept = lambda passing: None
    there = set(azure_store.blobs(f"versions/{EXPORT}/"))
    assert there
    azure_store.clear_requests()
    run = azure_store.mirror(sim, XDG_STATE_HOME=str(azure_store.state.with_name("elsewhere")))
    assert run.exit_code == 0, run.stderr
    put = {each.blob.partition(f"{EXPORT}/")[2] for each in azure_store.transfer_requests() if each.method == "PUT"}
    assert not put & there
    azure_store.assert_published(EXPORT, files)


def test_a_plan_writes_nothing(azure_store: AzureFixture, sim: Simulator) -> None:
    """A dry run has the counts of a real run, and writes nothing to the store or the state."""
    files = sim.offer_export(export(10))
    run = azure_store.mirror(sim, "--dry-run")
    assert (run.exit_code, run.last_line["fetched"]) == (0, len(files)), run.stderr
    assert {each.method for each in azure_store.proxy.requests} <= {"GET", "HEAD"}
    assert azure_store.blobs() == {}
    assert not azure_store.state.exists()


def test_large_files_are_uploaded_in_blocks(azure_store: AzureFixture, sim: Simulator) -> None:
    """A file of many blocks is complete, with its MD5, also if its source breaks off half-way."""
    big = glb(random.Random(3).randbytes(9_500_000))
    files = sim.offer_export(
        {"tileset.json": tileset("big.glb", "big2.glb"), "big.glb": big, "big2.glb": big + b"\0" * 4}
    )

    def half(_: Any, proceed: Any) -> Any:
        answer = proceed()
        answer.sent_bytes = 5_000_000
        return answer

    sim.add_fault(faults.is_blob_named("big.glb"), half)
    run = azure_store.mirror(sim)
    assert run.exit_code == 0, run.stderr
    azure_store.assert_published(EXPORT, files)
    settings = azure_store.client.get_blob_client(f"versions/{EXPORT}/big.glb").get_blob_properties().content_settings
    assert (settings.content_type, bool(settings.content_md5)) == ("model/gltf-binary", True)
    assert [each.blob for each in azure_store.proxy.requests if each.query.get("comp") == "block"]


# --- versions ---


def test_versions_are_listed_rolled_back_verified_and_retired(azure_store: AzureFixture, sim: Simulator) -> None:
    """Versions are listed, rolled back to, verified and retired; a retired version loses its manifest at once."""
    first = sim.offer_export(export(5))
    assert azure_store.mirror(sim).exit_code == 0
    second = sim.offer_export(export(6), export_id=OTHER_EXPORT)
    assert azure_store.mirror(sim).exit_code == 0
    assert azure_store.run("versions", azure_store.destination_url).exit_code == 0
    assert azure_store.run("rollback", azure_store.destination_url).exit_code == 0
    azure_store.assert_published(EXPORT, first)
    assert azure_store.run("rollback", azure_store.destination_url, "--latest").exit_code == 0
    azure_store.assert_published(OTHER_EXPORT, second)
    assert azure_store.run("verify", azure_store.destination_url, "--all").exit_code == 0
    run = azure_store.mirror(sim, "--keep-versions", "1", "--keep-for", "0s")
    assert (run.exit_code, run.last_line["retired"]) == (0, 1), run.stderr
    assert list(azure_store.blobs("manifests/")) == [f"{OTHER_EXPORT}.jsonl"]
    azure_store.assert_published(OTHER_EXPORT, second)


def test_damaged_objects_are_found_and_fetched_again(azure_store: AzureFixture, sim: Simulator) -> None:
    """`verify` finds an object that was changed or deleted, and the next run fetches it again."""
    files = sim.offer_export(export(12))
    assert azure_store.mirror(sim).exit_code == 0
    azure_store.client.upload_blob(f"versions/{EXPORT}/tiles/003.glb", b"glTF no more", overwrite=True)
    azure_store.client.delete_blob(f"versions/{EXPORT}/tiles/004.glb")
    audit = azure_store.run("verify", azure_store.destination_url)
    assert (audit.exit_code, audit.last_line["error"]) == (10, "VerifyFailed")
    run = azure_store.mirror(sim)
    assert (run.exit_code, run.last_line["fetched"]) == (0, 2), run.stderr
    azure_store.assert_published(EXPORT, files)
    assert azure_store.run("verify", azure_store.destination_url).exit_code == 0


def test_a_quick_audit_lists_the_container(azure_store: AzureFixture, sim: Simulator) -> None:
    """A quick verify reads sizes from the listing, so that requests do not grow with the files; it finds changes."""
    sim.offer_export(export(200))
    assert azure_store.mirror(sim).exit_code == 0
    azure_store.clear_requests()
    assert azure_store.run("verify", azure_store.destination_url, "--quick").exit_code == 0
    assert len(azure_store.proxy.requests) <= 10
    azure_store.client.upload_blob(f"versions/{EXPORT}/tiles/003.glb", b"glTF no more", overwrite=True)
    azure_store.client.delete_blob(f"versions/{EXPORT}/tiles/004.glb")
    audit = azure_store.run("verify", azure_store.destination_url, "--quick")
    assert (audit.exit_code, audit.last_line["error"]) == (10, "VerifyFailed")
    assert re.search(r"tiles/003\.glb.*bytes, the manifest says", audit.stderr)
    assert re.search(r"tiles/004\.glb.*is not there", audit.stderr)
    assert "2 problems found" in audit.last_line["message"]


# --- killed ---


@pytest.mark.parametrize("seed", [1, 2])
def test_runs_killed_at_random_moments_end_complete(azure_store: AzureFixture, sim: Simulator, seed: int) -> None:
    """After a kill, the next run takes its own lease over at once and continues; nothing partial is published."""
    dice = random.Random(seed)
    files = sim.offer_export({**export(120, seed=seed), "tiles/big.glb": glb(dice.randbytes(6_000_000))})
    kill_at_random_times(azure_store, sim, dice)
    azure_store.assert_published(EXPORT, files)
    assert azure_store.run("verify", azure_store.destination_url).exit_code == 0


# --- links ---


def short_lived_link(azure_store: AzureFixture, life: float) -> str:
    """Make a short-lived link to the container, through the proxy."""
    link = signed_link(azure_store.url, life=timedelta(seconds=life))
    return f"{azure_store.proxy.url}/{ACCOUNT}/{azure_store.container}?{link.query}"


def link_command(azure_store: AzureFixture, life: float, folder: Path) -> str:
    """Return a command that prints a new link each time."""
    code = (
        "import sys, datetime; from azure.storage.blob import generate_container_sas as sas;"
        f"end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={life});"
        f"q = sas({ACCOUNT!r}, {azure_store.container!r}, {KEY!r},"
        " protocol='https,http', permission='racwdl', expiry=end);"
        f"print({f'{azure_store.proxy.url}/{ACCOUNT}/{azure_store.container}?'!r} + q)"
    )
    script = folder / "mint.py"
    script.write_text(code)
    return f"{sys.executable} {script}"


def test_both_links_end_in_mid_run_and_are_renewed(azure_store: AzureFixture, sim: Simulator, tmp_path: Path) -> None:
    """A run that takes longer than the links of source and destination live renews both, and publishes."""
    files = sim.offer_export(export(150))
    sim.link_lifetime, sim.delay_s, azure_store.proxy.delay_s = timedelta(seconds=2), 0.03, 0.02
    link, mint = short_lived_link(azure_store, 3), link_command(azure_store, 3, tmp_path)
    run = azure_store.mirror(sim, "--transfers", "2", "--dest-link-command", mint, TILESYNC_DEST=link, dest=link)
    assert run.exit_code == 0, run.stderr
    assert run.last_line["seconds"] > 3
    assert run.last_line["renewals"] >= 2
    azure_store.assert_published(EXPORT, files)


def test_an_expired_link_without_a_command_ends_with_5(azure_store: AzureFixture, sim: Simulator) -> None:
    """An expired link: exit 5 with a hint; the next run with a fresh link continues."""
    files = sim.offer_export(export(400))
    sim.delay_s = 0.05
    run = azure_store.mirror(sim, "--transfers", "2", dest=short_lived_link(azure_store, 6))
    assert (run.exit_code, run.last_line["error"]) == (5, "NotAuthorised"), run.stderr
    assert "--dest-link-command" in run.last_line["hint"]
    there = set(azure_store.blobs(f"versions/{EXPORT}/"))
    assert there
    assert "tileset.json" not in {blob.name for blob in azure_store.client.list_blobs()}
    sim.delay_s = 0.0
    azure_store.clear_requests()
    again = azure_store.mirror(sim, dest=short_lived_link(azure_store, 600))
    assert again.exit_code == 0, again.stderr
    put = {each.blob.partition(f"{EXPORT}/")[2] for each in azure_store.transfer_requests() if each.method == "PUT"}
    assert len(put & there) <= 8  # what arrived in the last quarter second
    azure_store.assert_published(EXPORT, files)


# --- refusals ---


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "error"),
    [
        (403, "AuthorizationPermissionMismatch", 5, "NotAuthorised"),
        (409, "BlobImmutableDueToPolicy", 8, "DestinationError"),
        (412, "LeaseIdMissing", 8, "DestinationError"),
        (503, "ServerBusy", 6, "Unavailable"),
    ],
)
def test_a_store_that_refuses_ends_the_run(
    azure_store: AzureFixture, sim: Simulator, status: int, code: str, exit_code: int, error: str
) -> None:
    """Each permanent refusal has its exit code and publishes nothing; when it is over, the next run continues."""
    files = sim.offer_export(export(10))
    azure_store.proxy.intercept = refuse_uploads(status, code)
    run = azure_store.mirror(sim, TILESYNC_RETRY_FOR="2s")
    assert (run.exit_code, run.last_line["error"]) == (exit_code, error), run.stderr
    assert run.last_line["hint"]
    azure_store.proxy.intercept = lambda passing: None
    assert "tileset.json" not in {blob.name for blob in azure_store.client.list_blobs()}
    assert azure_store.mirror(sim).exit_code == 0
    azure_store.assert_published(EXPORT, files)


def test_a_busy_store_is_retried(azure_store: AzureFixture, sim: Simulator) -> None:
    """Temporary refusals cost retries, and no file."""
    files = sim.offer_export(export(30))
    azure_store.proxy.intercept = refuse_uploads(503, "ServerBusy", times=12)
    run = azure_store.mirror(sim)
    assert run.exit_code == 0, run.stderr
    assert run.last_line["retries"] >= 12
    azure_store.assert_published(EXPORT, files)


def test_a_leased_lock_is_another_run(azure_store: AzureFixture, sim: Simulator) -> None:
    """A destination that another machine has locked is not touched; after the lock ends, its files are taken over."""
    sim.offer_export(export(3))
    lock = azure_store.client.get_blob_client(".tilesync/lock")
    lock.upload_blob(b"")
    lock.acquire_lease(lease_duration=15)
    began = time.monotonic()
    run = azure_store.mirror(sim)
    assert run.exit_code == 0, run.stderr
    assert 10 < time.monotonic() - began < 40
    assert "another run holds" in run.stderr


def test_unusable_containers_are_reported(azure_store: AzureFixture, sim: Simulator) -> None:
    """A missing container is created only on request; a foreign tileset is not touched."""
    sim.offer_export(export(3))
    missing = f"az://{ACCOUNT}/{azure_store.container}x"
    run = azure_store.mirror(sim, dest=missing)
    assert (run.exit_code, run.last_line["error"]) == (8, "DestinationError"), run.stderr
    assert "--create-container" in run.last_line["hint"]
    assert azure_store.mirror(sim, "--create-container", dest=missing).exit_code == 0
    azure_store.client.upload_blob("tileset.json", b"{}")
    run = azure_store.mirror(sim)
    assert (run.exit_code, run.last_line["error"]) == (8, "DestinationError")
    assert azure_store.read_json("tileset.json") == {}


def test_a_key_in_a_file(azure_store: AzureFixture, sim: Simulator, tmp_path: Path) -> None:
    """AZURE_STORAGE_KEY_FILE names a file with the key; a file that is missing ends the run with exit 2."""
    sim.offer_export(export(3))
    (tmp_path / "key").write_text(f"{KEY}\n")
    run = azure_store.mirror(sim, AZURE_STORAGE_KEY="", AZURE_STORAGE_KEY_FILE=str(tmp_path / "key"))
    assert run.exit_code == 0, run.stderr
    missing = azure_store.mirror(sim, AZURE_STORAGE_KEY="", AZURE_STORAGE_KEY_FILE=str(tmp_path / "none"))
    assert (missing.exit_code, missing.last_line["error"]) == (2, "UsageError")


def test_an_invalid_identity_ends_the_run_with_a_hint(azure_store: AzureFixture, sim: Simulator) -> None:
    """A wrong or invalid key ends the run with a hint; credentials of another account are ignored."""
    sim.offer_export(export(3))
    wrong = azure_store.mirror(sim, AZURE_STORAGE_KEY="d3Jvbmc=")
    assert (wrong.exit_code, wrong.last_line["error"]) == (5, "NotAuthorised"), wrong.stderr
    assert azure_store.mirror(sim, AZURE_STORAGE_KEY="no key").exit_code == 2
    endpoint = f"{azure_store.proxy.url}/another"
    text = f"DefaultEndpointsProtocol=http;AccountName=another;AccountKey={KEY};BlobEndpoint={endpoint};"
    assert azure_store.mirror(sim, AZURE_STORAGE_CONNECTION_STRING=text).exit_code == 0  # of the key
    text = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azure_store.proxy.url}/{ACCOUNT};"
    assert azure_store.mirror(sim, AZURE_STORAGE_CONNECTION_STRING=text).exit_code == 0
    token = signed_link(azure_store.url).query
    assert azure_store.mirror(sim, AZURE_STORAGE_KEY="", AZURE_STORAGE_SAS_TOKEN=f"?{token}").exit_code == 0


# --- copied by the storage ---


def large_export(count: int = 6) -> dict[str, bytes]:
    """Make an export with tiles larger than their first bytes; one references an image."""
    dice = random.Random(5)
    tiles = {f"{n}.glb": glb(dice.randbytes(60_000 + n)) for n in range(count)}
    image = glb_with_image("textures/a.png", dice.randbytes(50_000))
    root = tileset(*tiles, "i.glb")
    return {**tiles, "i.glb": image, "textures/a.png": b"\x89PNG" + dice.randbytes(70_000), "tileset.json": root}


def test_tiles_are_copied_between_containers(azure_store: AzureFixture, sim: Simulator) -> None:
    """Tiles are copied between containers, checked by MD5; their references are read from their first bytes; they
    are audited by MD5, and a version of them is rebuilt from its sidecar index.
    """
    files = sim.offer_export(large_export())
    azure_store.proxy.emulates_copy_from_url = True
    run = azure_store.mirror(sim, "--server-copy")
    assert (run.exit_code, run.last_line["fetched"], run.last_line["missing"]) == (0, len(files), 0), run.stderr
    azure_store.assert_published(EXPORT, files)
    assert run.last_line["bytes"] < 5000
    lines = [json.loads(line) for line in azure_store.blobs("manifests/")[f"{EXPORT}.jsonl"].splitlines()[1:]]
    proofs = {row["name"]: (row["sha256"], row.get("proof"), bool(row["md5"])) for row in lines}
    assert proofs["0.glb"] == proofs["textures/a.png"] == (None, "service-md5", True)
    assert proofs["tileset.json"][1:] == (None, True)
    assert proofs["tileset.json"][0]
    served = azure_store.client.get_blob_client(f"versions/{EXPORT}/0.glb").get_blob_properties().content_settings
    assert (served.content_type, served.cache_control) == ("model/gltf-binary", IMMUTABLE)
    assert azure_store.run("verify", azure_store.destination_url).exit_code == 0
    assert azure_store.mirror(sim, XDG_STATE_HOME=str(azure_store.state.with_name("elsewhere"))).last_line[
        "kept"
    ] == len(files)
    azure_store.client.upload_blob(f"versions/{EXPORT}/0.glb", files["1.glb"], overwrite=True)
    assert azure_store.run("verify", azure_store.destination_url).exit_code == 10


def test_missing_references_of_copied_tiles_are_reported(azure_store: AzureFixture, sim: Simulator) -> None:
    """An image that a copied tile references, and that the container lacks, is reported as missing."""
    files = large_export()
    del files["textures/a.png"]
    sim.offer_export(files)
    azure_store.proxy.emulates_copy_from_url = True
    run = azure_store.mirror(sim, "--server-copy")
    assert (run.exit_code, run.last_line["missing"]) == (3, 1), run.stderr


def test_without_server_side_copy_bytes_are_downloaded(azure_store: AzureFixture, sim: Simulator) -> None:
    """Azurite does not support such copies: this is reported once, and the export is still published."""
    files = sim.offer_export(large_export())
    run = azure_store.mirror(sim, "--server-copy")
    assert run.exit_code == 0, run.stderr
    assert run.stderr.count("no server-side copy from this source") == 1
    assert "x-ms-copy-source" not in json.dumps(
        [blob.copy.source for blob in azure_store.client.list_blobs()], default=str
    )
    azure_store.assert_published(EXPORT, files)


def test_a_blob_without_its_stated_md5_is_refused(azure_store: AzureFixture, sim: Simulator) -> None:
    """A blob without the MD5 that its container states is refused by the storage, and by the default path."""
    files = large_export()
    sim.offer_export(files)
    sim.containers[EXPORT]["0.glb"].md5 = md5_base64(b"other")
    azure_store.proxy.emulates_copy_from_url = True
    run = azure_store.mirror(sim, "--server-copy")
    assert (run.exit_code, run.last_line["failed"]) == (3, 1), run.stderr


def test_server_copy_to_a_folder_is_refused(azure_store: AzureFixture, sim: Simulator, tmp_path: Path) -> None:
    """--server-copy to a folder is refused: only a store can copy."""
    assert azure_store.mirror(sim, "--server-copy", dest=str(tmp_path / "d")).exit_code == 2


# --- streamed ---


@pytest.mark.parametrize("viewer", ["cesium", "three"])
def test_a_viewer_streams_a_city_from_the_container(
    browser: Browser, azurite: Azurite, azure_store: AzureFixture, sim: Simulator, viewer: str
) -> None:
    """A viewer reads a public container: no request fails, and nearly every tile is requested and drawn."""
    files = sim.offer_export(small_city())
    assert azure_store.mirror(sim).exit_code == 0
    azure_store.client.set_container_access_policy({}, public_access="blob")
    azurite.allow_cors()
    azure_store.clear_requests()
    flight = view_url(browser, viewer, f"{azure_store.proxy.url}/{ACCOUNT}/{azure_store.container}/tileset.json")
    assert flight.errors == []
    assert flight.loaded > 0
    assert any(0.01 < share < 0.99 for share in flight.drawn_shares())
    assert {status for _, status in azure_store.proxy.answered} <= {200, 304}
    names = {each.blob.removeprefix(f"versions/{EXPORT}/") for each in azure_store.proxy.requests} - {"tileset.json"}
    assert names <= files.keys()
    assert len(names) >= 0.9 * (len(files) - 1)
