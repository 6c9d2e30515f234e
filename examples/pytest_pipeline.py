"""Test your own pipeline against a fake service: no account, no network. Run it with `pytest pytest_pipeline.py`."""

from pathlib import Path
from typing import Any

import tilesync as ts


def run_pipeline(imodel: str, dest: Path, **service: Any) -> str:
    """Mirror, and return the news for the team: your pipeline, which passes on the options of the service."""
    try:
        result = ts.mirror(imodel, dest, **service)
    except ts.errors.NotAuthorised as error:
        return f"renew the credentials: {error}"
    return f"new tiles: {result.version}" if result.published else "no new tiles"


def test_only_new_tiles_are_news(tmp_path: Path) -> None:
    """A busy storage delays a mirror, no more; a second run finds nothing new."""
    with ts.testing.FakeService() as service:
        export = service.add_export()  # a small city; or your own files: add_export("folder/with/tileset")
        service.fail_next(503, on="file", times=3)
        assert run_pipeline(export.imodel, tmp_path, **service.options()) == f"new tiles: {export.id}"
        assert run_pipeline(export.imodel, tmp_path, **service.options()) == "no new tiles"


def test_expired_credentials_are_reported(tmp_path: Path) -> None:
    """Where the service refuses the identity, the team hears what to do."""
    with ts.testing.FakeService() as service:
        export = service.add_export()
        service.refuse_identity()
        assert "renew the credentials" in run_pipeline(export.imodel, tmp_path, **service.options())
