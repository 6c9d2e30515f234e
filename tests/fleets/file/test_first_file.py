"""First file of a fleet: valid whatever the names are, and complete."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fleet_files import IMODEL, OTHER, read_fleet
from tests.support.fleet_service import fill_fleet
from tests.support.simulator import Simulator
from tilesync.api.auth import Token
from tilesync.api.inputs import create_service
from tilesync.errors import NotAuthorised, UsageError
from tilesync.events import Event
from tilesync.fleets.file.first_file import MAX_MODELS_SHOWN, ITwinModels, format_first_file, list_models
from tilesync.fleets.file.settings import FleetSettings

ODD_NAMES = [
    'say "hello"',
    "a\nb",
    "a\r\n[[mirror]]\nname = 'x'",
    "\u202eright to left",
    "جسر",
    "🏗️",
    'x"]]',
    "'''",
    "tab\tand\x00nul",
    "back\\slash \\u0041",
    "{name}",
    "line\u2028separator",
    "lone \ud800 surrogate",
    "..",
    "CON",
    "a" * 300,
    "# no comment",
    "sig=AbC9dEfgHiJk",
]


def read_text(folder: Path, *itwins: ITwinModels) -> FleetSettings:
    return read_fleet(folder, format_first_file(itwins))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(tmp_path: Path, name: str) -> None:
    """Whatever an iTwin and an iModel are called, the file is valid, with one mirror for the iTwin."""
    (mirror,) = read_text(tmp_path, ITwinModels(OTHER, name, [(IMODEL, name)])).mirrors
    assert (mirror.itwin, mirror.include, mirror.exclude) == (OTHER, (), ())
    assert mirror.selects(name, IMODEL)
    assert mirror.dests == (f"tiles/{mirror.name}/{{name}}",)


@given(st.lists(st.text(max_size=60), max_size=4))
def test_any_names(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Names of several iTwins never give a mistake, also not the name or place of another."""
    itwins = [ITwinModels(f"5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a{n:02d}", name, []) for n, name in enumerate(names)]
    if itwins:
        assert len(read_text(tmp_path_factory.mktemp("fleet"), *itwins).mirrors) == len(itwins)


def test_itwins_of_one_name(tmp_path: Path) -> None:
    """Two iTwins with one name, also but for its case or its spelling, get mirrors of different names and places."""
    names = ["Harbour", "harbour", "Harbour!", "", "itwin-4"]
    itwins = [ITwinModels(f"{IMODEL[:-2]}{n:02d}", name, []) for n, name in enumerate(names)]
    mirrors = read_text(tmp_path, *itwins).mirrors
    assert [mirror.name.casefold() for mirror in mirrors[:3]] == [f"harbour-{itwin.id}" for itwin in itwins[:3]]
    assert len({mirror.name.casefold() for mirror in mirrors}) == len({mirror.dests for mirror in mirrors}) == 5


def test_many_imodels_and_none(tmp_path: Path) -> None:
    """An iTwin shows up to fifty iModels in comments, and how many more there are; one without any is written too."""
    models = [(f"{IMODEL[:-3]}{n:03d}", f"Bridge {n}") for n in range(MAX_MODELS_SHOWN + 7)]
    itwins = [ITwinModels(OTHER, "Full", models), ITwinModels(IMODEL, "Empty", [])]
    text = format_first_file(itwins)
    assert [mirror.name for mirror in read_text(tmp_path, *itwins).mirrors] == ["Full", "Empty"]
    assert "# Full: 57 iModels; new ones are mirrored" in text
    assert "# Empty: 0 iModels;" in text
    assert "Bridge 49" in text
    assert "Bridge 50" not in text
    assert "#   … and 7 more" in text


def list_all(sim: Simulator, *itwins: str) -> list[ITwinModels]:
    def ignore(event: Event) -> None:
        """Take an event that nobody listens to."""

    service = create_service({"auth": Token(sim.token), "api_url": sim.url})
    return asyncio.run(list_models(itwins, service, ignore))


def test_imodels_of_an_identity_are_listed() -> None:
    """Without an iTwin, all iTwins of the identity are listed; with some, these, each once."""
    with Simulator() as sim:
        fleet = fill_fleet(sim, 3, itwins=2)
        every = list_all(sim)
        assert [(itwin.id, itwin.name, len(itwin.models)) for itwin in every] == [
            (fleet.itwins[0], "Project 00", 2),
            (fleet.itwins[1], "Project 01", 1),
        ]
        one = list_all(sim, fleet.itwins[1], fleet.itwins[1].upper())
        assert [(itwin.id, itwin.models) for itwin in one] == [
            (fleet.itwins[1], [(fleet.models[1].id, fleet.models[1].name)])
        ]
        fleet.refuse_itwin(0)
        with pytest.raises(NotAuthorised):
            list_all(sim, fleet.itwins[0])
        with pytest.raises(UsageError, match="is not an iTwin id"):
            list_all(sim, "Harbour")


def test_an_identity_without_itwins() -> None:
    """An identity that is a member of no iTwin is told to name one."""
    with Simulator() as sim, pytest.raises(UsageError, match="a member of no iTwin") as caught:
        list_all(sim)
    assert "--itwin" in (caught.value.hint or "")
