"""Real Dask clusters for the tests: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tilesync.runtime.task_pool import WorkerContext

START_TIMEOUT = timedelta(seconds=60)


@dataclass
class DaskCluster:
    """Running cluster. `folder` has the scheduler file and the logs. `env`: environment of its processes."""

    folder: Path
    env: dict[str, str]
    scheduler: subprocess.Popen[bytes] | None = None
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def tls_env(self) -> dict[str, str]:
        """Variables by which a client reaches a cluster that uses TLS; none without."""
        return {name: value for name, value in self.env.items() if name.startswith("DASK_DISTRIBUTED__COMM__")}

    @property
    def address(self) -> str:
        """Path of the scheduler file."""
        return str(self.folder / "scheduler.json")

    def start_scheduler(self, *options: str) -> None:
        """Start the scheduler, and wait for its file."""
        options = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", self.address, *options)
        if self.tls_env:
            options = ("--protocol", "tls", *options)
        self.scheduler = self._start("scheduler", *options)
        _wait_until(lambda: "address" in (_read_json(self.address) or {}), "the scheduler")

    def start_worker(self, name: str, *options: str, within: Sequence[str] = (), **env: str) -> None:
        """Start a worker with two threads, and wait until it is connected. `within`: a command that starts its own."""
        places = ("--scheduler-file", self.address, "--local-directory", str(self.folder / name))
        options = (*places, "--nthreads", "2", "--no-nanny", "--name", name, *options)
        self.workers[name] = self._start("worker", *options, log=name, within=within, **env)
        _wait_until(lambda: "Registered to" in self.log_of(name), f"the worker {name}")

    def _start(
        self, program: str, *options: str, log: str = "scheduler", within: Sequence[str] = (), **env: str
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{log}.log").open("wb") as out:
            return subprocess.Popen(
                [*within, sys.executable, "-m", "dask", program, "--no-dashboard", *options],
                env={**self.env, **env},
                cwd=self.folder,  # Python finds modules here first
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def log_of(self, name: str) -> str:
        """Return what a process has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def signal_worker(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a worker."""
        self.workers[name].send_signal(number)

    def close(self) -> None:
        """Kill all processes."""
        for process in (*self.workers.values(), self.scheduler):
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.wait()


@dataclass(frozen=True)
class RaiseError:
    """Task that raises an error with this text."""

    text: str

    async def __call__(self, context: WorkerContext) -> None:
        """Raise the error."""
        raise ValueError(self.text)


def make_tls_settings(folder: Path) -> dict[str, str]:
    """Make certificates for a cluster in `folder`; return the variables by which Dask uses them."""
    import trustme

    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    certificate = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(str(folder / "cluster-ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "cluster.pem"))
    settings = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(folder / "cluster-ca.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        settings[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(folder / "cluster.pem")
        settings[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(folder / "cluster.pem")
    return {**settings, "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true"}


@contextmanager
def dask_cluster(folder: Path, *, workers: int = 2, env: Mapping[str, str] | None = None) -> Iterator[DaskCluster]:
    """Run a cluster while the context is open. `env` is added to the environment of its processes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    cluster = DaskCluster(folder, {**inherited, "LC_ALL": "C.UTF-8", **(env or {})})
    try:
        cluster.start_scheduler()
        for number in range(workers):
            cluster.start_worker(f"worker{number}")
        yield cluster
    finally:
        cluster.close()


def _wait_until(is_done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT.total_seconds()
    while not is_done():
        assert time.monotonic() < deadline, f"{what} did not start"
        time.sleep(0.05)


def _read_json(path: str) -> dict[str, object] | None:
    try:
        found: dict[str, object] = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None
    return found
