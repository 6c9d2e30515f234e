"""Completeness of a version, and the diagnostics of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import samples
from tests.support.builders import export, glb, read_tree, tileset
from tests.support.catalog_fixture import CatalogFixture
from tilesync.errors import BlobDamaged
from tilesync.events import DiagnosticReported, Event, Warned
from tilesync.jobs.versions.completeness import REPORT_ONLY_PROBLEMS, UnmetReference, list_unmet, report_diagnostics
from tilesync.model import Completeness, Diagnostic, ParsedContent, Role


def reported_events(fixture: CatalogFixture) -> list[Event]:
    events: list[Event] = []
    report_diagnostics(fixture.version, fixture.catalog, events.append)
    return events


def list_unmet_of(fixture: CatalogFixture) -> list[UnmetReference]:
    return list(list_unmet(fixture.version, fixture.catalog, fixture.count_completeness()))


def implicit() -> bytes:
    """Return a root tileset whose only tile is implicit."""
    tiling: dict[str, Any] = {"subdivisionScheme": "QUADTREE", "subtreeLevels": 1, "availableLevels": 1}
    document = json.loads(tileset())
    document["root"] |= {
        "content": {"uri": "c/{level}/{x}/{y}.glb"},
        "implicitTiling": {**tiling, "subtrees": {"uri": "s/{level}/{x}/{y}.subtree"}},
    }
    return json.dumps(document).encode()


SUBTREE = json.dumps(
    {
        "tileAvailability": {"constant": 1},
        "contentAvailability": [{"constant": 1}],
        "childSubtreeAvailability": {"constant": 0},
    }
).encode()


# --- complete -------------------------------------------------------------------------------------------------------


def test_complete_export(fixture: CatalogFixture) -> None:
    """In a complete export everything is referenced except orphans."""
    fixture.put_all(export(5))
    assert fixture.count_completeness() == Completeness(referenced=len(export(5)) - 1, orphans=1)
    assert list_unmet_of(fixture) == []


@pytest.mark.parametrize("lost", sorted(set(export(3)) - {"tileset.json", "data/empty"}))
def test_each_missing_file_is_named(fixture: CatalogFixture, lost: str) -> None:
    """Each missing file is named, with its referrer and its role."""
    fixture.put_all({name: data for name, data in export(3).items() if name != lost})
    assert fixture.count_completeness().missing == 1
    asker = "tiles/tileset.json" if lost.startswith("tiles/0") else "tileset.json"
    role = "schema" if lost == "data/schema.json" else "content"
    (result,) = list_unmet_of(fixture)
    assert result == UnmetReference(lost, asker, f"{lost} is not there; {asker} refers to it ({role})")
    assert result.subject == lost


def test_subtrees_are_followed_to_their_end(fixture: CatalogFixture) -> None:
    """Contents that only a subtree announces are referenced, or missing."""
    fixture.put_all({"tileset.json": implicit(), "s/0/0/0.subtree": SUBTREE})
    assert fixture.count_completeness() == Completeness(referenced=3, missing=1)
    assert list_unmet_of(fixture) == [
        UnmetReference(
            "c/0/0/0.glb", "s/0/0/0.subtree", "c/0/0/0.glb is not there; s/0/0/0.subtree refers to it (content)"
        )
    ]
    fixture.put("c/0/0/0.glb", glb(b"x"))
    assert fixture.count_completeness() == Completeness(referenced=3)


def test_unusable_references_are_described(fixture: CatalogFixture) -> None:
    """An unsafe name and an unreadable subtree are described with their file, named once."""
    fixture.put_all({"tileset.json": tileset("sub/tileset.json"), "sub/tileset.json": implicit()})
    fixture.put_unread("sub/s/0/0/0.subtree", b"garbage")
    fixture.put("tileset.json", tileset("sub/tileset.json", "con%00/x.glb"))
    assert fixture.count_completeness() == Completeness(referenced=5, missing=2)
    result = list_unmet_of(fixture)
    assert all(each.name is None and each.subject == each.referrer for each in result)
    sentences = {each.referrer: each.message for each in result}
    assert sentences.keys() == {"tileset.json", "sub/s/0/0/0.subtree"}
    assert sentences["tileset.json"].startswith("tileset.json: con%00/x.glb names a blob that no folder can hold")
    assert sentences["sub/s/0/0/0.subtree"].startswith("sub/s/0/0/0.subtree: it is not a readable subtree")


def test_real_tilesets_are_complete(tmp_path: Path) -> None:
    """In every real tileset, references and files are the same set."""
    result = {}
    for entry in sorted(samples.sample_folder().glob("*/tileset.json")):
        files = read_tree(entry.parent)
        fixture = CatalogFixture(tmp_path / entry.parent.name)
        for name, data in files.items():
            try:
                fixture.put(name, data)
            except BlobDamaged:  # one of them is made with an error
                fixture.put_unread(name, data)
        settled = fixture.count_completeness()
        if (counts := (settled.referenced - len(files), settled.missing, settled.orphans)) != (0, 0, 0):
            result[entry.parent.name] = counts
    assert result == {}


# --- diagnostics ---


def test_one_event_each_and_one_warning_per_problem(fixture: CatalogFixture) -> None:
    """Each diagnostic is one event; each problem is one warning, with an example and the count."""
    for number in range(1, 4):
        diagnostics = tuple(Diagnostic("unfollowed", f"{n}") for n in range(number))
        fixture.catalog.references.add(fixture.version, f"f{number}", ParsedContent(diagnostics=diagnostics))
    fixture.catalog.references.add(fixture.version, "f2", ParsedContent(diagnostics=(Diagnostic("cycle", "c"),)))
    events = reported_events(fixture)
    reported = [event for event in events if isinstance(event, DiagnosticReported)]
    assert len(reported) == 7
    assert DiagnosticReported("f3", "unfollowed", "2") in reported
    assert [event for event in events if isinstance(event, Warned)] == [
        Warned("cycle: f2: c"),
        Warned("unfollowed: f1: 0 (and 5 more)"),
    ]


@pytest.mark.parametrize("problem", sorted(REPORT_ONLY_PROBLEMS))
def test_report_only_problems_give_no_warning(fixture: CatalogFixture, problem: str) -> None:
    """Harmless problems are reported without a warning."""
    fixture.catalog.references.add(fixture.version, "a", ParsedContent(diagnostics=(Diagnostic(problem, "d"),)))
    assert reported_events(fixture) == [DiagnosticReported("a", problem, "d")]


def test_missing_files_are_no_diagnostics(fixture: CatalogFixture) -> None:
    """A missing file is counted as missing, not as a diagnostic."""
    for problem in ("unreadable", "unsafe name"):
        fixture.catalog.references.add(fixture.version, "a", ParsedContent(diagnostics=(Diagnostic(problem, "d"),)))
    assert reported_events(fixture) == []


def test_tileset_cycle_is_reported(fixture: CatalogFixture) -> None:
    """A cycle of tilesets is reported with the reference that closes it, and is complete."""
    fixture.put_all({"tileset.json": tileset("a/tileset.json"), "a/tileset.json": tileset("../b.json")})
    fixture.put("b.json", tileset("tileset.json", "b.json"))
    assert fixture.count_completeness() == Completeness(referenced=3)
    reported = {
        (event.name, event.message) for event in reported_events(fixture) if isinstance(event, DiagnosticReported)
    }
    assert len(reported) == 2
    assert ("b.json", "refers to b.json, which leads back to it") in reported
    assert len([event for event in reported_events(fixture) if isinstance(event, Warned)]) == 1


def test_real_tileset_cycle(fixture: CatalogFixture) -> None:
    """All tilesets of a real cycle are there, and one reference of it is reported."""
    files = read_tree(samples.sample_folder("CyclicExternalTilesets"))
    files["tileset.json"] = tileset("tilesetWithCycleA.json")
    fixture.put_all(files)
    assert fixture.count_completeness() == Completeness(referenced=len(files))
    assert [event.problem for event in reported_events(fixture) if isinstance(event, DiagnosticReported)] == ["cycle"]


def test_unusable_contents_are_reported(fixture: CatalogFixture) -> None:
    """An empty content and one of an unknown kind are reported, each with its problem."""
    fixture.put_all({"tileset.json": tileset("empty", "what"), "empty": b"", "what": b"what is this?"})
    assert fixture.count_completeness() == Completeness(referenced=3)
    assert [event for event in reported_events(fixture) if isinstance(event, DiagnosticReported)] == [
        DiagnosticReported("empty", "empty content", "is empty"),
        DiagnosticReported("what", "unknown content", "is of a kind that no viewer is known to show"),
    ]


def test_completeness_can_be_computed_again(fixture: CatalogFixture) -> None:
    """A second computation gives the same counts, diagnostics and missing files."""
    fixture.put_all(
        {"tileset.json": implicit(), "s/0/0/0.subtree": SUBTREE.replace(b"}", b', "availableCount": 9}', 1)}
    )
    first = fixture.count_completeness(), reported_events(fixture), list_unmet_of(fixture)
    again = fixture.count_completeness(), reported_events(fixture), list_unmet_of(fixture)
    assert first == again
    assert fixture.references_from("s/0/0/0.subtree") == {"c/0/0/0.glb"}
    assert fixture.references_from("tileset.json", Role.SUBTREE) == {"s/0/0/0.subtree"}
