"""Run the shell and Python blocks of a documentation page, in order, and compare their output with the page.

A page is Markdown. Blocks run in one shell session, in a fresh folder, against a fake service. In the source of a page
`<!-- not run: REASON -->` before a block keeps it from running, and `<!-- step: NAME -->` makes something happen that
the reader cannot see, such as a new export of the service.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.fork_server import write_forking_program

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

COMMAND_TIMEOUT_S = 120
END_OF_OUTPUT = re.compile(rb"\x1e(\d+)\x1e")

NORMALISATIONS = {
    r"in \d+\.\d s \([\d.]+ \w+/s\)": "in SECONDS",
    r"in \d+\.\d s\b": "in SECONDS",
    r'"seconds": ?\d+(\.\d+)?': '"seconds":SECONDS',
    r"(\d[\d,]* (d|h|min|s) )+ago": "AGE ago",
    r"(?<=\S) {2,}": "  ",
    r"  \d+\.\d(?=$|  )": "  SECONDS",
    r"; (\d+ link renewals?)?(, )?(\d+ retr(y|ies))?(?=;)": "",
    r"^(ok    authorities ).*": r"\1AUTHORITIES",
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00)?": "TIME",
    r'"host": ?"[^"]*"': '"host":HOST',
    r'"(renewals|retries)": ?\d+': r'"\1":COUNT',
    r"^.*; trying again for up to \d+ s\n": "",
    r"\?s[a-z]=[^\s\"]+": "?SIGNATURE",
}
"""Patterns of text that differs from run to run; a page shows it as it was in one run."""


@dataclass(frozen=True)
class Block:
    """Code block of a page. `line` is the number of its first line, from 1.

    `language` is "step" for a step, and "include" for a block that shows a file, whose path is the text.
    """

    language: str
    text: str
    line: int
    not_run: str = ""


@dataclass(frozen=True)
class Command:
    """Command of a shell block, with the output that the page shows."""

    text: str
    output: str


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks and steps of a page, in order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    fence, reason, start = "", "", 0
    for number, line in enumerate(lines, 1):
        if fence:
            if line == "```":
                text = "\n".join(lines[start : number - 1])
                include = re.fullmatch(r'--8<-- "(.*)"', text)
                found.append(Block("include", include[1], number) if include else Block(fence, text, start + 1, reason))
                fence, reason = "", ""
        elif line.startswith("```"):
            fence, start = line[3:].split(" ")[0] or "text", number
        elif match := re.fullmatch(r"<!-- (not run|step): (.*) -->", line):
            if match[1] == "step":
                found.append(Block("step", match[2], number))
            else:
                reason = match[2]
        elif line:
            reason = ""
    return found


def split_commands(text: str) -> Iterator[Command]:
    """Return the commands of a shell block: each begins with `$ `, its next lines with `> `; the rest is output."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        rest = next((at for at, line in enumerate(lines) if at and not line.startswith("> ")), len(lines))
        yield Command("\n".join(line.removeprefix("> ") for line in lines[:rest]), "\n".join(lines[rest:]))


def join_commands(commands: Sequence[Command]) -> str:
    """Return the text of a shell block with these commands."""
    parts = ["$ " + command.text.replace("\n", "\n> ") + f"\n{command.output}".rstrip() for command in commands]
    return "\n".join(parts)


def normalise(text: str) -> str:
    """Replace what differs from run to run."""
    for pattern, name in NORMALISATIONS.items():
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text.rstrip()


def matches(shown: str, printed: str) -> bool:
    """Return whether the shown output is the printed one; a line `…` stands for any number of lines."""
    parts = [re.escape(part) for part in re.split(r"^…\n?", normalise(shown), flags=re.MULTILINE)]
    return re.fullmatch("(?s:.*)".join(parts), normalise(printed)) is not None


class ShellSession:
    """Running shell in a folder.

    `places` maps names of the page, such as folders and hosts, to those of the test. They are replaced in commands, and
    back in their output, the longest first. `shown` maps further names in the output to what the page shows. With
    `by_forks`, `tilesync` runs by forks where the system can: each command takes half a second less.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        places: Mapping[str, str],
        shown: Mapping[str, str],
        *,
        by_forks: bool,
    ) -> None:
        self._places = places
        self._shown = shown
        path, inherited = f"{Path(sys.executable).parent}:{os.environ['PATH']}", list[int]()
        if by_forks and sys.platform == "linux":
            programs = folder.with_name("programs")
            inherited = [write_forking_program(programs)]
            path = f"{programs}:{path}"
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={"PATH": path, "LC_ALL": "C.UTF-8", **environment},
            pass_fds=inherited,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )

    def __enter__(self) -> ShellSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:
            pass

    def localise(self, text: str) -> str:
        """Replace the names of the page by those of the test."""
        for name, place in sorted(self._places.items(), key=lambda item: -len(item[0])):
            text = text.replace(name, place)
        return text

    def run(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit code and output. Variables and the current folder stay for the next one."""
        assert self._process.stdin is not None
        script = f"{{ {self.localise(command)}\n}} </dev/null; _exit=$?; printf '\\036%d\\036' $_exit; (exit $_exit)\n"
        self._process.stdin.write(script.encode())
        output, end = self._read_output()
        text = output.decode()
        for name, place in sorted(self._places.items(), key=lambda item: -len(item[1])):
            text = text.replace(place, name)
        for name, page_name in self._shown.items():
            text = text.replace(name, page_name)
        return int(end[1]), text

    def _read_output(self) -> tuple[bytes, re.Match[bytes]]:
        assert self._process.stdout is not None
        deadline, output = time.monotonic() + COMMAND_TIMEOUT_S, b""
        while (end := END_OF_OUTPUT.search(output)) is None:
            left = max(0.0, deadline - time.monotonic())
            ready = select.select([self._process.stdout], [], [], left)[0]
            piece = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not piece:
                raise TimeoutError(f"the shell ended, or took over {COMMAND_TIMEOUT_S} s: {output.decode()}")
            output += piece
        return output[: end.start()], end


def replace_block(page: Path, block: Block, text: str) -> None:
    """Write another text into a block of a page. The line numbers of the blocks before it stay right."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = block.line - 1
    lines[start : start + len(block.text.splitlines())] = text.splitlines()
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
