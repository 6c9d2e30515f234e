"""Roster of a night: which mirrors there are, with which labels and places, and which cannot run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tilesync.errors import NoExport, TilesyncError, Unavailable, UsageError
from tilesync.fleets.file.settings import FleetSettings, MirrorEntry, SecretReference
from tilesync.fleets.night.results import format_command
from tilesync.fleets.roster import FleetMirror, Roster, make_roster
from tilesync.fleets.state import KnownMirror
from tilesync.model.history import MirrorHistory, RunRecord

ITWIN = "11111111-0000-4000-8000-000000000000"
A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")

HISTORY = MirrorHistory((RunRecord("2026-02-28T02:00:00Z", exit=0),))


class Nights:
    """Nights of one fleet, one after the other, with the state that the night before has stored."""

    def __init__(self, *entries: MirrorEntry, folder: str = "/srv/fleet") -> None:
        self.entries = entries
        self.folder = Path(folder)
        self.known: dict[str, KnownMirror] = {}
        self.clock = FakeClock()

    def run(self, listing: Mapping[str, str] | TilesyncError | None = None) -> Roster:
        """Make the roster of one night; `listing`: display names of each iTwin of the file."""
        settings = FleetSettings(self.folder / "fleet.toml", self.entries)
        listings = {entry.name: listing or {} for entry in self.entries if entry.itwin}
        roster = make_roster(settings, self.known, listings, self.clock)
        self.known |= {mirror.key: mirror for mirror in roster.changed}
        return roster

    def with_places(self) -> set[str]:
        """Return the keys of the mirrors that have a place."""
        return {key for key, mirror in self.known.items() if mirror.places}


def every(
    name: str = "site", dest: str = "tiles/{name}", include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
) -> MirrorEntry:
    return MirrorEntry(name, (dest,), itwin=ITWIN, include=include, exclude=exclude)


def one(name: str, imodel: str = A, dest: str = "tiles/{name}") -> MirrorEntry:
    return MirrorEntry(name, (dest,), imodel=imodel)


def places(roster: Roster) -> dict[str, str]:
    """Return the place of each mirror by its label, relative to the folder of the fleet."""
    return {mirror.name: mirror.known.places[0].removeprefix("/srv/fleet/") for mirror in roster.mirrors}


def problems(roster: Roster) -> dict[str, type[TilesyncError]]:
    """Return the kind of the problem of each mirror that has one."""
    return {mirror.name: type(mirror.problem) for mirror in roster.mirrors if mirror.problem is not None}


def find(roster: Roster, name: str) -> FleetMirror:
    return next(mirror for mirror in roster.mirrors if mirror.name == name)


def test_mirrors_in_the_order_of_the_file() -> None:
    """Entries and the iModels of an iTwin are mirrors in the order of the file and of the service."""
    nights = Nights(one("first", C), every(), MirrorEntry("held", ("copy",), source="/srv/other"))
    roster = nights.run({B: "Tunnel", A: "Bridge 1"})
    assert places(roster) == {
        "first": "tiles/first", "site/Tunnel": "tiles/Tunnel", "site/Bridge 1": "tiles/Bridge-1", "held": "copy",
    }  # fmt: skip
    assert [mirror.imodel for mirror in roster.mirrors] == [C, B, A, None]
    assert problems(roster) == {}
    assert [mirror.dests for mirror in roster.mirrors][3] == ("/srv/fleet/copy",)


def test_a_new_imodel_is_mirrored_the_next_night() -> None:
    """An iModel that appears is a mirror; only it is stored."""
    nights = Nights(every())
    assert len(nights.run({A: "Bridge"}).changed) == 1
    roster = nights.run({A: "Bridge", B: "Tunnel"})
    assert places(roster) == {"site/Bridge": "tiles/Bridge", "site/Tunnel": "tiles/Tunnel"}
    assert [each.imodel for each in roster.changed] == [B]
    assert nights.run({A: "Bridge", B: "Tunnel"}).changed == []


def test_a_vanished_imodel_is_reported_every_night() -> None:
    """An iModel that is no longer listed is a problem each night, with the night it vanished, and keeps its place."""
    nights = Nights(every())
    nights.run({A: "Bridge", B: "Tunnel"})
    for _ in range(2):
        nights.clock.advance(86400)
        roster = nights.run({A: "Bridge"})
        assert problems(roster) == {"site/Tunnel": NoExport}
        gone = find(roster, "site/Tunnel")
        assert gone.known.vanished == "2026-03-02T12:00:00Z"
        assert "since 2026-03-02T12:00:00Z" in str(gone.problem)
        assert "nothing of its mirror is deleted" in str(gone.problem)
        assert f'exclude: "{B}"' in (gone.problem.hint if gone.problem else "")
        assert gone.known.places == ("/srv/fleet/tiles/Tunnel",)


def test_an_imodel_that_is_back() -> None:
    """An iModel that is listed again is mirrored into its old place, as if it had never vanished."""
    nights = Nights(every())
    nights.run({A: "Bridge"})
    nights.known = {key: _with_history(mirror) for key, mirror in nights.known.items()}
    nights.run({})
    assert nights.known[f"site/{A}"].vanished
    roster = nights.run({A: "Bridge renamed"})
    assert problems(roster) == {}
    assert places(roster) == {"site/Bridge renamed": "tiles/Bridge"}
    assert nights.known[f"site/{A}"].vanished is None
    assert nights.known[f"site/{A}"].history == HISTORY


def _with_history(mirror: KnownMirror) -> KnownMirror:
    return KnownMirror(mirror.key, mirror.entry, mirror.name, mirror.places, mirror.templates, mirror.imodel,
                       mirror.itwin, HISTORY)  # fmt: skip


def test_a_renamed_imodel_keeps_its_place() -> None:
    """A new display name changes the label, and moves nothing."""
    nights = Nights(every())
    nights.run({A: "Bridge"})
    roster = nights.run({A: "Old bridge"})
    assert places(roster) == {"site/Old bridge": "tiles/Bridge"}
    assert [each.name for each in roster.changed] == ["Old bridge"]


def test_a_changed_template_moves_the_place() -> None:
    """A new template in the file gives a new place, with the display name of now."""
    nights = Nights(every())
    nights.run({A: "Bridge"})
    nights.run({A: "Old bridge"})
    nights.entries = (every(dest="out/{name}-{imodel}"),)
    assert places(nights.run({A: "Old bridge"})) == {"site/Old bridge": f"out/Old-bridge-{A}"}


def test_a_second_destination_is_a_changed_template() -> None:
    """A destination that is added to an entry gets a place too; the first one stays."""
    nights = Nights(one("bridge"))
    nights.run()
    nights.entries = (MirrorEntry("bridge", ("tiles/{name}", "s3://bucket/{imodel}", SecretReference(env="D")), A),)
    mirror = nights.run().mirrors[0]
    assert mirror.known.places == ("/srv/fleet/tiles/bridge", f"s3://bucket/{A}", "the link in the variable D")
    assert mirror.dests == ("/srv/fleet/tiles/bridge", f"s3://bucket/{A}", SecretReference(env="D"))


def test_excluded_imodels_are_neither_mirrored_nor_missed() -> None:
    """Globs on names and ids select; what they exclude is not reported, also if it has vanished."""
    nights = Nights(every())
    nights.run({A: "Bridge", B: "Tunnel", C: "Test area"})
    nights.entries = (every(exclude=("Test*", B)),)
    assert places(nights.run({A: "Bridge", B: "Tunnel", C: "Test area"})) == {"site/Bridge": "tiles/Bridge"}
    assert places(nights.run({A: "Bridge"})) == {"site/Bridge": "tiles/Bridge"}
    nights.entries = (every(include=("Br*",)),)
    roster = nights.run({A: "Bridge"})
    assert places(roster) == {"site/Bridge": "tiles/Bridge"}
    assert problems(roster) == {}


def test_an_entry_of_its_own_wins_over_the_itwin() -> None:
    """An iModel with an entry of its own is mirrored by that alone, and is not missed in the iTwin."""
    nights = Nights(every(), one("own", A, dest="own/{name}"))
    for _ in range(2):
        roster = nights.run({A: "Bridge", B: "Tunnel"})
        assert places(roster) == {"site/Tunnel": "tiles/Tunnel", "own": "own/own"}
        assert problems(roster) == {}
    nights.entries = (every(), one("own", A, dest="own/{name}"), one("more", B, dest="own/{name}"))
    roster = nights.run({})
    assert problems(roster) == {}, "B is in the state as an iModel of the iTwin, but has an entry now"


def test_a_failed_listing_goes_on_with_the_known_ones() -> None:
    """If an iTwin cannot be listed, it is named, and its known iModels are tried; those that had vanished stay so."""
    nights = Nights(every(), one("own", C, dest="own"))
    nights.run({A: "Bridge", B: "Tunnel"})
    nights.run({A: "Bridge"})
    error = Unavailable("the service does not answer")
    roster = nights.run(error)
    assert places(roster) == {"site/Bridge": "tiles/Bridge", "site/Tunnel": "tiles/Tunnel", "own": "own"}
    assert problems(roster) == {"site/Tunnel": NoExport}
    assert list(roster.failed_entries) == [(nights.entries[0], error)]
    assert roster.changed == []


def test_a_failed_listing_of_the_first_night() -> None:
    """If the first listing fails, there are no mirrors of the iTwin, and the entry is named."""
    roster = Nights(every()).run(Unavailable("down"))
    assert (list(roster.mirrors), len(roster.failed_entries)) == ([], 1)


def test_new_imodels_of_one_name_are_both_refused() -> None:
    """Two new iModels with one display name would share a place: both are refused each night, and get none."""
    nights = Nights(every())
    for _ in range(2):
        roster = nights.run({A: "Bridge", B: "Bridge", C: "Tunnel"})
        assert problems(roster) == {"site/Bridge (aaaaaaaa)": UsageError, "site/Bridge (bbbbbbbb)": UsageError}
        problem = roster.mirrors[0].problem
        assert str(problem) == "it would share /srv/fleet/tiles/Bridge with site/Bridge (bbbbbbbb)"
        assert "{imodel}" in (problem.hint if problem else "")
    assert nights.with_places() == {f"site/{C}"}
    nights.entries = (every(dest="tiles/{name}-{imodel}"),)
    assert problems(nights.run({A: "Bridge", B: "Bridge", C: "Tunnel"})) == {}


@pytest.mark.parametrize("name", ["Bridge", "bridge", "Bridge!", "Bridge/"])
def test_an_imodel_that_has_its_place_keeps_it(name: str) -> None:
    """Of two iModels with one place, the one that was there first goes on; only the new one is refused."""
    nights = Nights(every())
    nights.run({A: "Bridge"})
    roster = nights.run({B: name, A: "Bridge"})
    assert [mirror.imodel for mirror in roster.mirrors if mirror.problem] == [B]
    assert nights.with_places() == {f"site/{A}"}
    roster = nights.run({A: "Bridge"})
    assert [mirror.imodel for mirror in roster.mirrors] == [A], "one that never had a place is not missed"
    assert nights.known[f"site/{B}"].vanished


def test_a_new_imodel_never_gets_the_place_of_a_vanished_or_renamed_one() -> None:
    """The place of an iModel that vanished, or that has another name now, is not given to a new one of its old name."""
    nights = Nights(every())
    nights.run({A: "Bridge", C: "Tunnel"})
    roster = nights.run({A: "Old bridge", B: "Bridge"})
    assert {mirror.imodel: type(mirror.problem) for mirror in roster.mirrors} == {
        A: type(None), B: UsageError, C: NoExport,
    }  # fmt: skip
    roster = nights.run({A: "Old bridge", B: "Tunnel"})
    assert [mirror.imodel for mirror in roster.mirrors if isinstance(mirror.problem, UsageError)] == [B]


def test_one_place_inside_another() -> None:
    """A place inside the place of another mirror is refused too."""
    nights = Nights(one("own", C, dest="tiles/Bridge"), every(dest="tiles/{name}/x"))
    roster = nights.run({A: "Bridge", B: "Tunnel"})
    assert problems(roster) == {"own": UsageError, "site/Bridge": UsageError}


def test_labels_are_unique() -> None:
    """Whatever display names and entries are called, no two mirrors have one label, also without case."""
    nights = Nights(
        every(dest="t/{imodel}"), one("site/Bridge", C, dest="own"), every("SITE/b", dest="u/{imodel}"),
    )  # fmt: skip
    for names in (
        {A: "Bridge", B: "bridge"},
        {A: "b/x", B: "x"},
        {A: f"Bridge ({B[:8]})", B: "Bridge"},
        {A: "Bridge (cccccccc)", B: "Bridge", f"{B[:8]}-1": "Bridge"},
        {A: "\n", B: "\x00"},
    ):
        labels = [mirror.name.casefold() for mirror in nights.run(names).mirrors]
        assert len(labels) == len(set(labels)) >= 5, labels
    assert find(nights.run({A: "Bridge"}), "site/Bridge").imodel == C, "an entry keeps its name"


def test_display_names_in_one_line() -> None:
    """Control characters of a display name, and half surrogates, never reach a label."""
    roster = Nights(every(dest="t/{imodel}")).run({A: "a\r\nb\x1b[31m\u2028c", B: "\ud800"})
    assert [mirror.name for mirror in roster.mirrors] == ["site/a b [31m c", "site/?"]


def test_what_only_matches() -> None:
    """A glob matches the label, the entry, the display name or the id of a mirror, with case."""
    mirror = Nights(every()).run({A: "Bridge [1]"}).mirrors[0]
    for glob in ("site/Bridge*", "site", "Bridge [[]1]", "Bridge [1]", A, "*", f"{A[:8]}*"):
        assert mirror.matches([glob]), glob
    for glob in ("bridge*", "Bridge", "sit", B, ""):
        assert not mirror.matches([glob]), glob


@pytest.mark.parametrize("name", ["p/*[glob]?", "p/[!a]", "p/a]b[", "p/Bridge 'x' 7"])
def test_the_command_that_runs_one_mirror_again(name: str) -> None:
    """Its glob matches the name of this mirror, and no other name."""
    *words, option, glob = shlex.split(format_command("my fleet.toml", name))
    assert (words, option) == (["tilesync", "fleet", "my fleet.toml"], "--only")
    assert [each for each in (name, "p/xg!", "p/b", "p/axb[", "p/*[glob]x") if fnmatchcase(each, glob)] == [name]
    assert ("[" in name or "*" in name) == (glob != name)


def test_a_destination_that_a_name_makes_invalid() -> None:
    """A template that gives no valid destination with some name is the problem of that mirror alone."""
    nights = Nights(every(dest="az://account/{name}"))
    roster = nights.run({A: "bridge", B: "Br_idge"})
    assert problems(roster) == {"site/Br_idge": UsageError}
    assert nights.with_places() == {f"site/{A}"}
