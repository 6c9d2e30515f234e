"""Test ownership: a destination belongs to one iModel or container; another one is refused before any write."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_proxy import AzureFixture
from tests.support.builders import IMODEL, export, make_stored_blobs, read_tree
from tests.support.commandline import run_tilesync
from tests.support.s3 import BucketFixture, BucketServer
from tests.support.sequential_exports import FIRST, SECOND, offer_exports
from tests.support.simulator import EXPORT, JobOutcome, Simulator, read_latest, rollback, run_program, verify
from tilesync.core.guards import DEFAULT_DELETE_LIMIT
from tilesync.errors import DestinationError, OtherOwner
from tilesync.events import Notice, OwnerIdentified
from tilesync.model import Inventory, Layout, Selector

OTHER_IMODEL = "99999999-2222-3333-4444-555555555555"
OTHER_EXPORT = "dddddddd-0000-4000-8000-000000000009"
OTHER_SELECTOR = Selector(imodel=OTHER_IMODEL, export_type="3DTiles")


def offer_foreign_export(sim: Simulator) -> dict[str, bytes]:
    """Offer an export of another iModel; return its files."""
    files = export(14, seed=9)
    sim.add_export(OTHER_EXPORT, OTHER_IMODEL, make_stored_blobs(files))
    return files


def read_all_files(dest: Path) -> dict[str, bytes]:
    """Read all files of a folder, except locks."""
    return {name: data for name, data in read_tree(dest).items() if not name.endswith(("/lock", "-shm", "-wal"))}


def assert_other_owner(run: JobOutcome, *names: str) -> None:
    """Assert that a run was refused because of another owner, with these names and a hint."""
    assert isinstance(run.error, OtherOwner), run.error
    assert run.exit_code == 8
    assert all(name in str(run.error) for name in names)
    assert "--adopt (in a fleet file: adopt = true)" in run.error.hint
    assert "another DEST" in run.error.hint


@pytest.mark.parametrize("how", [{}, {"all_exports": True}, {"publish": False}, {"layout": Layout.FLAT}])
@pytest.mark.parametrize("recorded", [True, False])
def test_another_imodel_is_refused(tmp_path: Path, how: dict[str, Any], recorded: bool) -> None:
    """A run and a plan end with 8, name both owners, and change no byte of DEST; also in a destination that
    an older release made.
    """
    layout = {"layout": how["layout"], "delete_limit": DEFAULT_DELETE_LIMIT} if "layout" in how else {}
    how = how | layout
    with Simulator() as sim:
        sim.offer_export()
        assert sim.mirror(tmp_path, **layout).error is None
        if not recorded:
            home = tmp_path / ".tilesync" if layout else tmp_path
            latest = json.loads((home / "latest.json").read_text())
            del latest["owner"]
            (home / "latest.json").write_text(json.dumps(latest))
            (tmp_path / ".tilesync/ownership.json").unlink()
        offer_foreign_export(sim)
        before = read_all_files(tmp_path)
        sim.clear_requests()
        assert_other_owner(sim.mirror(tmp_path, selector=OTHER_SELECTOR, **how), IMODEL, OTHER_IMODEL)
        assert_other_owner(sim.dry_run(tmp_path, selector=OTHER_SELECTOR, **how), IMODEL, OTHER_IMODEL)
        assert sim.blob_requests() == []
        assert read_all_files(tmp_path) == before
        assert sim.mirror(tmp_path, **layout).error is None


def test_adopt_makes_the_other_imodel_the_owner(tmp_path: Path) -> None:
    """With `adopt` the other iModel becomes the owner, and the former one is refused."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        files = offer_foreign_export(sim)
        plan = sim.dry_run(tmp_path, selector=OTHER_SELECTOR, adopt=True)
        assert plan.error is None
        assert read_latest(tmp_path)["owner"] == IMODEL
        run = sim.mirror(tmp_path, selector=OTHER_SELECTOR, adopt=True)
        assert run.error is None, run.error
        assert [event.owner for event in run.events_of(OwnerIdentified)] == [IMODEL, OTHER_IMODEL]
        assert any(IMODEL in event.message and OTHER_IMODEL in event.message for event in run.events_of(Notice))
        assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == files
        assert (read_latest(tmp_path)["owner"], read_latest(tmp_path)["imodel"]) == (OTHER_IMODEL, OTHER_IMODEL)
        assert_other_owner(sim.mirror(tmp_path), IMODEL, OTHER_IMODEL)
        assert sim.mirror(tmp_path, selector=OTHER_SELECTOR).error is None


def test_the_new_owner_is_known_although_the_pointer_stays(tmp_path: Path) -> None:
    """If the pointer stays at a version of the old owner, the new owner is still known on every machine."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        offer_foreign_export(sim)
        assert sim.mirror(tmp_path, selector=OTHER_SELECTOR, adopt=True, publish=False).error is None
        assert (read_latest(tmp_path)["owner"], read_latest(tmp_path)["imodel"]) == (OTHER_IMODEL, IMODEL)
        shutil.rmtree(tmp_path / ".tilesync")
        assert_other_owner(sim.mirror(tmp_path), OTHER_IMODEL, IMODEL)
        assert sim.mirror(tmp_path, selector=OTHER_SELECTOR).error is None


@pytest.mark.parametrize("adopt", [False, True])
def test_the_owner_is_not_read_from_a_state_folder(tmp_path: Path, adopt: bool) -> None:
    """The owner is recorded in DEST, not in a state folder: an old record there does not count."""
    dest, one, two = tmp_path / "d", tmp_path / "one", tmp_path / "two"
    with Simulator() as sim:
        sim.offer_export()
        assert sim.mirror(dest, state_dir=one).error is None
        offer_foreign_export(sim)
        run = sim.mirror(dest, state_dir=two, selector=OTHER_SELECTOR, adopt=adopt)
        if not adopt:
            assert_other_owner(run, IMODEL, OTHER_IMODEL)
            assert not (two / "ownership.json").exists()
            return
        assert run.error is None
        assert_other_owner(sim.mirror(dest, state_dir=one), IMODEL, OTHER_IMODEL)


def run_interrupted(sim: Simulator, dest: Path) -> None:
    """Run a first mirror that fails half-way."""
    from tests.support.faults import error_response, is_blob

    fault = sim.add_fault(is_blob, error_response(404, "BlobNotFound"), skip=5)
    assert sim.mirror(dest).exit_code == 3
    sim.faults.remove(fault)


def test_an_interrupted_first_run_has_an_owner(tmp_path: Path) -> None:
    """A first run that failed half-way owns the folder: another iModel is refused, the same one continues."""
    with Simulator() as sim:
        sim.offer_export()
        run_interrupted(sim, tmp_path)
        offer_foreign_export(sim)
        assert_other_owner(sim.mirror(tmp_path, selector=OTHER_SELECTOR), IMODEL, OTHER_IMODEL)
        (tmp_path / ".tilesync/ownership.json").unlink()  # as the release before left it
        assert_other_owner(sim.mirror(tmp_path, selector=OTHER_SELECTOR), IMODEL, OTHER_IMODEL)
        assert sim.mirror(tmp_path).error is None


def test_ids_compare_without_case(tmp_path: Path) -> None:
    """The same iModel in another spelling is the same owner."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        assert sim.mirror(tmp_path, selector=Selector(imodel=IMODEL.upper(), export_type="3DTiles")).error is None
    assert read_latest(tmp_path)["owner"] == IMODEL


# --- what a run that got nothing leaves ---

UNREACHABLE = "https://acount.invalid/cont?sv=2020-01-01&sig=x"
NO_WAITING = {"retry_for": timedelta(), "wait": timedelta()}
MISTYPED_SOURCES: dict[str, dict[str, Any]] = {
    "a host that is none": {"link": UNREACHABLE},
    "a host that is none, by walk": {"link": UNREACHABLE, "inventory": Inventory.WALK},
    "an iModel without exports": {"selector": Selector(imodel=OTHER_IMODEL, export_type="3DTiles")},
}


@pytest.mark.parametrize("wrong", MISTYPED_SOURCES.values(), ids=MISTYPED_SOURCES)
@pytest.mark.parametrize("layout", list(Layout))
def test_a_mistyped_source_does_not_claim_the_destination(
    tmp_path: Path, wrong: dict[str, Any], layout: Layout
) -> None:
    """A run that stored nothing leaves no owner: the right SOURCE is planned and mirrored there without a word of
    the other, and so is a third one after the same mistake.
    """
    with Simulator() as sim:
        sim.offer_export()
        for _ in range(2):
            assert sim.mirror(tmp_path, **wrong, **NO_WAITING).exit_code in {4, 6}
        for look in (sim.dry_run, sim.mirror):
            run = look(tmp_path, layout=layout)
            assert run.error is None, run.error
            assert [event.owner for event in run.events_of(OwnerIdentified)][-1] == IMODEL
            assert not any("belong" in event.message for event in run.events_of(Notice))
        home = tmp_path / ".tilesync" if layout is Layout.FLAT else tmp_path
        assert json.loads((home / "latest.json").read_text())["owner"] == IMODEL
        assert verify(tmp_path).error is None
        offer_foreign_export(sim)
        assert sim.mirror(tmp_path, **wrong, **NO_WAITING).exit_code == 8
        assert_other_owner(sim.mirror(tmp_path, selector=OTHER_SELECTOR, layout=layout), IMODEL, OTHER_IMODEL)


def test_a_run_that_stored_nothing_leaves_no_owner(tmp_path: Path) -> None:
    """A run that stored nothing leaves no owner, also with another state folder."""
    dest, state = tmp_path / "d", tmp_path / "state"
    with Simulator() as sim:
        sim.offer_export()
        assert sim.mirror(dest, state_dir=state, link=UNREACHABLE, **NO_WAITING).exit_code == 6
        assert sim.mirror(dest, state_dir=state).error is None
    assert read_latest(dest)["owner"] == IMODEL


def test_a_container_that_lists_nothing_does_not_own_the_destination(tmp_path: Path) -> None:
    """An empty container leaves no owner; one that lists files does."""
    from tests.support.faults import error_response, is_blob

    with Simulator() as sim:
        sim.offer_export()
        sim.add_export(OTHER_EXPORT, OTHER_IMODEL, {})
        assert sim.mirror(tmp_path, link=sim.create_link(OTHER_EXPORT), **NO_WAITING).exit_code == 3
        fault = sim.add_fault(is_blob, error_response(404, "BlobNotFound"))
        assert sim.mirror(tmp_path).exit_code == 3
        sim.faults.remove(fault)
        assert_other_owner(sim.mirror(tmp_path, selector=OTHER_SELECTOR), IMODEL, OTHER_IMODEL)
        assert sim.mirror(tmp_path).error is None


def test_files_keep_their_owner_when_the_catalog_is_lost(tmp_path: Path) -> None:
    """Existing files have an owner, even if the catalog does not know them."""
    with Simulator() as sim:
        sim.offer_export()
        run_interrupted(sim, tmp_path)
        offer_foreign_export(sim)
        for path in (tmp_path / ".tilesync").glob("catalog*"):
            path.unlink()
        assert_other_owner(sim.mirror(tmp_path, selector=OTHER_SELECTOR), IMODEL, OTHER_IMODEL)
        assert_other_owner(sim.dry_run(tmp_path, selector=OTHER_SELECTOR), IMODEL, OTHER_IMODEL)
        assert sim.mirror(tmp_path).error is None


@pytest.mark.parametrize("before", [False, True])
def test_an_adopted_owner_counts_in_an_empty_destination(tmp_path: Path, before: bool) -> None:
    """After --adopt another iModel is refused, although nothing could be fetched yet."""
    with Simulator() as sim:
        sim.offer_export()
        for adopt in (False, True) if before else (True,):
            assert sim.mirror(tmp_path, selector=OTHER_SELECTOR, adopt=adopt, **NO_WAITING).exit_code == 4
        assert_other_owner(sim.mirror(tmp_path), IMODEL, OTHER_IMODEL)
        assert sim.mirror(tmp_path, adopt=True).error is None


def test_two_first_runs_at_once_do_not_mix(tmp_path: Path) -> None:
    """While one run fetches into an empty DEST, a run of another iModel is refused, and afterwards too."""
    from tests.support.faults import is_blob

    seen: list[JobOutcome] = []
    with Simulator() as sim:
        sim.offer_export()
        offer_foreign_export(sim)
        sim.run_before_request(1, is_blob, lambda: seen.append(sim.mirror(tmp_path, selector=OTHER_SELECTOR)))
        assert sim.mirror(tmp_path).error is None
        assert [run.exit_code for run in seen] in ([9], [8])  # by the lock, or by what lies there already
        assert_other_owner(sim.mirror(tmp_path, selector=OTHER_SELECTOR), IMODEL, OTHER_IMODEL)
    assert verify(tmp_path).error is None


# --- containers ---


def test_a_link_to_a_stored_export_has_the_same_owner(tmp_path: Path) -> None:
    """A link to an export that is stored here is accepted, any other link is refused; the owner stays."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        sim.mirror(tmp_path)
        offer_exports(sim, SECOND)
        offer_foreign_export(sim)
        before = read_all_files(tmp_path)
        assert_other_owner(sim.mirror(tmp_path, link=sim.create_link(OTHER_EXPORT)), IMODEL, OTHER_EXPORT)
        assert_other_owner(sim.dry_run(tmp_path, link=sim.create_link(OTHER_EXPORT)), IMODEL, OTHER_EXPORT)
        assert_other_owner(sim.mirror(tmp_path, link=sim.create_link(SECOND)), IMODEL, SECOND)
        assert read_all_files(tmp_path) == before
        assert sim.mirror(tmp_path, link=sim.create_link(FIRST)).error is None
        assert read_latest(tmp_path)["owner"] == IMODEL


def test_a_mirror_from_a_link_belongs_to_its_container(tmp_path: Path) -> None:
    """A destination filled from a link belongs to the container, and to the iModel if that export is its own."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        assert sim.mirror(tmp_path, link=sim.create_link(FIRST)).error is None
        home = read_latest(tmp_path)["owner"]
        assert home.endswith(f"/{FIRST}")
        assert "?" not in home
        assert sim.mirror(tmp_path, link=sim.create_link(FIRST)).error is None
        offer_foreign_export(sim)
        assert_other_owner(sim.mirror(tmp_path, link=sim.create_link(OTHER_EXPORT)), home, OTHER_EXPORT)
        assert_other_owner(sim.mirror(tmp_path, selector=OTHER_SELECTOR), home, OTHER_IMODEL)
        assert sim.mirror(tmp_path).error is None
        assert read_latest(tmp_path)["owner"] == IMODEL
        offer_exports(sim, SECOND)
        assert sim.mirror(tmp_path).error is None
        assert_other_owner(sim.mirror(tmp_path, link=sim.create_link(OTHER_EXPORT)), IMODEL, OTHER_EXPORT)


# --- copies ---


def test_a_copy_has_the_owner_of_its_versions(tmp_path: Path) -> None:
    """The owner of a mirror as SOURCE is checked: a copy of another iModel is refused, one of the same is not."""
    with Simulator() as sim:
        sim.offer_export()
        assert sim.mirror(tmp_path / "mine").error is None
        offer_foreign_export(sim)
        assert sim.mirror(tmp_path / "theirs", selector=OTHER_SELECTOR).error is None
        copy = tmp_path / "copy"
        assert sim.mirror(copy, source_mirror=tmp_path / "mine", selector=Selector()).error is None
        assert read_latest(copy)["owner"] == IMODEL
        before = read_all_files(copy)
        for how in ({}, {"all_exports": True}):
            assert_other_owner(
                sim.mirror(copy, source_mirror=tmp_path / "theirs", selector=Selector(), **how), IMODEL, OTHER_IMODEL
            )
            assert_other_owner(
                sim.dry_run(copy, source_mirror=tmp_path / "theirs", selector=Selector(), **how), IMODEL, OTHER_IMODEL
            )
        assert read_all_files(copy) == before
        assert sim.mirror(copy).error is None


# --- folders and stores with other things ---


@pytest.mark.parametrize("layout", list(Layout))
def test_a_folder_with_foreign_files_is_refused_unless_adopted(tmp_path: Path, layout: Layout) -> None:
    """Foreign files are named and nothing is written; with `adopt` they stay beside the tiles, except in the flat
    layout, whose files may have any name.
    """
    (tmp_path / "index.html").write_text("mine")
    with Simulator() as sim:
        sim.offer_export()
        for look in (sim.mirror, sim.dry_run):
            run = look(tmp_path, layout=layout)
            assert run.exit_code == 8
            assert "index.html" in str(run.error)
            assert read_tree(tmp_path) == {"index.html": b"mine"}
        run = sim.mirror(tmp_path, layout=layout, adopt=True)
        assert (run.exit_code, (tmp_path / "index.html").read_text()) == (8 if layout is Layout.FLAT else 0, "mine")
        if layout is Layout.VERSIONED:
            assert sim.mirror(tmp_path).error is None
            (tmp_path / "more.html").write_text("mine")
            assert sim.mirror(tmp_path).error is None


@pytest.mark.parametrize("name", ["versions/mine", "manifests/mine", "current", "checked.json", "Latest.json"])
def test_foreign_files_in_the_way_are_refused_with_adopt_too(tmp_path: Path, name: str) -> None:
    """Foreign files at paths that tilesync writes to stop a run, even with --adopt."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with Simulator() as sim:
        sim.offer_export()
        for adopt in (False, True):
            run = sim.mirror(tmp_path, adopt=adopt)
            assert isinstance(run.error, DestinationError)
            assert name.partition("/")[0] in str(run.error)
    assert read_tree(tmp_path) == {name: b"mine"}


def test_a_folder_with_system_files_only_counts_as_empty(tmp_path: Path) -> None:
    """A folder with only files of the file system or a desktop counts as empty."""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".DS_Store").write_text("x")
    (tmp_path / ".git").mkdir()
    with Simulator() as sim:
        sim.offer_export()
        assert sim.mirror(tmp_path).error is None
    assert verify(tmp_path).error is None


# --- what says whose it is ---


def test_every_command_names_the_owner_of_the_destination(tmp_path: Path) -> None:
    """The owner is in the last line and report of each command, and in `versions`; also of a failed run."""
    dest = tmp_path / "d"
    with Simulator() as sim:
        sim.offer_export()
        offer_foreign_export(sim)
        done = run_tilesync("mirror", IMODEL, dest, "--json", "--report", tmp_path / "r", sim=sim)
        assert done.last_line["owner"] == json.loads((tmp_path / "r").read_text())["owner"] == IMODEL
        failed = run_tilesync("mirror", OTHER_IMODEL, dest, "--json", sim=sim)
        assert (failed.exit_code, failed.last_line["error"], failed.last_line["owner"]) == (8, "OtherOwner", IMODEL)
        assert OTHER_IMODEL in failed.last_line["message"]
    for words in (["verify"], ["rollback", "--latest"]):
        assert run_tilesync(*words[:1], dest, *words[1:], "--json").last_line["owner"] == IMODEL
    rows = run_tilesync("versions", dest, "--json")
    checked = json.loads((dest / "checked.json").read_text())["checked"]
    assert {(row["owner"], row["checked"]) for row in rows.lines if row["kind"] == "version"} == {(IMODEL, checked)}
    shown = run_tilesync("versions", dest)
    assert IMODEL in shown.stderr
    assert checked in shown.stderr


def test_an_option_that_overrides_a_guard_reads_no_variable(tmp_path: Path) -> None:
    """--adopt has no environment variable."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        offer_foreign_export(sim)
        done = run_tilesync("mirror", OTHER_IMODEL, tmp_path, sim=sim, TILESYNC_ADOPT="1")
        assert done.exit_code == 8
        assert run_tilesync("mirror", OTHER_IMODEL, tmp_path, "--adopt", sim=sim).exit_code == 0
    assert rollback(tmp_path, EXPORT).error is None


# --- stores ---


def test_a_mistyped_source_does_not_claim_a_container(
    azure_store: AzureFixture, sim: Simulator, tmp_path: Path
) -> None:
    """A mistyped SOURCE does not claim a container, on any machine; fetched files keep their owner."""
    sim.offer_export(export(3))
    offer_foreign_export(sim)
    machine = {**azure_store.env, "XDG_STATE_HOME": str(tmp_path / "another machine"), "TILESYNC_RETRY_FOR": "0s"}
    assert run_program("mirror", UNREACHABLE, azure_store.destination_url, env=machine).exit_code == 6
    assert azure_store.mirror(sim, "-n").exit_code == 0
    azure_store.client.upload_blob(f"versions/{EXPORT}/b.glb", b"of an interrupted run")
    assert azure_store.mirror(sim, "-n").exit_code == 8
    assert azure_store.mirror(sim).exit_code == 8
    azure_store.client.delete_blob(f"versions/{EXPORT}/b.glb")
    assert azure_store.mirror(sim).exit_code == 0
    assert azure_store.read_json("latest.json")["owner"] == IMODEL


def test_a_mistyped_source_does_not_claim_a_bucket(bucket_server: BucketServer, sim: Simulator, tmp_path: Path) -> None:
    """A mistyped SOURCE does not claim a bucket."""
    place = BucketFixture(bucket_server, tmp_path / "state")
    sim.offer_export(export(3))
    assert run_program("mirror", UNREACHABLE, place.url, env={**place.env, "TILESYNC_RETRY_FOR": "0s"}).exit_code == 6
    assert place.mirror(sim, "-n").exit_code == 0
    assert place.mirror(sim).exit_code == 0
    assert json.loads(place.read("latest.json"))["owner"] == IMODEL


def test_a_container_belongs_to_one_imodel(azure_store: AzureFixture, sim: Simulator, tmp_path: Path) -> None:
    """Another owner is refused in Azure too, from every machine, before any write, unless adopted."""
    sim.offer_export(export(3))
    assert azure_store.mirror(sim).exit_code == 0
    offer_foreign_export(sim)
    before = {name: data for name, data in azure_store.blobs().items() if name != ".tilesync/lock"}
    for state in (azure_store.state, tmp_path / "another machine"):
        env = {
            **azure_store.env,
            "TILESYNC_API_URL": sim.url,
            "TILESYNC_TOKEN": sim.token,
            "XDG_STATE_HOME": str(state),
        }
        for plan in ([], ["-n"]):
            run = run_program("mirror", OTHER_IMODEL, azure_store.destination_url, *plan, env=env)
            assert (run.exit_code, run.last_line["error"], run.last_line["owner"]) == (8, "OtherOwner", IMODEL), (
                run.stderr
            )
            assert OTHER_IMODEL in run.last_line["message"]
    assert {name: data for name, data in azure_store.blobs().items() if name != ".tilesync/lock"} == before
    assert (
        run_program("mirror", OTHER_IMODEL, azure_store.destination_url, "--adopt", "--no-publish", env=env).exit_code
        == 0
    )
    assert azure_store.read_json("latest.json")["owner"] == OTHER_IMODEL
    assert azure_store.mirror(sim).exit_code == 8


def test_a_bucket_belongs_to_one_imodel(bucket_server: BucketServer, sim: Simulator, tmp_path: Path) -> None:
    """Another owner is refused in S3 too, before any write, unless adopted; also for a container link."""
    place = BucketFixture(bucket_server, tmp_path / "state")
    sim.offer_export(export(3))
    assert place.mirror(sim).exit_code == 0
    offer_foreign_export(sim)
    before = {name: place.read(name) for name in place.list_names() if name != ".tilesync/lock"}
    env = {**place.env, "TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    for source in (OTHER_IMODEL, sim.create_link(OTHER_EXPORT)):
        run = run_program("mirror", source, place.url, env=env)
        assert (run.exit_code, run.last_line["error"], run.last_line["owner"]) == (8, "OtherOwner", IMODEL), run.stderr
    assert {name: place.read(name) for name in place.list_names() if name != ".tilesync/lock"} == before
    assert run_program("mirror", OTHER_IMODEL, place.url, "--adopt", env=env).exit_code == 0
    assert place.mirror(sim).exit_code == 8


def test_a_prefix_with_foreign_files_is_refused_unless_adopted(azure_store: AzureFixture, sim: Simulator) -> None:
    """A container with foreign files is refused, unless --adopt is given; files in the way always are."""
    sim.offer_export(export(3))
    azure_store.client.upload_blob("photos/1.jpg", b"mine")
    for plan in ([], ["-n"]):
        run = azure_store.mirror(sim, *plan)
        assert (run.exit_code, "photos" in run.last_line["message"]) == (8, True), run.stderr
        assert azure_store.list_names() == ["photos/1.jpg"]
    assert (
        azure_store.mirror(sim, dest=f"{azure_store.destination_url}/photos/1").exit_code == 0
    )  # a prefix of one's own is empty
    azure_store.client.upload_blob("versions/mine", b"mine")
    assert azure_store.mirror(sim, "--adopt").exit_code == 8
    azure_store.client.delete_blob("versions/mine")
    assert azure_store.mirror(sim, "--adopt").exit_code == 0
    assert azure_store.mirror(sim).exit_code == 0
    assert azure_store.blobs("photos/1.") == {"jpg": b"mine"}
