"""A Containerfile, parsed, and run step by step in a folder: there is no container engine on most test machines."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PYTHON_BASE = re.compile(r"docker\.io/library/python:\$\{PYTHON\}-slim")
"""The base image that the folder can stand for: a Python with pip in /usr/local."""

IMAGE_FOLDERS = ("/opt/tilesync", "/usr/local", "/src", "/state")

AUTHORITIES = {name: value for name, value in os.environ.items() if name.startswith("SSL_")}
"""Settings of this machine, read before the tests set theirs: pip needs them to reach its index."""

NO_INDEX = ("No matching distribution found", "NewConnectionError", "Failed to establish a new connection")
"""Words of pip when it finds no package at all."""


class NoPackageIndex(Exception):
    """The build needs packages, and pip reaches no index."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, and the rest of its lines as one."""

    name: str
    words: str


def parse_containerfile(text: str) -> Iterator[Instruction]:
    """Yield the instructions, without comments, with continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, words = line.partition(" ")
        yield Instruction(name.upper(), words.strip())


class ImageBuild:
    """The steps of a Containerfile, run with the paths of the image inside a folder.

    A RUN runs in /bin/sh with the folder's own Python first in its PATH; a change of owner is left out, since it needs
    root. Each FROM starts anew; COPY --from reads what an earlier stage left.
    """

    def __init__(self, root: Path, context: Path) -> None:
        self.root = root / "image"
        self._stages = root
        self._context = context
        self._names: list[str] = []
        self.environment: dict[str, str] = {}
        self.entrypoint: list[str] = []
        self.user = ""
        self.labels: dict[str, str] = {}

    def run(self, instructions: Iterator[Instruction]) -> None:
        """Run all instructions; an unknown one is an error."""
        for each in instructions:
            step = getattr(self, f"_step_{each.name.lower()}", None)
            assert step is not None, f"the test cannot run {each.name}"
            step(each.words)

    def locate(self, words: str) -> str:
        """Replace paths of the image in a text by those in the folder."""
        return re.sub(rf"(?<![\w/])({'|'.join(IMAGE_FOLDERS)})\b", lambda found: f"{self.root}{found[1]}", words)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the entry point with these arguments, with the environment of the image and nothing else."""
        environment = {name: self.locate(value) for name, value in self.environment.items()}
        program = shutil.which(self.entrypoint[0], path=environment["PATH"])
        assert program is not None
        words = [program, *self.entrypoint[1:], *arguments]
        return subprocess.run(
            words, env=environment, cwd=self.root / "state", capture_output=True, text=True, timeout=120, check=False
        )

    def _step_arg(self, words: str) -> None:
        assert re.fullmatch(r"PYTHON=3\.1\d", words)

    def _step_from(self, words: str) -> None:
        image, _, name = words.partition(" AS ")
        assert PYTHON_BASE.fullmatch(image), image
        if self.root.exists():
            self.root.rename(self._stages / self._names[-1])
        self._names.append(name)
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        base = self._stages / "base"
        if not base.exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.root / "usr/local")], check=True)
            shutil.copytree(self.root, base, symlinks=True)
        else:
            shutil.copytree(base, self.root, symlinks=True)

    def _step_copy(self, words: str) -> None:
        *sources, target = shlex.split(words)
        origin = self._context
        if sources[0].startswith("--from="):
            origin = self._stages / sources.pop(0).removeprefix("--from=")
            assert sources == [target], "what is moved elsewhere would have wrong paths in its scripts"
        for source in sources:
            found, place = origin / source.lstrip("/"), Path(f"{self.root}{target}")
            if found.is_dir():
                shutil.copytree(found, place, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                assert target.endswith("/"), "several files need a folder"
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, place)

    def _step_run(self, words: str) -> None:
        words = re.sub(r" -[og] \d+", "", words) if os.geteuid() != 0 else words
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HTTP", "http"))}
        path = {"PATH": self.locate(self.environment["PATH"]), "HOME": os.environ.get("HOME", "/")}
        shell = ["/bin/sh", "-ec", self.locate(words)]
        done = subprocess.run(
            shell,
            env={**kept, **AUTHORITIES, **path},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if done.returncode != 0 and any(sign in done.stderr for sign in NO_INDEX):
            raise NoPackageIndex(done.stderr)
        assert done.returncode == 0, f"RUN {words}\n{done.stdout}{done.stderr}"

    def _step_label(self, words: str) -> None:
        self.labels |= dict(pair.partition("=")[::2] for pair in shlex.split(words))

    def _step_env(self, words: str) -> None:
        self.environment |= dict(pair.partition("=")[::2] for pair in shlex.split(words))

    def _step_volume(self, words: str) -> None:
        assert Path(f"{self.root}{words}").is_dir()

    def _step_workdir(self, words: str) -> None:
        assert Path(f"{self.root}{words}").is_dir()

    def _step_user(self, words: str) -> None:
        self.user = words

    def _step_entrypoint(self, words: str) -> None:
        self.entrypoint = json.loads(words)

    def _step_cmd(self, words: str) -> None:
        assert self.call(*json.loads(words)).returncode == 0
