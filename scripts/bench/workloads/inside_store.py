"""Nights in which one file has changed, into a container and a bucket: requests, and what they cost.

tilesync publishes a whole new version, and the store copies what is unchanged; the others change files in place. The
service counts the requests. Those to the source are not in the price: they are the business of the source's owner.

One request for each unchanged file is the least that these stores allow. CopyObject makes one object (Amazon S3 API
Reference), and Put Blob From URL one blob; a Blob Batch takes Delete Blob and Set Blob Tier only, and each request in
it is billed on its own (Azure Blob Storage REST API, "Blob Batch").
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from access_log import AccessLog, LoggedRequest
from bench import Bench, Column, Runner
from exports import CHANGED_EXPORT_COUNT, changed_name
from measure import RunCost

from workloads.changed import link_tree

UNCHANGED_COUNT = 20_200

FREE = "free"


@dataclass(frozen=True)
class Store:
    """Kind of store. `folder`: where its names begin in a URL. `kinds`: the priced kind of each operation."""

    folder: str
    classify: Callable[[LoggedRequest], str]
    kinds: Mapping[str, str]
    dollars: Mapping[str, float]
    prices: str

    def count(self, log: AccessLog) -> Counter[str]:
        """Count the requests by operation; those to the source are one operation."""
        return log.count(
            lambda each: (
                self.classify(each)
                if each.path.startswith(self.folder)
                else ("requests to the source" if each.path.startswith("/account/") else None)
            )
        )

    def price(self, counts: Counter[str]) -> float:
        """Return the price of the requests in dollars."""
        return sum(count * self.dollars[self.kinds.get(name, FREE)] for name, count in counts.items())


def _azure_operation(request: LoggedRequest) -> str:
    """Return the operation of a request to a container. Source: Azure Blob Storage REST API."""
    of_query = {
        ("GET", "list"): "List Blobs",
        ("PUT", "lease"): "Lease Container",
        ("PUT", "block"): "Put Block",
        ("PUT", "blocklist"): "Put Block List",
    }
    if operation := of_query.get((request.method, request.parameter("comp"))):
        return operation
    if request.method == "PUT":
        return "Put Blob From URL" if request.copy_source else "Put Blob"
    if request.parameter("restype") == "container":
        return "Get Container Properties"
    return {"GET": "Get Blob", "HEAD": "Get Blob Properties", "DELETE": "Delete Blob"}.get(request.method, "other")


def _s3_operation(request: LoggedRequest) -> str:
    """Return the operation of a request to a bucket. Source: Amazon S3 API Reference."""
    if request.method == "GET" and request.parameter("list-type"):
        return "ListObjectsV2"
    if request.method == "PUT":
        return "CopyObject" if request.copy_source else "PutObject"
    names = {"GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject", "POST": "DeleteObjects"}
    return names.get(request.method, "other")


AZURE_WRITE_DOLLARS = 0.05 / 10_000
AZURE_LIST_DOLLARS = 0.05 / 10_000
AZURE_OTHER_DOLLARS = 0.004 / 10_000
"""Prices of one request, assumed: those of hot LRS block blobs (general purpose v2) in East US as others quoted them in
2025, and not read from https://azure.microsoft.com/pricing/details/storage/blobs/. Put your own here.
"""

S3_WRITE_DOLLARS = 0.005 / 1000
S3_READ_DOLLARS = 0.0004 / 1000
"""Prices of one request, assumed: those of S3 Standard in us-east-1 as others quoted them in 2025, and not read from
https://aws.amazon.com/s3/pricing/. Put your own here.
"""

WRITE, LIST, READ = "write", "list", "read"

AZURE = Store(
    "/account/up",
    _azure_operation,
    {
        **dict.fromkeys(("Put Blob", "Put Blob From URL", "Put Block", "Put Block List"), WRITE),
        "List Blobs": LIST,
        **dict.fromkeys(("Get Blob", "Get Blob Properties", "Lease Container", "Get Container Properties"), READ),
    },
    {WRITE: AZURE_WRITE_DOLLARS, LIST: AZURE_LIST_DOLLARS, READ: AZURE_OTHER_DOLLARS, FREE: 0},
    f"${AZURE_WRITE_DOLLARS * 10_000:g} for 10,000 writes, ${AZURE_LIST_DOLLARS * 10_000:g} for 10,000 listings,"
    f" ${AZURE_OTHER_DOLLARS * 10_000:g} for 10,000 others, deletions free (assumed: hot LRS block blobs in East US)",
)
"""Kinds: learn.microsoft.com, "Map each REST operation to a price", of May 2025."""

S3 = Store(
    "/bucket",
    _s3_operation,
    {
        **dict.fromkeys(("PutObject", "CopyObject", "ListObjectsV2"), WRITE),
        **dict.fromkeys(("GetObject", "HeadObject"), READ),
    },
    {WRITE: S3_WRITE_DOLLARS, READ: S3_READ_DOLLARS, FREE: 0},
    f"${S3_WRITE_DOLLARS * 1000:g} for 1,000 PUT, COPY or LIST requests, ${S3_READ_DOLLARS * 1000:g} for 1,000 GET or"
    " HEAD requests, deletions free (assumed: S3 Standard in us-east-1)",
)
"""Kinds: https://aws.amazon.com/s3/pricing/, as others quote it."""


@dataclass
class RequestCounts:
    """Requests of the last run of each program, and the columns that show them."""

    store: Store
    log: AccessLog
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def columns(self) -> list[Column]:
        """Return the columns; the first one counts."""
        return [
            Column("requests to the store", self._count, start=self.log.skip, digits=0),
            Column("requests per unchanged file", lambda runner, _: self._total(runner) / UNCHANGED_COUNT, digits=4),
            Column("a night, $", lambda runner, _: self.store.price(self.counts[runner.name]), digits=4),
        ]

    def describe(self) -> str:
        """Return a table of the operations."""
        names = sorted({name for counts in self.counts.values() for name in counts})
        lines = [f"| program | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
        for program, counts in self.counts.items():
            lines.append(f"| {program} | {' | '.join(f'{counts[name]:,}' for name in names)} |")
        return "\n".join(
            [f"Requests of the last round, counted by the service. At prices of {self.store.prices}.", "", *lines]
        )

    def _count(self, runner: Runner, _: RunCost) -> float:
        self.counts[runner.name] = self.store.count(self.log)
        return self._total(runner)

    def _total(self, runner: Runner) -> int:
        counts = self.counts[runner.name]
        return counts.total() - counts["requests to the source"]


def inside_container(bench: Bench) -> str:
    """Mirror 20,201 files of which one has changed into a container."""
    mirrored, of_rclone, of_azcopy = (bench.new_container(), bench.new_container(), bench.new_container())
    bench.run(bench.peers.copy_container("small", mirrored))
    shutil.copytree(bench.data / "containers/small", bench.uploads / of_rclone, dirs_exist_ok=True)
    link_tree(bench.uploads / of_rclone, bench.uploads / of_azcopy)  # neither writes into a file that is there
    runners = [
        _tilesync(bench, lambda: bench.peers.copy_container("small", mirrored)),
        _sync("rclone sync", lambda name: bench.peers.rclone_into_container(name, of_rclone)),
        _sync("azcopy sync", lambda name: bench.peers.azcopy_into_container(name, of_azcopy)),
    ]
    return _measure(bench, "One changed file in 20,000, into a container", runners, AZURE)


def inside_bucket(bench: Bench) -> str:
    """Mirror 20,201 files of which one has changed into a bucket."""
    mirrored, of_rclone = bench.new_container("bucket"), bench.new_container("bucket")
    shutil.copytree(bench.data / "containers/small", bench.uploads / of_rclone, dirs_exist_ok=True)
    bench.run(bench.peers.copy_into_bucket("small", mirrored))
    bench.run(bench.peers.rclone_into_bucket("small", of_rclone))  # the server computes ETags
    runners = [
        _tilesync(bench, lambda: bench.peers.copy_into_bucket("small", mirrored)),
        _sync("rclone sync --checksum", lambda name: bench.peers.rclone_into_bucket(name, of_rclone)),
    ]
    return _measure(bench, "One changed file in 20,000, into a bucket", runners, S3)


def _measure(bench: Bench, title: str, runners: list[Runner], store: Store) -> str:
    note = (
        "The store has an old version. tilesync publishes a whole new one: what is unchanged is copied inside the"
        " store, one request a file, the least that a store without links allows. The others change files in place."
    )
    requests = RequestCounts(store, AccessLog(bench.access_log))
    return f"{bench.measure(title, runners, note, requests.columns())}\n{requests.describe()}\n"


def _tilesync(bench: Bench, command: Callable[[], list[str]]) -> Runner:
    """Return tilesync, with the next changed copy as the newest export in each round."""
    numbers = iter(range(1, CHANGED_EXPORT_COUNT + 1))

    def set_next_export() -> None:
        number = next(numbers)
        bench.set_newest_export("small", changed_name("small", number), number + 1)

    return Runner("tilesync", command, max_rounds=CHANGED_EXPORT_COUNT, setup=set_next_export)


def _sync(name: str, command: Callable[[str], list[str]]) -> Runner:
    """Return a program that syncs the next changed copy in each round."""
    numbers = iter(range(1, CHANGED_EXPORT_COUNT + 1))
    return Runner(name, lambda: command(changed_name("small", next(numbers))), max_rounds=CHANGED_EXPORT_COUNT)
