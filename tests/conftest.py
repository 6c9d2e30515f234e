"""Fixtures that all tests share."""

from __future__ import annotations

import functools
import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import trustme
from hypothesis import HealthCheck, settings

from tests.support import azurite as azure
from tests.support import s3
from tests.support.azure_proxy import AzureFixture
from tests.support.builders import IMODEL
from tests.support.commandline import run_tilesync
from tests.support.simulator import Simulator
from tests.support.viewers import Browser, find_browser, start_browser

pytest.register_assert_rewrite("tests.support.store_contract")

settings.register_profile("tilesync", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("fast", settings.get_profile("tilesync"), max_examples=10)
settings.load_profile("tilesync")


def pytest_configure() -> None:
    """Let started processes receive SIGINT and SIGHUP, also where a shell or nohup lets the tests ignore them.

    A handler, other than the order to ignore a signal, is not inherited.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use three workers more than there are cores for `-n auto`: the longest tests mostly wait."""
    return (os.cpu_count() or 1) + 3


_WHOLE_RUN_HELPERS = frozenset(
    f"tests.support.{name}"
    for name in (
        "azure_destination",
        "azure_proxy",
        "azurite",
        "broken_exports",
        "commandline",
        "crash_injection",
        "fork_server",
        "killed_runs",
        "s3",
        "sequential_exports",
        "shells",
        "simulator",
        "terminal",
    )
)
"""Modules of tests/support that run whole jobs, commands or real stores."""

_WHOLE_RUN_FIXTURES = frozenset({"azurite", "both_layouts", "bucket_server", "sim"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each test into its tiers, and begin with the long ones, so that none of them runs alone at the end.

    `e2e`: it is in that folder, or it uses a fixture or helper that runs whole jobs, commands or real stores.
    `browser`: by its fixture. `kill`: by its name. `scale` is marked at the test: it moves much, waits long, or repeats
    a table of cases.
    """
    for item in items:
        fixtures = frozenset(getattr(item, "fixturenames", ()))
        if "e2e" in item.path.parts or fixtures & _WHOLE_RUN_FIXTURES or _uses_whole_runs(_module_of(item)):
            item.add_marker("e2e")
        if "browser" in fixtures:
            item.add_marker("browser")
        if "kill" in item.nodeid.rpartition("/")[2]:
            item.add_marker("kill")
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Leave the collected tests out of garbage collections, which took a sixth of the CPU time."""
    gc.collect()
    gc.freeze()


def _module_of(item: pytest.Item) -> ModuleType | None:
    parent = item.getparent(pytest.Module)
    return parent.obj if parent is not None else None


@functools.cache
def _uses_whole_runs(module: ModuleType | None) -> bool:
    """Return whether a test module imports a helper that runs whole jobs, commands or real stores."""
    values = vars(module).values() if module is not None else ()
    return any(
        (value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")) in _WHOLE_RUN_HELPERS
        for value in values
    )


@pytest.fixture(scope="session", autouse=True)
def small_ca_bundle() -> Iterator[None]:
    """Trust a single authority: to load those of the system takes longer than a small mirror."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # some tests become another user
        bundle = Path(folder, "ca.pem")
        trustme.CA().cert_pem.write_to_path(str(bundle))
        os.environ["SSL_CERT_FILE"] = str(bundle)
        os.environ.pop("SSL_CERT_DIR", None)
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start a headless Chromium with the viewers."""
    program = find_browser()
    if program is None:
        reason = (
            "no viewers in a browser: `make test` installs them where npm is there, and Chromium on Linux on x86-64"
        )
        if "viewers" in os.environ.get("TILESYNC_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    with start_browser(program) as chromium:
        yield chromium


@pytest.fixture(scope="session")
def azurite() -> Iterator[azure.Azurite]:
    """Start a real blob service (Azurite)."""
    program = azure.find_azurite()
    if program is None:
        reason = "no Azurite: `make test` installs it where npm is there, or name its program in AZURITE"
        if "azurite" in os.environ.get("TILESYNC_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    with azure.start_azurite(program) as service:
        yield service


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[s3.BucketServer]:
    """Start a real S3 server (moto)."""
    if s3.is_missing():
        reason = "no moto: `make test` installs it with the packages of the tests"
        if "s3" in os.environ.get("TILESYNC_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    with s3.cached_service_models(), s3.start_bucket_server() as server:
        yield server


@pytest.fixture
def bucket(bucket_server: s3.BucketServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a new bucket, and set the credentials for it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return bucket_server.new_bucket()


@pytest.fixture
def azure_store(azurite: azure.Azurite, tmp_path: Path) -> Iterator[AzureFixture]:
    """Make an Azure destination in a new container, which is reached through a proxy."""
    with azure.AzureProxy(azurite) as proxy:
        yield AzureFixture(azurite, proxy, tmp_path / "state")


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """Start a simulator of the service."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def both_layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fill a versioned destination `v` and a flat one `f` in one folder."""
    there = tmp_path_factory.mktemp("both_layouts")
    with Simulator() as sim:
        sim.offer_export()
        assert run_tilesync("mirror", IMODEL, there / "v", sim=sim).exit_code == 0
        assert run_tilesync("mirror", IMODEL, there / "f", "--layout", "flat", sim=sim).exit_code == 0
    return there
