"""Answers that are not what they seem: foreign pages, bodies that break off unseen, statements that do not hold."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.builders import glb, glb_with_image, md5_base64, read_tree, tileset
from tests.support.faults import (
    Effect,
    Fault,
    error_response,
    is_blob,
    is_blob_named,
    is_listing,
    is_range_request,
    omit_content_length,
    replace_headers,
    truncate_body,
)
from tests.support.simulator import EXPORT, Simulator, verify
from tilesync.errors import RunError
from tilesync.events import Retried
from tilesync.model import Inventory

PAGE = b"<html><body>Please accept the terms of use.</body></html>"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
FILES = {
    "tileset.json": tileset("a.glb", "b.glb"),
    "a.glb": glb_with_image("tex.png", b"abc"),
    "b.glb": glb(b"x" * 3000),
    "tex.png": PNG,
}
AZURE = {"x-ms-request-id": "0f2c", "x-ms-version": "2024-05-04"}


def page(**headers: str) -> Effect:
    """A page of something on the way."""
    return error_response(200, body=PAGE, **headers)


FOREIGN = {
    "a web page": page(Content_Type="text/html"),
    "a page of unknown type": page(),
    "an API's answer": error_response(200, body=b'{"error": "quota"}', Content_Type="application/json"),
    "a body that breaks off": omit_content_length(1000),
}


@pytest.mark.parametrize("effect", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_walk_takes_no_foreign_answer_for_a_file(tmp_path: Path, effect: Effect) -> None:
    """What something on the way sends in place of a texture is asked for again, and the texture is published."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), effect)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert run.exit_code == 0
    assert [event.what for event in run.events_of(Retried)] == ["tex.png"]
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES
    assert verify(tmp_path).exit_code == 0


@pytest.mark.parametrize(
    "effect",
    [
        page(Content_Type="text/html", ETag='"5f1"'),
        page(Content_Type="image/png", ETag='"5f1"'),
        error_response(404),
        error_response(412),
    ],
    ids=["page", "png", "404", "412"],
)
def test_what_has_no_mark_of_the_storage_is_not_of_it(tmp_path: Path, effect: Effect) -> None:
    """Where answers of the storage have its marks, an answer without them is asked for again, a refusal too."""
    with Simulator() as sim:
        sim.extra_headers = AZURE
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), effect)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 1)
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


def test_a_listing_shows_the_marks_too(tmp_path: Path) -> None:
    """What a listing through the same link has is expected of the first file."""
    with Simulator() as sim:
        sim.extra_headers = AZURE
        sim.offer_export(FILES)
        sim.add_fault(is_blob, error_response(404))
        run = sim.mirror(tmp_path)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 1)


@pytest.mark.parametrize("inventory", Inventory)
def test_what_a_foreign_page_has_is_not_expected_of_the_storage(tmp_path: Path, inventory: Inventory) -> None:
    """A page in place of the first answer is asked for again; its headers say nothing of those of the storage."""
    first = is_listing if inventory is Inventory.LIST else is_blob_named("tileset.json")
    with Simulator() as sim:
        sim.offer_export(FILES)
        sim.add_fault(is_blob, replace_headers(etag=None), times=None)
        sim.faults.insert(0, Fault(first, page(Content_Type="text/html", ETag='"5f1"', x_ms_request_id="0f2c")))
        run = sim.mirror(tmp_path, inventory=inventory)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 1)
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


def test_a_foreign_answer_that_stays_publishes_nothing(tmp_path: Path) -> None:
    """Where every answer is foreign the run says so, and nothing is published."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), FOREIGN["a web page"], times=None)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK, retry_for=timedelta(seconds=1))
    assert run.exit_code in {3, 6}
    assert isinstance(run.error, RunError)
    assert not (tmp_path / "tileset.json").exists()
    said = [str(event.reason) for event in run.events_of(Retried)]
    assert said == ["the response is not from the storage (it lacks an ETag)"] * len(said) != []


def test_servers_without_marks_are_mirrored(tmp_path: Path) -> None:
    """A server that never sends an ETag, a mark of Azure or an MD5 is walked as it is."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob, replace_headers(etag=None), times=None)
        assert sim.mirror(tmp_path, inventory=Inventory.WALK).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


def test_a_web_page_may_be_a_file(tmp_path: Path) -> None:
    """A blob that is listed as a web page, or named as one, comes as one."""
    files = {**FILES, "note": PAGE, "readme.html": PAGE}
    with Simulator() as sim:
        sim.offer_export(files, md5=False)
        for name in ("note", "readme.html"):
            sim.blob(name).content_type = "text/html; charset=utf-8"
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == files


def test_a_body_without_a_length_breaks_off_short_of_the_listed_size(tmp_path: Path) -> None:
    """By listing, a body that ends with its connection is whole where it has the listed size, and else broken off."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), omit_content_length(1000), times=5)
        sim.add_fault(is_blob_named("b.glb"), omit_content_length())
        run = sim.mirror(tmp_path)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 5)
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


OTHER_MD5 = md5_base64(b"other bytes")


@pytest.mark.parametrize("header", ["content_md5", "x_ms_blob_content_md5"])
@pytest.mark.parametrize("inventory", list(Inventory))
def test_an_md5_that_an_answer_states_is_checked(tmp_path: Path, header: str, inventory: Inventory) -> None:
    """Bytes that do not have the MD5 that their answer states are fetched again; those of the next answer may."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), replace_headers(**{header: OTHER_MD5}))
        run = sim.mirror(tmp_path, inventory=inventory)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 1)
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


def test_an_md5_that_is_always_another_one_fails_the_file(tmp_path: Path) -> None:
    """Where the storage states an MD5 that its bytes never have, the file fails and nothing is published."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), replace_headers(content_md5=OTHER_MD5), times=None)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert not (tmp_path / "tileset.json").exists()


@pytest.mark.parametrize("how", [{}, {"bwlimit": 1 << 18}], ids=["continued", "in pieces"])
def test_an_md5_that_ranged_answers_state_is_checked(tmp_path: Path, how: dict[str, int]) -> None:
    """Ranged answers state the MD5 of the whole blob: bytes that come in parts are held against it."""
    files = {**FILES, "big.bin": bytes(range(256)) * 2000}
    with Simulator() as sim:
        sim.offer_export(files, md5=False)
        if not how:
            right = replace_headers(x_ms_blob_content_md5=md5_base64(files["big.bin"]))
            sim.add_fault(
                is_blob_named("big.bin"),
                lambda request, go: right(request, lambda: truncate_body(300_000)(request, go)),
                times=None,
            )
        wrong = sim.add_fault(
            lambda request: is_blob_named("big.bin")(request) and is_range_request(request),
            replace_headers(x_ms_blob_content_md5=OTHER_MD5),
            times=None,
        )
        sim.faults.reverse()
        run = sim.mirror(tmp_path, **how)
        assert run.exit_code == 3
        assert wrong.hits
        sim.faults.clear()
        assert sim.mirror(tmp_path, **how).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == files
