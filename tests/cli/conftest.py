"""Fixtures of the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulator import Simulator


@pytest.fixture
def service() -> Iterator[Simulator]:
    """Start a simulator with a small export."""
    with Simulator() as sim:
        sim.offer_export()
        yield sim
