"""Export record: known fields are kept, without secrets."""

from __future__ import annotations

import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from tests.support.sample_secrets import LINK, SIG
from tilesync.core.export_record import MAX_TEXT_CHARS, RECORD_FIELDS, sanitize_record

LINKS = st.sampled_from(
    [LINK, f"log: {LINK}.", {"href": LINK}, [LINK], {"a": [{"b": LINK}]}, f"sig={SIG}", quote(LINK, safe="")]
)


NAMES = st.sampled_from([*RECORD_FIELDS, "error", "new", "log", "resultUrl"])


INNER = st.sampled_from(["iModelId", "startTime", "metrics", "message", "code", "link", "numTiles"])


@given(st.dictionaries(NAMES, LINKS | st.dictionaries(INNER, LINKS) | st.lists(LINKS)))
def test_a_link_in_any_field_leaves_no_signature(row: dict[str, object]) -> None:
    """Wherever a record has a link, its kept fields have no signature."""
    sanitized = json.dumps(sanitize_record(row))
    assert SIG not in sanitized
    assert quote(SIG, safe="") not in sanitized
    assert quote(quote(SIG, safe=""), safe="") not in sanitized


def test_known_fields_are_kept_and_others_are_not() -> None:
    """Fields in the service's reference are kept; unknown fields are dropped."""
    row = {
        "id": "e1", "displayName": "City", "status": "Complete", "lastModified": "2026-03-01T08:30:00Z",
        "request": {"iModelId": "i", "changesetId": "c", "exportType": "3DTiles", "geometryOptions": {"x": 1}},
        "stats": {"iModelSize": 1, "compressedSize": 2, "rawSize": 3.5, "startTime": "t", "duration": 4,
                  "metrics": {"numTiles": 7, "url": "x"}, "odd": True},
        "error": "Export failed, see linked zipped logs", "logs": LINK, "_links": {"mesh": {"href": LINK}},
    }  # fmt: skip
    assert sanitize_record(row) == {
        "id": "e1", "displayName": "City", "status": "Complete", "lastModified": "2026-03-01T08:30:00Z",
        "request": {"iModelId": "i", "changesetId": "c", "exportType": "3DTiles"},
        "stats": {"iModelSize": 1, "compressedSize": 2, "rawSize": 3.5, "startTime": "t", "duration": 4,
                  "metrics": {"numTiles": 7}},
        "error": "Export failed, see linked zipped logs",
    }  # fmt: skip


def test_texts_of_a_record_are_bounded() -> None:
    """A name of a megabyte is cut; a known secret in a text is masked."""
    record = sanitize_record({"displayName": "x" * 10**6, "error": {"message": "no to token-123"}}, ["token-123"])
    assert record == {"displayName": "x" * MAX_TEXT_CHARS, "error": {"message": "no to …"}}
