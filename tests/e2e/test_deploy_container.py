"""Test the Containerfile: its steps run one by one in a folder, and what they leave."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tilesync
from tests.support.builders import IMODEL
from tests.support.containerfile import ImageBuild, NoPackageIndex, parse_containerfile
from tests.support.deploy import DEPLOY, read_deploy_file
from tests.support.simulator import Simulator

PROJECT = DEPLOY.parents[1]


@pytest.mark.long
@pytest.mark.scale
def test_the_steps_of_the_containerfile_make_an_image_that_mirrors(tmp_path: Path, sim: Simulator) -> None:
    """The steps run in order; the entry point mirrors with a read-only image, and no installer is left in it."""
    build = ImageBuild(tmp_path, PROJECT)
    try:
        build.run(parse_containerfile(read_deploy_file("Containerfile")))
    except NoPackageIndex:
        pytest.skip("pip reaches no package index")
    assert tilesync.__version__ in build.call("--version").stdout
    left = {path.name for path in (build.root / "opt/tilesync/lib").glob("python3.*/site-packages/*")}
    left |= {path.name for path in (build.root / "usr/local/lib").glob("python3.*/site-packages/*")}
    assert {"tilesync", "obstore", "azure", "uvloop"} <= left
    assert left.isdisjoint({"pip", "setuptools", "wheel", "hatchling"})
    assert not (build.root / "src").exists()
    sim.offer_export()
    before = {path for path in build.root.rglob("*") if not path.is_relative_to(build.root / "state")}
    service = {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    build.environment |= service
    done = build.call("mirror", IMODEL, str(tmp_path / "tiles"), "--json", "--report", str(build.root / "state/r.json"))
    assert done.returncode == 0, done.stderr
    assert (build.root / "state/r.json").exists()
    after = {path for path in build.root.rglob("*") if not path.is_relative_to(build.root / "state")}
    assert after == before
    demo = build.call("demo", str(tmp_path / "demo"))
    assert demo.returncode == 0, demo.stderr


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    """The user is numeric, so that runAsNonRoot can check it; the same number owns the folder of the state."""
    instructions = [*parse_containerfile(read_deploy_file("Containerfile"))]
    (user,) = [each.words for each in instructions if each.name == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    number = user.partition(":")[0]
    assert any(f"-o {number} -g {number}" in each.words for each in instructions if each.name == "RUN")
    assert f"runAsUser: {number}\n" in read_deploy_file("kubernetes.yaml")


def test_the_context_of_the_image_has_what_is_copied_and_no_more() -> None:
    """Everything is ignored except the sources of COPY, so that no credentials of a checkout get into a layer."""
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    ignored = [line for line in lines if not line.startswith("#")]
    assert ignored[0] == "*"
    instructions = parse_containerfile(read_deploy_file("Containerfile"))
    copies = [each.words.split()[:-1] for each in instructions if each.name == "COPY"]
    sources = {source for words in copies if not words[0].startswith("--from=") for source in words}
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == sources
