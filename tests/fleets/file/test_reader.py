"""Mistakes of a fleet file as a whole and of its first tables, each with its table, key and line."""

from __future__ import annotations

import os
from datetime import time, timedelta
from pathlib import Path

import pytest

from tests.support.fleet_files import GOOD, IMODEL, ONE, OTHER, assert_one, find_mistakes, read_fleet
from tests.support.sample_secrets import LINK, SIG
from tilesync.errors import UsageError
from tilesync.fleets.file.mistakes import InvalidFleetFile
from tilesync.fleets.file.reader import FLEET_KEYS, read_fleet_file
from tilesync.fleets.file.settings import Credentials, SecretReference
from tilesync.runtime.safe_open import MAX_SMALL_FILE_BYTES

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
ACCOUNT_KEY = "A" * 86 + "=="

# --- the file ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[mirror]\n", "fleet.toml:1: this is not valid TOML"),
        ("[fleet]\njobs = 1\njobs = 2\n", "fleet.toml:3: this is not valid TOML"),
        ("[fleet]\nuntil = 06:00\n", "fleet.toml:2: this is not valid TOML"),
        ('[fleet]\nreport = "a\n', "fleet.toml:2: this is not valid TOML"),
        ('[fleet]\nreport = "C:\\data"\n', "fleet.toml:2: this is not valid TOML"),
        ("x = " + "[" * 2000 + "]" * 2000, "nested too deeply"),
    ],
)
def test_syntax_errors(tmp_path: Path, text: str, message: str) -> None:
    """A file that is no TOML is refused with the line."""
    with pytest.raises(UsageError) as caught:
        read_fleet(tmp_path, text)
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe, a binary and a giant file are usage errors that name the file; none blocks."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"a = 1\n\xff\xfe\n")
    (tmp_path / "giant").write_bytes(b"#" * (MAX_SMALL_FILE_BYTES + 1))
    for name in ("missing", ".", "binary", "giant"):
        with pytest.raises(UsageError, match=str(tmp_path)):
            read_fleet_file(tmp_path / name)
    with pytest.raises(UsageError, match="binary:2: this is not UTF-8"):
        read_fleet_file(tmp_path / "binary")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "the file: there is no [[mirror]]"),
        ("[fleet]\n", "the file: there is no [[mirror]]"),
        (GOOD + "[mirrors]\n", "5: the file: there is no table mirrors: only [fleet], [defaults] and [[mirror]]"),
        ("jobs = 1\n" + GOOD, "1: the file: there is no table jobs"),
        ("fleet = 1\n" + GOOD, "1: [fleet]: write [fleet] as a table"),
        ("[[fleet]]\njobs = 1\n" + GOOD, "1: [fleet]: write [fleet] as a table"),
        ('defaults = "x"\n' + GOOD, "1: [defaults]: write [defaults] as a table"),
        (f'[mirror]\nname = "a"\nimodel = "{IMODEL}"\n', "1: [[mirror]]: write [[mirror]], with two brackets"),
        ("mirror = 3\n", "1: [[mirror]]: write [[mirror]], with two brackets"),
        ("mirror = []\n", "the file: there is no [[mirror]]"),
        ("mirror = [1]\n", "1: [[mirror]]: write [[mirror]], with two brackets"),
    ],
)
def test_mistakes_of_tables(tmp_path: Path, text: str, mistake: str) -> None:
    """Tables that are unknown, missing or of another kind are named."""
    assert_one(tmp_path, text, mistake)


def test_all_mistakes_are_listed_by_line(tmp_path: Path) -> None:
    """All mistakes of a file are listed at once in its order, also duplicate names beside wrong values."""
    text = (
        f'[fleet]\njobs = 0\n[[mirror]]\nname = "a"\nimodel = "{IMODEL}"\ndest = "out"\nwait = "soon"\n'
        f'[[mirror]]\nname = "A"\nimodel = "{OTHER}"\ndest = "out/x"\n[defaults]\nlayuot = "flat"\n'
    )
    assert [mistake.split(": ")[:2] for mistake in find_mistakes(tmp_path, text)] == [
        ["2", "[fleet] jobs"],
        ["7", "[[mirror]] a wait"],
        ["9", "[[mirror]] A name"],
        ["11", "[[mirror]] A dest"],
        ["13", "[defaults] layuot"],
    ]
    with pytest.raises(InvalidFleetFile, match="has 5 mistakes:") as caught:
        read_fleet(tmp_path, text)
    assert "--check" in (caught.value.hint or "")


# --- [fleet] ---


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("jobs = 0", "jobs: '0' is neither 'auto' nor a number from 1 to 256"),
        ("jobs = 257", "jobs: '257' is neither"),
        ('jobs = "many"', "jobs: 'many' is neither"),
        ("jobs = true", "jobs: true is neither a text nor a number"),
        ("jobs = [1]", "jobs: a list is neither a text nor a number"),
        ("api-rate = 0", "api-rate: 0 is not a number from 1 to 100,000"),
        ("api-rate = 1.5", "api-rate: 1.5 is not a number"),
        ("api-rate = true", "api-rate: true is not a number"),
        ("connections = 5000", "connections: 5000 is not a number from 1 to 4,096"),
        ('bwlimit = "fast"', "bwlimit: 'fast' is not a rate"),
        ("bwlimit = 10", "bwlimit: '10' is below the minimum"),
        ('until = "25:00"', "until: '25:00' is not a time of day"),
        ("until = 6", "until: '6' is not a time of day"),
        ("until = false", "until: 'False' is not a time of day"),
        ('max-duration = "long"', "max-duration: 'long' is not a duration"),
        ('max-duration = "40000d"', "max-duration: '40000d' is too long"),
        ('state-dir = ""', "state-dir: it is empty"),
        ('state-dir = "s3://b/x"', "state-dir: this must be a local path, not a URL"),
        ("report = 3", "report: 3 is not a text"),
        ('report = "-"', "report: - is not accepted as a path"),
        ('report = "~/r.json"', "report: the ~ of ~/r.json is not expanded"),
        ('metrics-file = "fleet.txt"', "metrics-file: the name of the metrics file"),
        ('ping = "hc-ping.com/x"', "ping: the URL of --ping must begin with https://"),
        ("ping = 1", "ping: 1 is not a text"),
        ('ping = { url = "x" }', "ping: refer to it by { env = ... }"),
        ('on-failure = "mail \'x"', "on-failure: the command of this key cannot be read"),
        ("on-success = [1]", "on-success: a list is not a text"),
        ('on-success = ""', "on-success: it is empty"),
        ("job = 4", "job: there is no such key; did you mean jobs?"),
        ("xyzzy = 4", "xyzzy: there is no such key"),
        ("json = true", "json: not possible here: give --json on the command line of `tilesync fleet`"),
        ('layout = "flat"', "layout: there is no such key"),
    ],
)
def test_mistakes_of_the_fleet_table(tmp_path: Path, line: str, mistake: str) -> None:
    """A wrong value or an unknown key of [fleet] is named with its line."""
    assert_one(tmp_path, f"[fleet]\n{line}\n{GOOD}", f"2: [fleet] {mistake}")


def test_values_of_the_fleet_table(tmp_path: Path) -> None:
    """Every key of [fleet] is read; paths start at the folder of the file."""
    lines = {
        "jobs": "4", "api-rate": "200", "connections": "64", "bwlimit": '"50M"', "until": "06:00:00",
        "max-duration": '"5h"', "state-dir": '"state"', "report": '"r.json"', "metrics-file": '"/m/f.prom"',
        "ping": '"https://hc-ping.com/x"', "on-failure": "'mail root'", "on-success": "'true'",
    }  # fmt: skip
    assert lines.keys() == FLEET_KEYS
    settings = read_fleet(tmp_path, "[fleet]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()) + GOOD)
    assert (settings.jobs, settings.calls_per_minute, settings.connections, settings.bwlimit) == (4, 200, 64, 50e6)
    assert (settings.until, settings.max_duration) == (time(6), timedelta(hours=5))
    assert (settings.state_dir, settings.report) == (tmp_path / "state", tmp_path / "r.json")
    assert (settings.metrics_file, settings.ping) == (Path("/m/f.prom"), "https://hc-ping.com/x")
    assert (settings.on_failure, settings.on_success) == ("mail root", "true")


# --- secrets ---


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        (f'dest = "{LINK}"', "4: [[mirror]] a dest"),
        (f'dest = [\n"x",\n"{LINK}",\n]', "6: [[mirror]] a dest"),
        (f'dest = "out"\nlink-command = "echo {LINK}"', "5: [[mirror]] a link-command"),
        (f'dest = "out"\ntoken = "{JWT}"', "5: [[mirror]] a token"),
        (f'dest = "out"\ntoken = {{ env = "{JWT}" }}', "5: [[mirror]] a env"),
        (f'dest = "out"\ntoken-command = "echo {JWT}"', "5: [[mirror]] a token-command"),
        ('dest = "out"\nendpoint-url = "https://user:correct-horse@host"', "5: [[mirror]] a endpoint-url"),
        (f'dest = "out"\ncache-control = "AccountKey={ACCOUNT_KEY}"', "5: [[mirror]] a cache-control"),
        (f'dest = "out"\ncache-control = "{ACCOUNT_KEY}"', "5: [[mirror]] a cache-control"),
        (f'dest = "out"\non-publish = "curl -H \'Authorization: Bearer {SIG}\' u"', "5: [[mirror]] a on-publish"),
    ],
)
def test_secrets_are_refused(tmp_path: Path, lines: str, place: str) -> None:
    """A text that looks like a secret is one mistake, whose message does not show it."""
    text = f"{ONE}{lines}\n"
    assert_one(tmp_path, text, f"{place}: this looks like a secret: refer to it by {{ env = ... }}")
    shown = "".join(find_mistakes(tmp_path, text))
    assert not any(secret in shown for secret in (SIG, "correct-horse", JWT, ACCOUNT_KEY, "sv=2023"))


def test_secrets_elsewhere(tmp_path: Path) -> None:
    """Secrets in [fleet], in unknown tables and in a name are found; those in comments do not matter."""
    text = (
        f'# sig={SIG}\n[fleet]\nping = "https://h/x?token={SIG}"\n[other]\nx = ["{JWT}"]\n[[mirror]]\nname = "{JWT}"\n'
    )
    found = find_mistakes(tmp_path, text)
    assert [mistake.split(": ")[:2] for mistake in found] == [
        ["3", "[fleet] ping"],
        ["4", "the file"],
        ["5", "[other] x"],
        ["6", "[[mirror]] 1"],
        ["6", "[[mirror]] 1"],
        ["7", "[[mirror]] 1 name"],
    ]
    assert SIG not in "".join(found)
    assert JWT not in "".join(found)
    assert read_fleet(tmp_path, f"# {LINK}\n{GOOD}# token = {JWT}\n").mirrors[0].name == "a"


@pytest.mark.parametrize("key", ["token", "share-key", "client-secret"])
def test_identities_by_reference_only(tmp_path: Path, key: str) -> None:
    """An identity as text is refused and not shown, even if nothing in it looks like a secret."""
    more = 'client-id = "c"\n' if key == "client-secret" else ""
    assert_one(tmp_path, f'{GOOD}{key} = "correct-horse"\n{more}', f"5: [[mirror]] a {key}: refer to it by {{ env")
    assert "correct-horse" not in find_mistakes(tmp_path, f'{GOOD}{key} = "correct-horse"\n{more}')[0]


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("token = {}", "token: refer to it by"),
        ('token = { env = "A", file = "b" }', "token: refer to it by"),
        ('token = { environment = "A" }', "token: refer to it by"),
        ('token = { env = "" }', "token: env must be a text that is not empty"),
        ("token = { env = 3 }", "token: env must be a text that is not empty"),
        ('token = { env = "A=B" }', "token: env must be the name of a variable"),
        ('token = { file = "https://x/y" }', "token: this must be a local path"),
        ('token = { command = "\'" }', "token: the command of this key cannot be read"),
        ('token-file = ""', "token-file: it is empty"),
        ("token-command = 1", "token-command: 1 is not a text"),
        ('client-id = "c"', "client-id: client-id and client-secret belong together"),
        ('client-secret = { env = "S" }', "client-secret: client-id and client-secret belong together"),
        ('issuer-url = "https://i"', "issuer-url: it belongs to client-id and client-secret"),
        ('token = { env = "A" }\ntoken-file = "t"', "token-file: token and token-file are several identities"),
    ],
)
def test_mistakes_of_identities(tmp_path: Path, line: str, mistake: str) -> None:
    """Half an identity, several, and a wrong reference are named; in [defaults] too."""
    number = 6 if "\n" in line else 5
    assert_one(tmp_path, f"{GOOD}{line}\n", f"{number}: [[mirror]] a {mistake}")
    assert_one(tmp_path, f"[defaults]\n{line}\n{GOOD}", f"{number - 3}: [defaults] {mistake}")


def test_references(tmp_path: Path) -> None:
    """References are kept as such; those of [defaults] count where a mirror has none."""
    text = (
        '[fleet]\nping = { env = "PING" }\n[defaults]\nclient-id = "c"\nclient-secret = { file = "secret" }\n'
        f'{GOOD}[[mirror]]\nname = "b"\nsource = {{ command = "print-link" }}\ndest = {{ env = "DEST" }}\n'
        'token-file = "t"\n'
    )
    settings = read_fleet(tmp_path, text)
    first, second = settings.mirrors
    assert settings.ping == SecretReference(env="PING")
    assert first.credentials == Credentials(client_id="c", client_secret=SecretReference(file=tmp_path / "secret"))
    assert second.credentials == Credentials(SecretReference(file=tmp_path / "t"))
    assert (second.source, second.dests) == (SecretReference(command="print-link"), (SecretReference(env="DEST"),))
