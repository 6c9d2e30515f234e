"""Options that contradict each other, and mirrors that would share a name or a place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet_files import GOOD, ONE, OTHER, assert_one, read_fleet


@pytest.mark.parametrize(
    ("lines", "mistake"),
    [
        ('layout = "flat"\nkeep-versions = 3', "6: [[mirror]] a keep-versions: --keep-versions needs the versioned"),
        ('layout = "flat"\nall-exports = true', "6: [[mirror]] a all-exports: --all-exports needs the versioned"),
        ('layout = "flat"\nno-publish = true', "6: [[mirror]] a no-publish: --no-publish needs the versioned layout"),
        ("delete = true", "5: [[mirror]] a delete: --delete needs --layout flat"),
        ("max-delete = 5", "5: [[mirror]] a max-delete: --max-delete needs --delete"),
        ("server-copy = true", "5: [[mirror]] a server-copy: --server-copy needs a DEST in Azure"),
        ("create-container = true", "5: [[mirror]] a create-container: --create-container needs a DEST in Azure"),
        ('endpoint-url = "http://host"', "1: [[mirror]] a: plain http is accepted on this machine only"),
        ('exclude = ["/"]', "5: [[mirror]] a exclude: a glob is empty"),
        ('cache-control = "a\\nb"', "5: [[mirror]] a cache-control: "),
    ],
)
def test_contradictory_options(tmp_path: Path, lines: str, mistake: str) -> None:
    """Options that contradict each other, or that the destination does not support, are refused as by `mirror`."""
    assert_one(tmp_path, f"{GOOD}{lines}\n", mistake)


@pytest.mark.parametrize(
    ("source", "lines", "mistake"),
    [
        ('{ env = "LINK" }', "all-exports = true", "5: [[mirror]] a all-exports: --all-exports needs an iModel id"),
        ('"held"', "cdn = true", "5: [[mirror]] a cdn: --cdn: not possible if SOURCE is a mirror"),
        ('"az://account/container"', 'inventory = "walk"', "5: [[mirror]] a inventory: --inventory walk: not possible"),
    ],
)
def test_options_that_the_source_does_not_support(tmp_path: Path, source: str, lines: str, mistake: str) -> None:
    """A container link and an existing mirror refuse the options that they cannot serve."""
    assert_one(tmp_path, f'[[mirror]]\nname = "a"\nsource = {source}\ndest = "x"\n{lines}\n', mistake)


def test_options_of_defaults_that_one_mirror_does_not_support(tmp_path: Path) -> None:
    """An option of [defaults] that one mirror does not support is a mistake of that mirror."""
    text = f'[defaults]\ncontent = "decoded"\n{GOOD}[[mirror]]\nname = "b"\nimodel = "{OTHER}"\ndest = "s3://bkt/b"\n'
    assert_one(tmp_path, text, "7: [[mirror]] b content: --content decoded needs a folder as DEST")


@pytest.mark.parametrize("name", ["a", "A"])
def test_names_must_differ(tmp_path: Path, name: str) -> None:
    """Two mirrors of one name are refused, also if only the case differs; the message has the line of the first."""
    text = f'{GOOD}[[mirror]]\nname = "{name}"\nimodel = "{OTHER}"\ndest = "out/b"\n'
    assert_one(tmp_path, text, f"6: [[mirror]] {name} name: another mirror has this name (line 1)")


@pytest.mark.parametrize(
    "dest",
    [
        "out/a", "out/a/", "./out//a", "OUT/A", "out/a/inner", "out", "x/../out/a", "{folder}/out/a", "{folder}/link/a",
        "out/{name}/../a",
    ],
)  # fmt: skip
def test_places_must_differ(tmp_path: Path, dest: str) -> None:
    """Two mirrors with one place, or one inside the other, are refused, however the place is written."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    dest = dest.replace("{folder}", str(tmp_path))
    text = f'{GOOD}[[mirror]]\nname = "b"\nimodel = "{OTHER}"\ndest = "{dest}"\n'
    assert_one(tmp_path, text, "8: [[mirror]] b dest: a and b would share a place, or one would be inside the other")


def test_places_in_stores_must_differ(tmp_path: Path) -> None:
    """Prefixes of one container are compared like folders; one bucket of two services is two places."""
    second = f'[[mirror]]\nname = "b"\nimodel = "{OTHER}"\n'
    for dest in ("az://account/container/x", "az://account/container/x/y/"):
        text = f'{ONE}dest = "az://account/container/x/"\n{second}dest = "{dest}"\n'
        assert_one(tmp_path, text, "8: [[mirror]] b dest: a and b would share a place")
    text = f'{ONE}dest = "s3://bkt/x"\n{second}dest = "s3://bkt/x"\nendpoint-url = "https://minio"\n'
    assert len(read_fleet(tmp_path, text).mirrors) == 2
    assert len(read_fleet(tmp_path, f'{ONE}dest = "out/a"\n{second}dest = "out/a-b"\n').mirrors) == 2


def test_one_reference_is_one_place(tmp_path: Path) -> None:
    """Two mirrors whose destination is the same secret are refused; two secrets may be two places."""
    second = f'[[mirror]]\nname = "b"\nimodel = "{OTHER}"\n'
    text = f'{ONE}dest = {{ env = "DEST" }}\n{second}dest = {{ env = "DEST" }}\n'
    assert_one(tmp_path, text, "8: [[mirror]] b dest: a and b would share a place")
    assert len(read_fleet(tmp_path, text.replace("DEST", "OTHER", 1)).mirrors) == 2


def test_places_of_an_itwin(tmp_path: Path) -> None:
    """A template inside the place of another mirror is refused; two templates of one folder may differ."""
    itwin = f'[[mirror]]\nname = "b"\nitwin = "{OTHER}"\n'
    text = f'{GOOD}{itwin}dest = "out/a/{{name}}"\n'
    assert_one(tmp_path, text, "8: [[mirror]] b dest: a and b would share a place")
    other = itwin.replace('"b"', '"c"')
    assert len(read_fleet(tmp_path, f'{GOOD}{itwin}dest = "out/{{name}}"\n{other}dest = "out/{{name}}"\n').mirrors) == 3


def test_state_folders_must_differ(tmp_path: Path) -> None:
    """Two mirrors with one state-dir are refused, also if it comes from [defaults]."""
    text = f'{GOOD}state-dir = "s"\n[[mirror]]\nname = "b"\nimodel = "{OTHER}"\ndest = "out/b"\nstate-dir = "s/"\n'
    assert_one(tmp_path, text, "10: [[mirror]] b state-dir: a and b would share a place")
    assert_one(tmp_path, f'[defaults]\nstate-dir = "s"\n{GOOD}', "2: [defaults] state-dir: several mirrors would share")
    settings = read_fleet(tmp_path, f'[defaults]\nstate-dir = "s/{{name}}"\n{GOOD}')
    assert settings.mirrors[0].options["state-dir"] == str(tmp_path / "s/{name}")
