"""State of a fleet: stored and read, by several processes, and damaged."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tilesync.errors import DestinationError, UsageError
from tilesync.fleets.state import FILE_NAME, FleetState, KnownMirror, default_state_dir, make_key
from tilesync.model.history import HeldVersion, MirrorHistory, RunRecord

MIRROR = KnownMirror(
    "site/a",
    "site",
    'Bridge "1" 漢',
    ("/srv/tiles/Bridge-1", "s3://bucket/a"),
    ("tiles/{name}", "s3://bucket/{imodel}"),
    imodel="a",
    itwin="t",
    history=MirrorHistory((RunRecord("2026-03-01T12:00:00Z", exit=0),), HeldVersion("v", "e", bytes=3)),
    max_age_s=3600.0,
    vanished="2026-03-01T12:00:00Z",
)


def change(folder: Path, sql: str) -> None:
    """Change the database as another program would."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as db, db:
        db.execute(sql)


def test_round_trip(tmp_path: Path) -> None:
    """Every field of a mirror is read as it was stored, in the order of the keys."""
    other = KnownMirror("other", "other", "other", ())
    with FleetState(tmp_path) as state:
        assert state.mirrors() == {}
        state.save([other, MIRROR])
        assert state.mirrors() == {"other": other, "site/a": MIRROR}
    with FleetState(tmp_path, read_only=True) as state:
        assert list(state.mirrors()) == ["other", "site/a"]
        assert state.mirrors()["site/a"] == MIRROR


def test_a_stored_mirror_keeps_its_history(tmp_path: Path) -> None:
    """Storing the place of a known mirror again does not replace its history; `save_histories` does."""
    with FleetState(tmp_path) as state:
        state.save([MIRROR])
        state.save([replace(MIRROR, name="Renamed", history=MirrorHistory())])
        assert state.mirrors()["site/a"] == replace(MIRROR, name="Renamed")
        newer = MirrorHistory((RunRecord("2026-03-02T12:00:00Z", exit=3),))
        state.save_histories([("site/a", newer), ("unknown", newer)])
        assert state.mirrors() == {"site/a": replace(MIRROR, name="Renamed", history=newer)}


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """Without a file, reading finds nothing and makes no folder; with one, it leaves every byte as it is."""
    missing = tmp_path / "missing"
    with FleetState(missing, read_only=True) as state:
        assert (state.mirrors(), state.read_rate()) == ({}, None)
    assert not missing.exists()
    with FleetState(tmp_path) as state:
        state.save([MIRROR])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with FleetState(tmp_path, read_only=True) as state:
        assert len(state.mirrors()) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


WRITER = """
import sys
from pathlib import Path
from tilesync.fleets.state import FleetState, KnownMirror
from tilesync.model.history import MirrorHistory
folder, process = Path(sys.argv[1]), sys.argv[2]
for number in range(40):
    with FleetState(folder) as state:
        state.save([KnownMirror(f"{process}/{number}", process, "x", ("/p",))])
        state.save_histories([(f"{process}/{number}", MirrorHistory(newest=process))])
"""


def test_several_processes_at_once(tmp_path: Path) -> None:
    """Processes that make, open and write the state at the same time lose nothing."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(n)]) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with FleetState(tmp_path, read_only=True) as state:
        known = state.mirrors()
    assert len(known) == 120
    assert {mirror.history.newest for mirror in known.values()} == {"0", "1", "2"}


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE mirror SET places='{'",
        "UPDATE mirror SET places='3'",
        "UPDATE mirror SET places='[3]'",
        "UPDATE mirror SET templates=x'ff'",
        "UPDATE meta SET value='new' WHERE key='schema'",
    ],
)
def test_damaged_rows(tmp_path: Path, sql: str) -> None:
    """A row that another program has written is an error of the state, which says what to do, and what that costs."""
    with FleetState(tmp_path) as state:
        state.save([MIRROR])
    change(tmp_path, sql)
    with (
        pytest.raises(DestinationError, match="the state of the fleet is damaged") as caught,
        FleetState(tmp_path) as state,
    ):
        state.mirrors()
    assert f"move {tmp_path / FILE_NAME} away" in (caught.value.hint or "")


def test_a_damaged_history_counts_as_none(tmp_path: Path) -> None:
    """A history that cannot be read is an empty one: the place is what counts."""
    with FleetState(tmp_path) as state:
        state.save([MIRROR])
        change(tmp_path, "UPDATE mirror SET history='{'")
        assert state.mirrors() == {"site/a": replace(MIRROR, history=MirrorHistory())}


def test_a_damaged_file(tmp_path: Path) -> None:
    """A file that is no database, a folder and a symlink in its place are errors; they are not replaced."""
    path = tmp_path / FILE_NAME
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DestinationError, match="the state of the fleet is damaged") as caught:
        FleetState(tmp_path)
    assert str(path) in (caught.value.hint or "")
    assert path.read_bytes().startswith(b"no database")
    path.rename(tmp_path / "other")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(DestinationError, match="the state of the fleet"):
        FleetState(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DestinationError, match="the state of the fleet"):
        FleetState(tmp_path)


def test_a_newer_schema(tmp_path: Path) -> None:
    """A state that a newer tilesync has written is refused, and stays as it is."""
    with FleetState(tmp_path) as state:
        state.save([MIRROR])
    change(tmp_path, "UPDATE meta SET value='99' WHERE key='schema'")
    for read_only in (True, False):
        with pytest.raises(DestinationError, match="the state of the fleet was written by a newer tilesync") as caught:
            FleetState(tmp_path, read_only=read_only)
        assert caught.value.hint == "upgrade tilesync"
    change(tmp_path, "UPDATE meta SET value='1' WHERE key='schema'")
    with FleetState(tmp_path) as state:
        assert state.mirrors() == {"site/a": MIRROR}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A state folder whose place is taken by a file is an error that names the key to change."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(DestinationError, match="the folder for the state of the fleet cannot be made") as caught:
        FleetState(tmp_path / "file" / "state")
    assert "state-dir" in (caught.value.hint or "")


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("place", ["file", "file/state"])
def test_a_file_in_place_of_the_folder(tmp_path: Path, place: str, *, read_only: bool) -> None:
    """A file in place of the state folder, or of one above it, is an error for readers too, which names the folder."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(DestinationError, match=str(tmp_path / place)) as caught:
        FleetState(tmp_path / place, read_only=read_only)
    assert caught.value.hint == "run it as the user of the fleet, or write another state-dir into [fleet]"


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
from tilesync.errors import DestinationError
from tilesync.fleets.state import FleetState
if os.geteuid() == 0:
    os.setuid(65534)
try:
    with FleetState(Path(sys.argv[1]), read_only=sys.argv[2] == "True") as state:
        state.store_rate(5)
except DestinationError as error:
    print(error, error.hint, sep="\\n")
"""


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "read_only"),
    [(0, 0o600, True), (0, 0o600, False), (0o555, 0, True), (0o555, 0, False), (0o555, 0o444, False)],
)
def test_a_state_of_another_user(folder_mode: int, file_mode: int, *, read_only: bool) -> None:
    """A state that this user may not open or change is an error that names the folder, and says who may."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # another user may come to the state folder
        folder = Path(name) / "state"
        with FleetState(folder) as state:
            state.save([MIRROR])
        (folder / FILE_NAME).chmod(file_mode)
        folder.chmod(folder_mode)
        command = [sys.executable, "-c", AS_ANOTHER_USER, str(folder), str(read_only)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        folder.chmod(0o700)
    assert done.returncode == 0, done.stderr
    message, hint = done.stdout.splitlines()
    assert message.startswith(f"the state of the fleet in {folder} cannot be used")
    assert hint == "run it as the user of the fleet, or write another state-dir into [fleet]"


def test_the_folder_is_private(tmp_path: Path) -> None:
    """The folder of the state is for its user only."""
    with FleetState(tmp_path / "state"):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("value", "rate"), [("fast", None), ("0", None), ("-3", None), ("inf", None), ("nan", None)])
def test_the_rate_of_earlier_nights(tmp_path: Path, value: str, rate: float | None) -> None:
    """The rate is read as it was stored; anything but a positive number counts as unknown."""
    with FleetState(tmp_path) as state:
        assert state.read_rate() is None
        state.store_rate(12_345_678.9)
        assert state.read_rate() == 12_345_679
        change(tmp_path, f"UPDATE meta SET value='{value}' WHERE key='bytes per second'")
        assert state.read_rate() is rate


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fleet file has a state of its own, also two of one name; without a home folder, the key is named."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    one, other = default_state_dir(Path("/a/fleet.toml")), default_state_dir(Path("/b/fleet.toml"))
    assert one.is_relative_to(tmp_path)
    assert one.name.startswith("fleet-")
    assert one != other
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr("tilesync.fleets.state.default_state_root", lambda: None)
    with pytest.raises(UsageError, match="no home folder") as caught:
        default_state_dir(Path("/a/fleet.toml"))
    assert "state-dir" in (caught.value.hint or "")


def test_keys() -> None:
    """The key of an iModel of an iTwin has its id, so that a display name does not matter."""
    assert (make_key("a"), make_key("site", "id")) == ("a", "site/id")
