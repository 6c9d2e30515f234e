"""Test `tilesync link`."""

from __future__ import annotations

import re

from tests.support.builders import IMODEL
from tests.support.commandline import (
    run_tilesync,
)
from tests.support.simulator import EXPORT, Simulator


def test_link_prints_the_viewer_url(service: Simulator) -> None:
    """`link` prints the signed URL of the root and nothing else on stdout."""
    done = run_tilesync("link", IMODEL, sim=service)
    assert done.exit_code == 0
    assert re.fullmatch(rf"{re.escape(service.url)}/{EXPORT}/tileset\.json\?\S+sig=\S+\n", done.stdout)
    assert "sig=" not in done.stderr
