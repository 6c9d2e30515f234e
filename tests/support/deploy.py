"""The files of scripts/deploy on a machine that is a folder of the test."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

from tests.support.builders import IMODEL
from tests.support.fleet_service import Fleet
from tests.support.simulator import Simulator

DEPLOY = Path(__file__).resolve().parents[2] / "scripts" / "deploy"

ITWIN = "22222222-3333-4444-5555-666666666666"
"""The iTwin of the examples of a fleet; their iModel is IMODEL."""

FOLDERS = ("/etc/tilesync", "/var/log", "/var/lib", "/srv/tiles", "/opt/tilesync", "/run/credentials")
"""Folders of the machine that the files name."""


def read_deploy_file(name: str) -> str:
    """Return the text of a file."""
    return (DEPLOY / name).read_text(encoding="utf-8")


def relocate_paths(words: str, root: Path) -> str:
    """Replace the machine's folders in a text by folders of the test."""
    for folder in FOLDERS:
        words = words.replace(folder, f"{root}{folder}")
    return words


def make_machine(root: Path) -> Path:
    """Make the folders that the files expect, with tilesync installed there."""
    for folder in (
        "etc/tilesync", "var/log/tilesync", "var/lib/tilesync", "srv/tiles", "opt/tilesync/bin", "run/credentials"
    ):  # fmt: skip
        (root / folder).mkdir(parents=True)
    program = root / "opt/tilesync/bin/tilesync"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tilesync "$@"\n')
    program.chmod(0o755)
    return root


def write_settings(machine: Path, dest: str, sim: Simulator, **more: str) -> None:
    """Write the settings of a mirror, as in the example."""
    named = {
        "TILESYNC_SOURCE": IMODEL,
        "TILESYNC_DEST": dest,
        "TILESYNC_API_URL": sim.url,
        "TILESYNC_TOKEN": sim.token,
        "TILESYNC_RETRY_FOR": "10s",
        **more,
    }
    lines = "".join(f"{name}='{value}'\n" for name, value in named.items())
    (machine / "etc/tilesync/office.env").write_text(lines)


def write_fleet(machine: Path, fleet: Fleet, *, head: str = "", **more: str) -> None:
    """Write the example of a fleet file with ids of a simulator, and its environment.

    The night ends 12 hours from now, so that the time of day does not matter. `head`: further lines for [fleet].
    """
    text = relocate_paths(read_deploy_file("fleet.toml"), machine)
    for old, new in (
        (IMODEL, fleet.models[0].id),
        (ITWIN, fleet.itwins[0]),
        ('until = "06:00"', f'until = "{datetime.now() + timedelta(hours=12):%H:%M}"\n{head}'),
    ):
        assert old in text
        text = text.replace(old, new)
    (machine / "etc/tilesync/fleet.toml").write_text(text)
    named = {"TILESYNC_API_URL": fleet.sim.url, "TILESYNC_TOKEN": fleet.sim.token, **more}
    (machine / "etc/tilesync/fleet.env").write_text("".join(f"{name}='{value}'\n" for name, value in named.items()))


def run_cron_line(machine: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run the line of a crontab with /bin/sh, HOME and the variables of the file only, as cron does."""
    crontab = relocate_paths(read_deploy_file(name), machine)
    environment = dict(re.findall(r"^([A-Z_]+)=(.*)$", crontab, re.MULTILINE))
    (line,) = re.findall(r"^[0-9]+ [0-9]+ \* \* \*  tilesync  (.*)$", crontab, re.MULTILINE)
    home = {"HOME": "/nonexistent", "LOGNAME": "tilesync", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    shell = [environment["SHELL"], "-c", line]
    return subprocess.run(shell, env={**home, **environment}, capture_output=True, text=True, timeout=120, check=False)


class Unit:
    """A service unit on the machine: its settings, and its command as systemd runs it."""

    def __init__(self, name: str, machine: Path, instance: str = "") -> None:
        self._machine = machine
        self.text = read_deploy_file(name)
        self._specifiers = {"%i": instance, "%S": "/var/lib", "%d": f"/run/credentials/{name}", "%n": name}

    def settings(self, name: str) -> list[str]:
        """Return all values of a setting, with specifiers resolved."""
        found = re.findall(rf"^{name}=(.*)$", self.text, re.MULTILINE)
        return [self._resolve(value) for value in found]

    def command(self) -> list[str]:
        """Return the command of ExecStart on this machine."""
        (line,) = self.settings("ExecStart")
        return shlex.split(relocate_paths(line, self._machine))

    def environment(self) -> dict[str, str]:
        """Return the environment of the command: the unit's variables, overridden by those of the file."""
        named = dict(value.partition("=")[::2] for value in self.settings("Environment"))
        (file,) = (
            Path(relocate_paths(path.removeprefix("-"), self._machine)) for path in self.settings("EnvironmentFile")
        )
        lines = file.read_text().splitlines() if file.exists() else []
        read = dict(line.partition("=")[::2] for line in lines if not line.startswith("#"))
        python_path = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        named = {name: relocate_paths(value, self._machine) for name, value in named.items()}
        return {**python_path, **named, **{name: value.strip("'") for name, value in read.items()}}

    def load_credentials(self) -> None:
        """Copy the files of LoadCredential into the folder of the credentials; a missing one is an error."""
        folder = Path(relocate_paths(self._specifiers["%d"], self._machine))
        folder.mkdir(parents=True, exist_ok=True)
        for value in self.settings("LoadCredential"):
            name, _, path = value.partition(":")
            shutil.copyfile(relocate_paths(path, self._machine), folder / name)

    def run(self, *wrapper: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command, by a wrapper if one is given, with the environment of the unit and nothing else."""
        self.load_credentials()
        words = [*wrapper, *self.command()]
        environment = {**self.environment(), **more}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def _resolve(self, value: str) -> str:
        for specifier, meaning in self._specifiers.items():
            value = value.replace(specifier, meaning)
        return value
