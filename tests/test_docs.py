"""Test the documentation: every block of every page runs or parses, or says why it cannot run."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.demo_picture import PICTURE, take_picture
from tests.support.doc_pages import (
    PAGES,
    ROOT,
    Block,
    Command,
    join_commands,
    matches,
    read_blocks,
    replace_block,
    split_commands,
)
from tests.support.doc_service import PageRun
from tests.support.viewers import Browser, mean_difference, pixels
from tilesync import errors, events
from tilesync.fleets.file.reader import FLEET_KEYS
from tilesync.fleets.file.settings import Credentials, MirrorEntry
from tilesync.fleets.outcome import GRAVITY

UPDATES_PAGES = bool(os.environ.get("UPDATE_DOCS"))
"""True if outputs that changed are written into the pages, to be looked at with `git diff`."""

PARSERS: dict[str, Callable[[str], Any]] = {"json": json.loads, "toml": tomllib.loads, "python": ast.parse}
RUN_LANGUAGES = {"console", "python"}
TESTED_ELSEWHERE = {
    "nginx": "tests/e2e/test_web_servers.py",
    "caddy": "tests/e2e/test_web_servers.py",
    "js": "tests/e2e/test_viewer_urls.py",
}
"""The test of each language whose blocks are run by another one."""

INCLUDED = {"scripts/deploy/": "tests/e2e/test_deploy.py", "examples/": "tests/test_examples.py"}
"""Folders of the files that pages include, and their tests."""

FAILURE = re.compile(r"error: | failed \(\d+\)")
"""Text in the output of a command that fails: an error, or a failed mirror of a fleet."""

README_MAX_LINES = 150
PICTURE_MAX_BYTES = 200_000
PICTURE_TOLERANCE = 6.0
"""Mean difference of samples, of 255. The palette makes 1, a camera that is turned by 3 degrees 13."""


def page_name(page: Path) -> str:
    """Return the path of a page, as the test is named by."""
    return str(page.relative_to(ROOT))


def can_run(page: Path) -> bool:
    """Return whether a page has a block that runs."""
    return any(block.language in RUN_LANGUAGES and not block.not_run for block in read_blocks(page))


def check_console_block(run: PageRun, block: Block) -> Iterator[tuple[Command, str]]:
    """Run the commands of a shell block; return each as it is now, and the difference to the page ("": none)."""
    for command in split_commands(block.text):
        code, printed = run.shell.run(command.text)
        may_fail = FAILURE.search(command.output) is not None
        if matches(command.output, printed) and bool(code) == may_fail:
            yield command, ""
        else:
            problem = f"$ {command.text}\n--- shown\n{command.output}\n--- printed, exit {code}\n{printed}"
            yield Command(command.text, printed.rstrip()), problem


def check_python_block(run: PageRun, block: Block, shown: Block) -> tuple[str, str]:
    """Run a Python block; return its output, and how it differs from the text block that follows."""
    (run.folder / "block.py").write_text(run.shell.localise(block.text), encoding="utf-8")
    code, printed = run.shell.run(f"python {run.folder / 'block.py'}")
    if code == 0 and matches(shown.text, printed):
        return shown.text, ""
    return printed.rstrip(), f"{block.text}\n--- shown\n{shown.text}\n--- printed, exit {code}\n{printed}"


def check_page(run: PageRun, blocks: list[Block]) -> Iterator[tuple[Block, str, str]]:
    """Run the blocks of a page in order; return each that differs, its text as it is now, and the difference."""
    for block, following in pairwise([*blocks, Block("end", "", 0)]):
        if block.language == "step":
            run.step(block.text)
        elif block.language == "console" and not block.not_run:
            results = list(check_console_block(run, block))
            if problem := "\n".join(problem for _, problem in results if problem):
                yield block, join_commands([command for command, _ in results]), problem
        elif block.language == "python" and not block.not_run:
            text, problem = check_python_block(run, block, following)
            if problem:
                yield following, text, problem


@pytest.mark.e2e
@pytest.mark.parametrize("page", [page for page in PAGES if can_run(page)], ids=page_name)
def test_commands_of_a_page_print_the_shown_output(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The commands of a page, in order, print what the page shows; its programs run."""
    with ExitStack() as stack:
        found = list(check_page(PageRun(page, tmp_path, request, stack), read_blocks(page)))
    if UPDATES_PAGES:
        for block, text, _ in reversed(found):
            replace_block(page, block, text)
    assert not found, "\n\n".join(problem for _, _, problem in found)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_block_is_tested(page: Path) -> None:
    """A block is of a known language; JSON, TOML and Python parse; console blocks have commands."""
    for block in read_blocks(page):
        at = f"{page_name(page)}:{block.line}"
        if block.language in PARSERS:
            PARSERS[block.language](block.text)
        elif block.language == "console":
            assert block.text.startswith("$ "), at
        elif block.language == "include":
            assert (ROOT / block.text).is_file(), at
            assert block.text.startswith(tuple(INCLUDED)), at
        else:
            assert block.language in {"text", "step", *TESTED_ELSEWHERE}, at


def test_blocks_tested_elsewhere_have_a_test() -> None:
    """The tests that run the other blocks and the included files exist."""
    assert all((ROOT / test).is_file() for test in (*TESTED_ELSEWHERE.values(), *INCLUDED.values()))


NOT_RUN = {
    "it installs packages from the network",
    "it runs until Ctrl-C, and opens a browser",
    "it would install another tilesync over the one that is tested",
    "the token differs each time",
}
"""Every reason why a block is not run."""


def test_blocks_that_are_not_run_have_a_reason() -> None:
    """The reasons why blocks of the pages are not run are these."""
    assert {block.not_run for page in PAGES for block in read_blocks(page)} - {""} == NOT_RUN


def read_table_rows(name: str, heading: str) -> list[list[str]]:
    """Return the cells of the rows of a table: the one whose heading row begins like this."""
    table = (ROOT / "docs" / name).read_text(encoding="utf-8").partition(f"\n| {heading} ")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_table_of_exit_codes_is_complete() -> None:
    """The page of formats has each error that ends a run, at its exit code."""
    shown = {name: row[0] for row in read_table_rows("formats.md", "exit") for name in re.findall(r"`(\w+)`", row[-1])}
    hidden = {errors.RunError, errors.ListingDenied}  # the base class; a refusal that the walk goes on from
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.RunError)]
    assert {each.__name__: shown.get(each.__name__) for each in classes if each not in hidden} == {
        each.__name__: str(each.exit_code) for each in classes if each not in hidden
    }


def test_the_table_of_events_is_complete() -> None:
    """The page of formats has each kind of event, with its fields."""
    rows = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in read_table_rows("formats.md", "kind")}
    classes = [each for each in vars(events).values() if isinstance(each, type) and issubclass(each, events.Event)]
    for event in classes:
        if event is not events.Event:
            assert rows[event.kind] == [field.name for field in fields(event)]


def test_the_order_of_exit_codes_of_a_fleet_is_that_of_the_program() -> None:
    """The page of fleets has all exit codes from the gravest to the best, as GRAVITY has."""
    assert tuple(int(row[0]) for row in read_table_rows("fleet.md", "exit")) == GRAVITY


def test_the_tables_of_a_fleet_file_are_complete() -> None:
    """The page of fleets has each key of [fleet], and each key of [defaults] and [[mirror]] that `mirror` has not."""
    shown = {key for row in read_table_rows("fleet.md", "key | meaning") for key in re.findall(r"`([\w-]+)`", row[0])}
    assert shown == FLEET_KEYS
    shown = {key for row in read_table_rows("fleet.md", "key | in") for key in re.findall(r"`([\w-]+)`", row[0])}
    assert shown - {"mirror", "include-files", "exclude-files", "token-file", "token-command"} == {
        {"dests": "dest"}.get(field.name, field.name.replace("_", "-"))
        for field in (*fields(MirrorEntry), *fields(Credentials))
        if field.name not in {"options", "credentials", "line"}
    }


OUTSIDE = re.compile(r"\.\./shared|\b(HOUSE|HABITS|DESIGN)\.md\b")
"""Names of documents and folders outside of the repository."""

MAY_NAME_OUTSIDE = {".ci/run", "tests/test_docs.py"}
"""The first finds real tilesets beside the checkout, if they are there; the second has the pattern."""


def list_repository_files() -> list[Path]:
    """Return the files that git tracks."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


def test_nothing_points_outside_of_the_repository() -> None:
    """No file of the repository names a document or folder that is not part of it."""
    found = {
        name: match[0]
        for path in list_repository_files()
        if (name := path.relative_to(ROOT).as_posix()) not in MAY_NAME_OUTSIDE
        and (match := OUTSIDE.search(path.read_text(encoding="utf-8", errors="replace")))
    }
    assert found == {}


def test_the_readme_is_short() -> None:
    """The README has fewer than 150 lines: the pages say the rest."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < README_MAX_LINES


def test_the_readme_links_to_every_page() -> None:
    """The README names each page of the documentation, and every file that it links to exists."""
    links = set(re.findall(r"\]\(([^)#:]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert {page_name(page) for page in PAGES if page.parent == ROOT / "docs"} <= links


def test_the_picture_equals_the_drawing_of_a_viewer(browser: Browser, tmp_path: Path) -> None:
    """The picture of the demo city in the documentation is what 3d-tiles-renderer draws today, but for its palette."""
    shown = PICTURE.read_bytes()
    assert len(shown) <= PICTURE_MAX_BYTES
    assert mean_difference(pixels(shown), pixels(take_picture(browser, tmp_path))) < PICTURE_TOLERANCE
