"""Authentication: sources of tokens, and their renewal, once for all callers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

import pytest

from tests.support.clock import FakeClock
from tests.support.faults import error_response, is_blob
from tests.support.simulator import EXPORT, JobOutcome, Simulator
from tilesync.app import commands, service
from tilesync.demo.loopback_server import FakeResponse
from tilesync.errors import NotAuthorised, TilesyncError, Unavailable, UsageError
from tilesync.itwin.auth import (
    EMPTY_FILE_PAUSE_S,
    EMPTY_FILE_READS,
    BearerTokenProvider,
    ClientCredentialsGrant,
    ShareKeyProvider,
    extract_token,
    read_environment_token,
    read_token_file,
    run_token_command,
)
from tilesync.model import Secret
from tilesync.transport.api_client import open_api_client

T = TypeVar("T")


def run_with_client(sim: Simulator, clock: FakeClock, job: Callable[[Any], Awaitable[T]], *, budget: float = 5) -> T:
    async def work() -> T:
        async with open_api_client(clock, JobOutcome(), budget=timedelta(seconds=budget)) as conversation:
            return await job(conversation)

    return asyncio.run(work())


def issuing(sim: Simulator, expires_in: Any = 3600) -> None:
    issued = [0]

    def answer(_: Any) -> FakeResponse:
        issued[0] += 1
        document = {"access_token": f"t{issued[0]}", "token_type": "Bearer", "expires_in": expires_in}
        return FakeResponse(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    sim.token_answer = answer


@pytest.mark.parametrize("text", ["abc.def", " abc.def\n", "Bearer abc.def", "Bearer  abc.def \r\n"])
def test_a_token_is_read_with_or_without_bearer(text: str) -> None:
    """White space and the word Bearer are removed."""
    assert extract_token(text, "here").text == "abc.def"


@pytest.mark.parametrize("text", ["", "  ", "Bearer ", "two words", "two\nlines", "tökén"])
def test_invalid_token_is_refused_without_repeating_it(text: str) -> None:
    """Empty, several words, not ASCII: NotAuthorised, which names the source and not the text."""
    with pytest.raises(NotAuthorised) as caught:
        extract_token(text, "the place")
    assert "the place" in str(caught.value)
    assert "two" not in str(caught.value) + caught.value.hint


def test_the_environments_token_stays_refused() -> None:
    """It cannot be read again: once refused it stays refused."""

    async def work() -> None:
        token = BearerTokenProvider(lambda: read_environment_token(Secret("abc")), FakeClock())
        header = await token.header()
        assert header == "Bearer abc"
        assert await token.renew_refused(header) is False

    asyncio.run(work())


def test_a_file_is_read_again_when_refused(tmp_path: Path) -> None:
    """A file that holds another token now gives that one; with the same token the refusal stands."""
    path = tmp_path / "token"
    path.write_text("one\n")

    async def work() -> None:
        token = BearerTokenProvider(lambda: read_token_file(path), FakeClock())
        first = await token.header()
        assert await token.renew_refused(first) is False
        path.write_text("two\n")
        assert await token.header() == "Bearer one"
        assert await token.renew_refused(first) is True
        assert await token.header() == "Bearer two"

    asyncio.run(work())


def test_a_token_file_that_is_just_written_is_read_again(tmp_path: Path) -> None:
    """A file that is empty for a moment gives the token that comes; one that stays empty is NotAuthorised."""
    path = tmp_path / "token"
    path.write_text("")
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            path.write_text("fresh\n")

    assert asyncio.run(read_token_file(path, sleep=sleep))[0].text == "fresh"
    assert waits == [EMPTY_FILE_PAUSE_S] * 3
    path.write_text("\n")
    clock = FakeClock()
    with pytest.raises(NotAuthorised, match="contains no token"):
        asyncio.run(read_token_file(path, sleep=clock.sleep))
    assert clock.sleeps_s == [EMPTY_FILE_PAUSE_S] * (EMPTY_FILE_READS - 1)


def test_missing_token_file(tmp_path: Path) -> None:
    """NotAuthorised, with the path."""
    with pytest.raises(NotAuthorised, match="token"):
        asyncio.run(read_token_file(tmp_path / "token"))


def test_binary_token_file(tmp_path: Path) -> None:
    """A file that is not text is a NotAuthorised, not a bug."""
    (tmp_path / "token").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(NotAuthorised):
        asyncio.run(read_token_file(tmp_path / "token"))


def test_a_command_is_run_again_when_refused(tmp_path: Path) -> None:
    """Each refusal runs the command again; quoted arguments stay whole."""
    counter = tmp_path / "with space"
    script = "import sys; p = sys.argv[1]; open(p, 'a').write('x'); print('t%d' % len(open(p).read()))"
    command = f'{sys.executable} -c "{script}" "{counter}"'

    async def work() -> None:
        token = BearerTokenProvider(lambda: run_token_command(command), FakeClock())
        assert await token.header() == "Bearer t1"
        assert await token.header() == "Bearer t1"
        assert await token.renew_refused("Bearer t1") is True
        assert await token.header() == "Bearer t2"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("false", NotAuthorised),
        ("/nowhere/at/all", NotAuthorised),
        ("true", NotAuthorised),
        ("'unbalanced", UsageError),
        ("", UsageError),
    ],
)
def test_failing_token_command(command: str, error: type[TilesyncError]) -> None:
    """It fails, is missing, prints nothing, or cannot be parsed: an error with a hint."""
    with pytest.raises(error) as caught:
        asyncio.run(run_token_command(command))
    assert caught.value.hint


def test_many_refusals_cause_one_fetch() -> None:
    """64 callers hold the same refused token: one fetch for all of them."""
    fetched = [0]

    async def fetch() -> tuple[Secret, float | None]:
        fetched[0] += 1
        await asyncio.sleep(0)
        return Secret(f"t{fetched[0]}"), None

    async def work() -> None:
        token = BearerTokenProvider(fetch, FakeClock())
        headers = await asyncio.gather(*(token.header() for _ in range(64)))
        assert set(headers) == {"Bearer t1"}
        again = await asyncio.gather(*(token.renew_refused("Bearer t1") for _ in range(64)))
        assert set(again) == {True}
        assert fetched[0] == 2

    asyncio.run(work())


def test_client_credentials_are_a_form_post(tmp_path: Path) -> None:
    """POST to {issuer}/connect/token, with id, secret and scope form-encoded in the body and nothing in the URL."""
    secret, identity = "p&ss=wörd+%/", "service-AbC 1"
    with Simulator() as sim:
        issuing(sim)
        result, lifetime_s = run_with_client(
            sim,
            FakeClock(),
            lambda client: ClientCredentialsGrant(client, sim.url + "/", identity, Secret(secret)).fetch(),
        )
        (request,) = sim.requests
    assert (result.text, lifetime_s) == ("t1", 3600)
    assert (request.path, request.query) == ("/connect/token", {})
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["client_credentials"], "client_id": [identity], "client_secret": [secret],
        "scope": ["itwin-platform"],
    }  # fmt: skip


@pytest.mark.parametrize(("lifetime_s", "renewal_s"), [(3600, 3540), (100, 40), (600, 540)])
def test_a_token_is_renewed_a_minute_early(lifetime_s: float, renewal_s: float) -> None:
    """Not before a minute is left; a very short-lived one at half its lifetime."""
    clock = FakeClock()
    fetched = [0]

    async def fetch() -> tuple[Secret, float | None]:
        fetched[0] += 1
        return Secret(f"t{fetched[0]}"), lifetime_s

    async def work() -> None:
        token = BearerTokenProvider(fetch, clock)
        await token.header()
        clock.advance(renewal_s - 1)
        assert await token.header() == "Bearer t1"
        clock.advance(1)
        headers = await asyncio.gather(*(token.header() for _ in range(16)))
        assert set(headers) == {"Bearer t2"}
        assert fetched[0] == 2

    asyncio.run(work())


@pytest.mark.parametrize("status", [400, 401, 403])
def test_refused_credentials_end_with_5(status: int) -> None:
    """invalid_client and similar errors: NotAuthorised, after one request, without the secret in the message."""
    with Simulator() as sim:
        sim.token_answer = lambda _: FakeResponse(status, b'{"error": "invalid_client"}')
        with pytest.raises(NotAuthorised) as caught:
            run_with_client(
                sim,
                FakeClock(),
                lambda client: ClientCredentialsGrant(client, sim.url, "id", Secret("hush")).fetch(),
            )
        assert len(sim.requests) == 1
    assert "hush" not in str(caught.value) + caught.value.hint
    assert "ITP_SERVICE_CLIENT_ID" in caught.value.hint
    assert "client-id" in caught.value.hint
    assert f"({status})" in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"access_token": null}'])
def test_response_without_a_token(body: bytes) -> None:
    """Status 200 without a token: an error, never a request with an empty token."""
    with Simulator() as sim:
        sim.token_answer = lambda _: FakeResponse(200, body)
        with pytest.raises((Unavailable, NotAuthorised)):
            run_with_client(
                sim,
                FakeClock(),
                lambda client: ClientCredentialsGrant(client, sim.url, "id", Secret("hush")).fetch(),
            )


def test_busy_issuer_is_retried() -> None:
    """A 503 of the token endpoint is retried."""
    with Simulator() as sim:
        issuing(sim)
        sim.add_fault(lambda r: r.path == "/connect/token", error_response(503), times=2)
        result, _ = run_with_client(
            sim, FakeClock(), lambda client: ClientCredentialsGrant(client, sim.url, "id", Secret("s")).fetch()
        )
    assert result.text == "t1"


def test_a_share_key_is_basic_and_final() -> None:
    """Authorization: Basic, and never renewed."""

    async def work() -> None:
        key = ShareKeyProvider(Secret("abc"))
        assert await key.header() == "Basic abc"
        assert await key.renew_refused("Basic abc") is False

    asyncio.run(work())


def test_a_token_that_expires_in_mid_run_is_renewed(tmp_path: Path) -> None:
    """The API refuses the token at the link renewal: client credentials fetch another one, and the run succeeds."""
    with Simulator() as sim:
        files = sim.offer_export()
        issuing(sim)
        sim.token = "t1"

        def expire() -> None:
            sim.token = "t2"
            sim.revoke_links()

        sim.run_before_request(6, is_blob, expire)
        request = sim.mirror_request(tmp_path, transfers=4)
        who = service.Identity(client_id="id", client_secret=Secret("s"), issuer=sim.url)
        request = replace(request, service=replace(request.service, identity=who))
        run = sim._run_job(commands.mirror, request)
        assert len([r for r in sim.requests if r.path == "/connect/token"]) == 2
        assert sim.api_requests[-1].headers["authorization"] == "Bearer t2"
    assert run.error is None
    assert len([p for p in (tmp_path / "versions" / EXPORT).rglob("*") if p.is_file()]) == len(files)


def test_too_large_token_file(tmp_path: Path) -> None:
    """A file that is larger than any token is refused, and not read to its end."""
    path = tmp_path / "token"
    path.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(NotAuthorised, match="longer than 1,048,576 bytes"):
        asyncio.run(read_token_file(path))
