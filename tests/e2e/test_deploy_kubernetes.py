"""Test the manifests for Kubernetes: their schema, their volumes, their exit codes, and the shell of the fleet."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.support.commandline import run_tilesync
from tests.support.containerfile import parse_containerfile
from tests.support.deploy import DEPLOY, read_deploy_file
from tilesync import errors
from tilesync.fleets.outcome import GRAVITY, STALE_EXIT, STOPPED_EXIT

MANIFESTS = ("kubernetes.yaml", "kubernetes-fleet.yaml")

RETRIED = {"kubernetes.yaml": {3, 6, 7}, "kubernetes-fleet.yaml": {3, 6, 7, 9, STOPPED_EXIT}}
"""Exit codes that do not fail a Job at once; the shell of the fleet makes 14 a 0."""

SIGNAL_CODES = {129, 130, 143}


def codes_of(name: str) -> set[int]:
    """Return the exit codes of a Job that failed: those of a fleet, or of a mirror, which is never stale or stopped."""
    codes = set(GRAVITY) - {0}
    return codes if "fleet" in name else codes - {STALE_EXIT, STOPPED_EXIT}


@pytest.fixture
def kubernetes_validate() -> ModuleType:
    """Return the package with the schemas of Kubernetes; skip the test without it, or fail if it is required."""
    if "kubernetes" in os.environ.get("TILESYNC_REQUIRE", "").split(","):
        return importlib.import_module("kubernetes_validate")
    reason = "kubernetes-validate (108 MB) is not installed: `make check` installs it"
    module = pytest.importorskip("kubernetes_validate", reason=reason)
    assert isinstance(module, ModuleType)
    return module


def load_manifests(name: str) -> list[dict[str, Any]]:
    """Return the documents of a file."""
    return list(yaml.safe_load_all(read_deploy_file(name)))


def job_of(name: str) -> dict[str, Any]:
    """Return the specification of the Job in a file."""
    spec: dict[str, Any] = load_manifests(name)[-1]["spec"]["jobTemplate"]["spec"]
    return spec


def container_of(name: str) -> dict[str, Any]:
    """Return the container of the Job in a file."""
    (container,) = job_of(name)["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_fits_the_schemas_of_kubernetes(name: str, kubernetes_validate: ModuleType) -> None:
    """Every document has the fields of its kind, and no other."""
    for document in load_manifests(name):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_everything_that_is_written_is_on_a_volume(name: str) -> None:
    """With a read-only root file system all files are written to volumes; no report is served."""
    container = container_of(name)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in job_of(name)["template"]["spec"]["volumes"]}
    environment = [each.words for each in parse_containerfile(read_deploy_file("Containerfile")) if each.name == "ENV"]
    assert f"XDG_STATE_HOME={mounts['state']}" in environment[0].split()
    report = Path(container["args"][container["args"].index("--report") + 1])
    assert str(report.parent) == mounts["state"]
    assert not Path(mounts["tiles"]).is_relative_to(report.parent)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_secret_is_a_file_and_no_variable(name: str) -> None:
    """The client secret is mounted; only its path and the client id are in the environment."""
    environment = {each["name"]: each for each in container_of(name)["env"]}
    assert environment["ITP_SERVICE_CLIENT_SECRET_FILE"]["value"] == "/secrets/client-secret"
    keys = [each["valueFrom"]["secretKeyRef"]["key"] for each in environment.values() if "valueFrom" in each]
    assert keys == ["client-id"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_exit_code_of_an_error_is_decided(name: str) -> None:
    """Each code either fails the Job at once or is retried, as the comment in the file says."""
    (failing,) = [rule["onExitCodes"] for rule in job_of(name)["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    classes = [found for found in vars(errors).values() if isinstance(found, type)]
    codes = {found.exit_code for found in classes if issubclass(found, errors.TilesyncError)}
    assert set(failing["values"]).isdisjoint(RETRIED[name])
    assert codes <= set(GRAVITY) | {10}  # the code of `verify`, which no Job runs
    assert codes_of(name) - set(failing["values"]) == RETRIED[name] | SIGNAL_CODES


def test_the_fleet_of_the_config_map_is_like_the_example() -> None:
    """The ConfigMap has keys of the example only, and every mirror goes to the volume of the tiles."""
    config = tomllib.loads(load_manifests("kubernetes-fleet.yaml")[0]["data"]["fleet.toml"])
    example = tomllib.loads((DEPLOY / "fleet.toml").read_text())
    for table in ("fleet", "defaults"):
        assert config[table].keys() <= example[table].keys()
    known = {key for mirror in example["mirror"] for key in mirror}
    for mirror in config["mirror"]:
        assert mirror.keys() <= known
        assert mirror["dest"].startswith("/tiles/")


def test_the_fleet_of_the_config_map_has_no_mistakes(tmp_path: Path) -> None:
    """`--check` accepts the file as the pod gets it."""
    (tmp_path / "fleet.toml").write_text(load_manifests("kubernetes-fleet.yaml")[0]["data"]["fleet.toml"])
    checked = run_tilesync("fleet", tmp_path / "fleet.toml", "--check")
    assert checked.exit_code == 0, checked.stderr


def start_fleet_shell(tmp_path: Path, program: str) -> subprocess.Popen[str]:
    """Start the command of the fleet's container with a script as tilesync."""
    (tmp_path / "tilesync").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "tilesync").chmod(0o755)
    container = container_of("kubernetes-fleet.yaml")
    words, path = [*container["command"], *container["args"]], f"{tmp_path}:/usr/bin:/bin"
    return subprocess.Popen(words, env={"PATH": path}, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (14, 0), (12, 12), (3, 3), (143, 143)])
def test_the_shell_of_the_fleet_makes_the_end_of_the_window_a_success(tmp_path: Path, code: int, seen: int) -> None:
    """14 becomes 0, every other code stays, and the arguments arrive."""
    shell = start_fleet_shell(tmp_path, f'echo "$@"\nexit {code}')
    printed, _ = shell.communicate(timeout=30)
    assert shell.returncode == seen
    assert printed.split() == container_of("kubernetes-fleet.yaml")["args"]


@pytest.mark.parametrize(("code", "seen"), [(143, 143), (14, 0)])
def test_the_shell_of_the_fleet_passes_on_the_signal_of_a_stop(tmp_path: Path, code: int, seen: int) -> None:
    """SIGTERM reaches the program, and its exit code, not that of the signal, is the one of the pod."""
    shell = start_fleet_shell(tmp_path, f'trap "exit {code}" TERM\necho ready\nwhile :; do sleep 0.1; done')
    assert shell.stdout is not None
    assert shell.stdout.readline() == "ready\n"
    shell.send_signal(signal.SIGTERM)
    shell.communicate(timeout=30)
    assert shell.returncode == seen
