"""Mistakes of one `[[mirror]]`, each with its key and line; and what a mirror without mistakes says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet_files import IMODEL, OTHER, find_mistakes, read_fleet


@pytest.mark.parametrize(
    ("lines", "mistake"),
    [
        (f'imodel = "{IMODEL}"\ndest = "x"', "1: [[mirror]] 1: it has no name"),
        (f'name = ""\nimodel = "{IMODEL}"\ndest = "x"', "2: [[mirror]] 1 name: it is empty"),
        (f'name = 3\nimodel = "{IMODEL}"\ndest = "x"', "2: [[mirror]] 1 name: 3 is not a text"),
        (f'name = "a\\nb"\nimodel = "{IMODEL}"\ndest = "x"', "2: [[mirror]] 1 name: it has a line break"),
        (f'name = "a"\nimodel = "{IMODEL}"', "1: [[mirror]] a: it has no dest"),
        ('name = "a"\ndest = "x"', "1: [[mirror]] a: it needs one of imodel, itwin and source, and has none of them"),
        (
            f'name = "a"\nimodel = "{IMODEL}"\nitwin = "{OTHER}"\ndest = "x"',
            "4: [[mirror]] a itwin: it needs one of imodel, itwin and source, and has imodel and itwin",
        ),
        ('name = "a"\nimodel = "Bridge"\ndest = "x"', "3: [[mirror]] a imodel: 'Bridge' is not an iModel id"),
        ('name = "a"\nitwin = 3\ndest = "x/{name}"', "3: [[mirror]] a itwin: 3 is not a text"),
        ('name = "a"\nitwin = "x"\ndest = "x/{name}"', "3: [[mirror]] a itwin: 'x' is not an iTwin id"),
        ('name = "a"\nsource = ""\ndest = "x"', "3: [[mirror]] a source: it is empty"),
        ('name = "a"\nsource = "https://h/c"\ndest = "x"', "3: [[mirror]] a source: a container link is a secret"),
        ('name = "a"\nsource = "~/held"\ndest = "x"', "3: [[mirror]] a source: the ~ of ~/held is not expanded"),
        ('name = "a"\nsource = "az:held"\ndest = "x"', "1: [[mirror]] a: two slashes are missing after az:"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = ""', "4: [[mirror]] a dest: it is empty"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = []', "4: [[mirror]] a dest: the list is empty"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = [3]', "4: [[mirror]] a dest: 3 is not a text"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = {{ a = 1 }}', "4: [[mirror]] a dest: refer to it by"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = "~/x"', "4: [[mirror]] a dest: the ~ of ~/x is not expanded"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = "~nobody/x"', "4: [[mirror]] a dest: the ~ of ~nobody/x is not"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = "az://account"', "1: [[mirror]] a: the container is missing"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = ["x", "x"]', "4: [[mirror]] a dest: the same destination is listed"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = ["x", "x/"]', "4: [[mirror]] a dest: one of the destinations is"),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = ["x", "x/y"]', "4: [[mirror]] a dest: one of the destinations is"),
        (
            f'name = "a"\nimodel = "{IMODEL}"\ndest = ["x", "y"]\nstate-dir = "s"',
            "5: [[mirror]] a state-dir: several destinations would share it",
        ),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = "x/{{nam}}"', "4: [[mirror]] a dest: {nam} is no placeholder"),
        (
            f'name = "a"\nimodel = "{IMODEL}"\ndest = "x/{{name"',
            "4: [[mirror]] a dest: a single brace is no",
        ),
        (f'name = "a"\nimodel = "{IMODEL}"\ndest = "x/{{itwin}}"', "4: [[mirror]] a dest: {itwin} has no value here"),
        ('name = "a"\nsource = "held"\ndest = "x/{imodel}"', "4: [[mirror]] a dest: {imodel} has no value here"),
        (f'name = "a"\nitwin = "{OTHER}"\ndest = "x"', "4: [[mirror]] a dest: several mirrors would share it"),
        (f'name = "a"\nitwin = "{OTHER}"\ndest = "x/{{itwin}}"', "4: [[mirror]] a dest: several mirrors would share"),
        (f'name = "a"\nitwin = "{OTHER}"\ndest = {{ env = "D" }}', "4: [[mirror]] a dest: all iModels of the iTwin"),
        (
            f'name = "a"\nitwin = "{OTHER}"\ndest = "x/{{name}}"\nstate-dir = "s"',
            "5: [[mirror]] a state-dir: several mirrors would share it",
        ),
        (f'name = "a"\nitwin = "{OTHER}"\ndest = "x/{{name}}"\ninclude = [1]', "5: [[mirror]] a include: 1 is not a"),
        (
            f'name = "a"\nimodel = "{IMODEL}"\ndest = "x"\ninclude-files = ["x"]',
            "5: [[mirror]] a include-files: there is no such key",
        ),
        (
            f'name = "a"\nimodel = "{IMODEL}"\ndest = "x"\nmax-age = "old"',
            "5: [[mirror]] a max-age: 'old' is not a duration",
        ),
        (
            f'name = "a"\nimodel = "{IMODEL}"\ndest = "x"\nkeep-version = 1',
            "5: [[mirror]] a keep-version: there is no such key; did you mean keep-versions?",
        ),
        (f'name = "a"\nimodel = "{IMODEL}"\ndests = "x"', "1: [[mirror]] a: it has no dest"),
    ],
)
def test_mistakes_of_a_mirror(tmp_path: Path, lines: str, mistake: str) -> None:
    """A missing, wrong or unknown key of a mirror is named with its line."""
    found = find_mistakes(tmp_path, f"[[mirror]]\n{lines}\n")
    assert found[0].startswith(mistake), found
    assert len(found) == (2 if "dests =" in lines else 1), found


def test_a_file_with_all_kinds_of_mirrors(tmp_path: Path) -> None:
    """iModels, iTwins, links and existing mirrors are read; relative paths start at the folder of the file."""
    text = (
        f'[[mirror]]\nname = "one"\nimodel = "{IMODEL.upper()}"\ndest = ["out/{{name}}", "az://account/container/{{imodel}}"]\n'
        f'[[mirror]]\nname = "all"\nitwin = "{OTHER}"\ndest = "out/{{itwin}}/{{name}}"\ninclude = "Bridge *"\n'
        'exclude = ["* old"]\ninclude-files = ["*.glb"]\n'
        '[[mirror]]\nname = "held"\nsource = "other/held"\ndest = "out/held"\n'
        '[[mirror]]\nname = "stored"\nsource = "s3://bkt/x"\ndest = "out/stored"\n'
    )
    one, every, held, stored = read_fleet(tmp_path, text).mirrors
    assert (one.imodel, one.dests) == (IMODEL, ("out/{name}", "az://account/container/{imodel}"))
    assert (every.include, every.exclude, every.options) == (("Bridge *",), ("* old",), {"include": ("*.glb",)})
    assert every.selects("Bridge 1", "x")
    assert not every.selects("Bridge 1 old", "x")
    assert (held.source, stored.source, stored.line) == (str(tmp_path / "other/held"), "s3://bkt/x", 16)
