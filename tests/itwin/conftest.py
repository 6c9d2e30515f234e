"""Fixture of the tests of the service's clients: a simulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulator import Simulator


@pytest.fixture
def service() -> Iterator[Simulator]:
    """Simulator in which a fault that is not hit fails the test."""
    with Simulator() as sim:
        yield sim
