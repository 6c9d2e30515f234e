"""Responses that are wrong: foreign web pages, truncated bodies, wrong MD5s."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.builders import glb, glb_with_image, md5_base64, read_tree, tileset
from tests.support.faults import (
    error_response,
    is_blob,
    is_blob_named,
    is_listing,
    is_range_request,
    omit_content_length,
    replace_headers,
    truncate_body,
)
from tests.support.simulator import EXPORT, Simulator, both_inventories, verify
from tilesync.demo.faults import Effect, Fault
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
    """Respond with the web page of a proxy on the way."""
    return error_response(200, body=PAGE, **headers)


FOREIGN = {
    "a web page": page(Content_Type="text/html"),
    "a page of unknown type": page(),
    "an API's answer": error_response(200, body=b'{"error": "quota"}', Content_Type="application/json"),
    "a body that breaks off": omit_content_length(1000),
}


@pytest.mark.parametrize("effect", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_response_is_retried(tmp_path: Path, effect: Effect) -> None:
    """A response of a proxy in place of a texture is retried, and the texture is published."""
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
def test_response_without_storage_marks(tmp_path: Path, effect: Effect) -> None:
    """Once responses had the marks of the storage, one without them is retried, a refusal too."""
    with Simulator() as sim:
        sim.extra_headers = AZURE
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), effect)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 1)
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


def test_marks_are_learned_from_the_listing(tmp_path: Path) -> None:
    """The marks of a listing through the same link are expected of the first file."""
    with Simulator() as sim:
        sim.extra_headers = AZURE
        sim.offer_export(FILES)
        sim.add_fault(is_blob, error_response(404))
        run = sim.mirror(tmp_path)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 1)


@pytest.mark.parametrize("inventory", Inventory)
def test_marks_of_a_foreign_page_are_not_learned(tmp_path: Path, inventory: Inventory) -> None:
    """A web page in place of the first response is retried; its headers are not learned as marks."""
    first = is_listing if inventory is Inventory.LIST else is_blob_named("tileset.json")
    with Simulator() as sim:
        sim.offer_export(FILES)
        sim.add_fault(is_blob, replace_headers(etag=None), times=None)
        sim.faults.insert(0, Fault(first, page(Content_Type="text/html", ETag='"5f1"', x_ms_request_id="0f2c")))
        run = sim.mirror(tmp_path, inventory=inventory)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 1)
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


def test_only_foreign_responses(tmp_path: Path) -> None:
    """If every response is foreign, the run reports it and publishes nothing."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), FOREIGN["a web page"], times=None)
        run = sim.mirror(tmp_path, inventory=Inventory.WALK, retry_for=timedelta(seconds=1))
    assert run.exit_code in {3, 6}
    assert isinstance(run.error, RunError)
    assert not (tmp_path / "tileset.json").exists()
    reasons = [str(event.reason) for event in run.events_of(Retried)]
    assert reasons == ["the response is not from the storage (it lacks an ETag)"] * len(reasons) != []


def test_servers_without_marks_are_mirrored(tmp_path: Path) -> None:
    """A server that sends no ETag, no mark of Azure and no MD5 is mirrored."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob, replace_headers(etag=None), times=None)
        assert sim.mirror(tmp_path, inventory=Inventory.WALK).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


def test_a_web_page_may_be_a_file(tmp_path: Path) -> None:
    """A blob that is listed or named as a web page is fetched as one."""
    files = {**FILES, "note": PAGE, "readme.html": PAGE}
    with Simulator() as sim:
        sim.offer_export(files, md5=False)
        for name in ("note", "readme.html"):
            sim.blob(name).content_type = "text/html; charset=utf-8"
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == files


def test_body_without_a_length(tmp_path: Path) -> None:
    """A listed body that ends with its connection is complete if it has the listed size, else truncated."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), omit_content_length(1000), times=5)
        sim.add_fault(is_blob_named("b.glb"), omit_content_length())
        run = sim.mirror(tmp_path)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 5)
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


OTHER_MD5 = md5_base64(b"other bytes")


@pytest.mark.parametrize("header", ["content_md5", "x_ms_blob_content_md5"])
@both_inventories
def test_md5_of_a_response_is_checked(tmp_path: Path, header: str, inventory: Inventory) -> None:
    """Bytes without the MD5 that their response states are fetched again."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), replace_headers(**{header: OTHER_MD5}))
        run = sim.mirror(tmp_path, inventory=inventory)
    assert (run.exit_code, len(run.events_of(Retried))) == (0, 1)
    assert read_tree(tmp_path / "versions" / EXPORT) == FILES


def test_md5_that_never_matches(tmp_path: Path) -> None:
    """If the stated MD5 never matches, the file fails and nothing is published."""
    with Simulator() as sim:
        sim.offer_export(FILES, md5=False)
        sim.add_fault(is_blob_named("tex.png"), replace_headers(content_md5=OTHER_MD5), times=None)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert not (tmp_path / "tileset.json").exists()


@pytest.mark.parametrize("how", [{}, {"bwlimit": 1 << 18}], ids=["continued", "in pieces"])
def test_md5_of_ranged_responses_is_checked(tmp_path: Path, how: dict[str, int]) -> None:
    """Ranged responses state the MD5 of the whole blob: the joined bytes are compared with it."""
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
