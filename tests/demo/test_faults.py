"""Which requests a fault applies to, and how often."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tilesync.demo.faults import Fault
from tilesync.demo.loopback_server import FakeRequest, FakeResponse


def refuse(request: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
    """Respond with an error."""
    return FakeResponse(500)


def applied(fault: Fault, *paths: str) -> list[bool]:
    """Return for each request whether the fault applies to it."""
    return [fault.should_apply(FakeRequest(path, {}, {})) for path in paths]


@pytest.mark.parametrize(
    ("times", "skip", "expected"),
    [
        (1, 0, [True, False, False, False]),
        (2, 1, [False, True, True, False]),
        (None, 0, [True, True, True, True]),
        (None, 3, [False, False, False, True]),
    ],
)
def test_a_fault_skips_and_then_applies(times: int | None, skip: int, expected: list[bool]) -> None:
    """After the skipped requests, so many or all of the matching ones are affected."""
    fault = Fault(lambda request: True, refuse, times=times, skip=skip)
    assert applied(fault, "/a", "/a", "/a", "/a") == expected
    assert (fault.hits, fault.seen) == (sum(expected), 4)


def test_other_requests_do_not_count() -> None:
    """A request that does not match is neither skipped nor affected."""
    fault = Fault(lambda request: request.path == "/b", refuse, skip=1)
    assert applied(fault, "/a", "/b", "/a", "/b", "/b") == [False, False, False, True, False]
