"""Send requests through the API client, on a fake clock."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.support.clock import FakeClock
from tests.support.http_server import Handle, RecordingServer, serving
from tilesync.core.http_status import raise_for_status
from tilesync.errors import Unavailable
from tilesync.events import Event
from tilesync.itwin.responses import classify_api_status
from tilesync.transport.api_client import ApiRequest, ApiResponse, open_api_client
from tilesync.transport.retry import retry_after_seconds


async def read_checked(response: ApiResponse) -> tuple[int, bytes]:
    """Read a response by its status verdict, as the callers do."""
    raise_for_status(
        classify_api_status(response.status), response.status, retry_after_seconds(response.header), "the server"
    )
    return response.status, await response.read()


class RecordedApiClient:
    """API client on a fake clock; `clock.sleeps_s` holds its delays, `events` its events."""

    def __init__(self, budget: float = 60.0) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.budget = timedelta(seconds=budget)
        self.attempts = 0

    def request(self, url: str, read_response: Any = read_checked, *, form: bytes | None = None, **headers: str) -> Any:
        async def build_request() -> ApiRequest:
            self.attempts += 1
            return ApiRequest(url, {**headers, "X-Attempt": str(self.attempts)}, form)

        async def main() -> Any:
            async with open_api_client(self.clock, self.events.append, budget=self.budget) as client:
                return await client.request("the server", build_request, read_response)

        return asyncio.run(main())


def request_once(handle: Handle, *, budget: float = 60.0) -> tuple[Any, RecordedApiClient, RecordingServer]:
    client = RecordedApiClient(budget)
    with serving(handle) as server:
        return client.request(server.url("/x?sig=SECRET")), client, server


def request_failing(handle: Handle, *, budget: float = 2.0) -> tuple[Unavailable, RecordedApiClient, RecordingServer]:
    client = RecordedApiClient(budget)
    with serving(handle) as server, pytest.raises(Unavailable) as error:
        client.request(server.url("/x?sig=SECRET"))
    text = f"{error.value} {error.value.hint} {client.events}"
    assert "SECRET" not in text
    assert "sig=" not in text
    return error.value, client, server
