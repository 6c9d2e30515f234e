"""Hosting checks: check the stored files of a destination, then its public URL as a browser would."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from tilesync.checks import response_rules
from tilesync.checks.remedies import Remedies
from tilesync.checks.response_rules import SampleFile, SampleResponses, ViewerPage
from tilesync.checks.result import CheckResult, CheckStatus
from tilesync.checks.runner import Check
from tilesync.core.http_headers import CachePolicy
from tilesync.core.manifest import read_header, read_line
from tilesync.errors import DestinationError
from tilesync.jobs.versions.pointer import compute_pointer_digest
from tilesync.model import POINTER, StoredFile, Version
from tilesync.model.storage import HEAD_BYTES, HttpResponse
from tilesync.protocols import ReadOnlyPublication, StoredFiles
from tilesync.runtime.gzip import GZIP_DEFLATE_MAGIC
from tilesync.runtime.threads import run_in_thread

if TYPE_CHECKING:
    from tilesync.checks.browser_client import BrowserClient

MAX_SAMPLED_KINDS = 8
"""Maximum number of kinds of files to request, besides the file whose name must be percent-encoded."""

QUOTED_CHARS = frozenset(" +%#?&;=[]'()")
"""ASCII characters that servers and proxies misread unless they are percent-encoded, as all non-ASCII ones are."""

DEFAULT_SERVING = CachePolicy()


class StoredMirror(NamedTuple):
    """Stored files of a destination. `open` returns their readers, or raises an error with the reason."""

    open: Callable[[], tuple[StoredFiles, ReadOnlyPublication]]
    display_name: str


class PublicAccess(NamedTuple):
    """Public URL of a destination, with the client that requests it. `has_state`: there is a state folder to hide."""

    url: str
    browser: BrowserClient
    viewer_page: ViewerPage
    remedies: Remedies
    has_state: bool


class HostingChecks:
    """Checks of one destination. `public_access` is None if its public URL is unknown."""

    def __init__(self, stored_mirror: StoredMirror, public_access: PublicAccess | None) -> None:
        self._stored_mirror = stored_mirror
        self._public_access = public_access
        self._version: Version | None = None
        self._prefix = ""
        self._pointer_sha256 = ""
        self._samples: list[SampleFile] = []
        self._quoted_name: str | None = None
        self._pointer_response: HttpResponse | None = None
        self._responses: list[SampleResponses] = []

    def iter_checks(self) -> Iterator[Check]:
        """Yield all checks in order."""
        yield Check("held", self._check_stored_version)
        yield Check("pointer", self._check_stored_pointer, ("held",))
        if self._public_access is None:
            yield Check("outside", self._skip_public_checks)
            return
        needs_files = ("held", "public")
        yield Check("public", self._check_public_access)
        yield Check("current", self._check_pointer, ("public", "pointer"))
        yield Check("pointer-caching", self._check_pointer_caching, ("public",))
        yield Check("files", self._check_files, needs_files)
        yield Check(
            "names",
            lambda: _return_result(response_rules.check_quoted_name(self._responses, self._quoted_name)),
            needs_files,
        )
        yield Check("origin", self._check_cors, ("public",))
        yield Check("preflight", self._check_preflight)
        for name, rule in (
            ("types", response_rules.check_content_types),
            ("encoding", response_rules.check_content_encodings),
            ("range", response_rules.check_ranges),
        ):
            yield Check(name, self._make_file_check(rule), needs_files)
        yield Check("caching", self._make_file_check(self._check_caching), needs_files)
        if self._required_access.has_state:
            yield Check("state", self._check_state_hidden, ("public",))

    @property
    def _required_access(self) -> PublicAccess:
        assert self._public_access is not None
        return self._public_access

    # --- stored files ---

    async def _check_stored_version(self) -> CheckResult:
        files, publication = await run_in_thread(self._stored_mirror.open)
        latest = await run_in_thread(publication.latest)
        if latest is None:
            raise DestinationError(
                f"nothing is published in {self._stored_mirror.display_name}: it has no latest.json of tilesync",
                hint="run `tilesync mirror` first, or give the destination of an earlier run",
            )
        name = str(latest["version"])
        if name not in await run_in_thread(publication.manifest_names):
            raise DestinationError(
                f"latest.json names version {name}, which has no manifest",
                hint="run `tilesync mirror` again to write it; or `tilesync rollback` to another version",
            )
        await run_in_thread(self._choose_samples, files, publication, name)
        assert self._version is not None
        return CheckResult(f"version {name}, {self._version.summary.files:,} files")

    def _choose_samples(self, files: StoredFiles, publication: ReadOnlyPublication, name: str) -> None:
        """Read the manifest, choose the files to request, and compute the expected pointer."""
        lines = publication.manifest(name)
        try:
            version = read_header(next(lines), name=name)
            chosen, self._quoted_name = choose_samples(map(read_line, lines))
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise DestinationError(
                f"the manifest of version {name} cannot be read ({str(error) or 'it is empty'})",
                hint="run `tilesync mirror` again: it rewrites the manifest",
            ) from error
        self._version, self._prefix = version, publication.prefix(version)
        self._samples = [_read_sample(files, version, stored, self._prefix) for stored in chosen]
        self._quoted_name = self._prefix + self._quoted_name if self._quoted_name is not None else None
        self._pointer_sha256 = compute_pointer_digest(version, files, self._prefix)
        self._stored_pointer_sha256 = publication.pointer_digest()

    async def _check_stored_pointer(self) -> CheckResult:
        assert self._version is not None
        if self._stored_pointer_sha256 == self._pointer_sha256:
            return CheckResult(f"{POINTER} leads to version {self._version.name}")
        problem = (
            "is missing" if self._stored_pointer_sha256 is None else f"does not lead to version {self._version.name}"
        )
        raise DestinationError(f"{POINTER} {problem}", hint="run `tilesync mirror` again: it repairs the pointer")

    async def _skip_public_checks(self) -> CheckResult:
        return CheckResult(
            "the public URL of this folder is unknown, so no web server was checked: caching, CORS, media types,"
            " encodings, byte ranges and the hidden state folder",
            CheckStatus.SKIPPED,
            "give --public-url with the address of the web server or CDN",
        )

    # --- public URL ---

    async def _request(self, path: str, *, method: str = "GET", **extra: str) -> HttpResponse:
        headers = {"Origin": self._required_access.viewer_page.origin, "Accept-Encoding": "identity"}
        headers |= {name.replace("_", "-"): value for name, value in extra.items()}
        return await self._required_access.browser.send_request(
            method, f"{self._required_access.url}/{quote(path, safe='/~')}", headers
        )

    async def _check_public_access(self) -> CheckResult:
        self._pointer_response = await self._request(POINTER)
        remedies = self._required_access.remedies.for_server(self._pointer_response.headers.get("server"))
        self._public_access = self._required_access._replace(remedies=remedies)
        return response_rules.check_public_access(self._pointer_response, remedies)

    def _require_pointer_response(self) -> HttpResponse:
        assert self._pointer_response is not None
        return self._pointer_response

    async def _check_pointer(self) -> CheckResult:
        assert self._version is not None
        return response_rules.check_pointer(self._require_pointer_response(), self._version.name, self._pointer_sha256)

    async def _check_pointer_caching(self) -> CheckResult:
        return response_rules.check_pointer_caching(self._require_pointer_response(), self._required_access.remedies)

    async def _check_files(self) -> CheckResult:
        for sample in self._samples:
            full = await self._request(sample.path)
            first_byte = await self._request(sample.path, Range="bytes=0-0")
            self._responses.append(SampleResponses(sample, full, first_byte))
        return response_rules.check_files(self._responses)

    async def _check_cors(self) -> CheckResult:
        responses = [
            self._require_pointer_response(),
            *(each.full for each in self._responses if each.full.status == 200),
        ]
        return response_rules.check_cors(responses, self._required_access.viewer_page, self._required_access.remedies)

    async def _check_preflight(self) -> CheckResult:
        """Check OPTIONS even if the pointer is not public: a store answers it by its CORS rules alone."""
        if self._pointer_response is None:
            return CheckResult("not checked, because nothing answers there", CheckStatus.SKIPPED)
        headers = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "range"}
        response = await self._request(POINTER, method="OPTIONS", **headers)
        return response_rules.check_preflight(
            response, self._required_access.viewer_page, self._required_access.remedies
        )

    def _make_file_check(
        self, rule: Callable[[list[SampleResponses], Remedies], CheckResult]
    ) -> Callable[[], Awaitable[CheckResult]]:
        async def check() -> CheckResult:
            served = [each for each in self._responses if each.full.status == 200]
            return (
                rule(served, self._required_access.remedies)
                if served
                else CheckResult("no file is served", CheckStatus.SKIPPED)
            )

        return check

    def _check_caching(self, responses: list[SampleResponses], remedies: Remedies) -> CheckResult:
        if not self._prefix:
            return CheckResult("the flat layout has no files that never change", CheckStatus.SKIPPED)
        return response_rules.check_caching(responses, remedies)

    async def _check_state_hidden(self) -> CheckResult:
        response = await self._request(".tilesync/catalog.sqlite3", method="HEAD")
        return response_rules.check_state_hidden(response, self._required_access.remedies)


async def _return_result(result: CheckResult) -> CheckResult:
    return result


def choose_samples(stored_files: Iterator[StoredFile]) -> tuple[list[StoredFile], str | None]:
    """Choose the smallest file of each extension, JSON and GLB first, and one whose name must be percent-encoded.

    The second result is that name, or None if no name must be percent-encoded.
    """
    smallest: dict[str, StoredFile] = {}
    quoted: StoredFile | None = None
    for stored in stored_files:
        name, size = stored.blob.name, stored.size
        if not size:
            continue
        leaf = name.rpartition("/")[2]
        kind = leaf.rpartition(".")[2].lower() if "." in leaf else ""
        if kind not in smallest or size < smallest[kind].size:
            smallest[kind] = stored
        if (not name.isascii() or QUOTED_CHARS & set(name)) and (quoted is None or size < quoted.size):
            quoted = stored
    kinds = sorted(smallest, key=lambda kind: (kind not in {"json", "glb"}, kind))[:MAX_SAMPLED_KINDS]
    chosen = [smallest[kind] for kind in kinds]
    if quoted is not None and quoted not in chosen:
        chosen.append(quoted)
    return chosen, quoted.blob.name if quoted is not None else None


def _read_sample(files: StoredFiles, version: Version, stored: StoredFile, prefix: str) -> SampleFile:
    head = b""
    for chunk in files.chunks(version, stored.blob.name):
        head += chunk[:HEAD_BYTES]
        if len(head) >= HEAD_BYTES:
            break
    is_gzip = head.startswith(GZIP_DEFLATE_MAGIC)
    return SampleFile(
        prefix + stored.blob.name,
        stored.size,
        stored.sha256,
        is_gzip,
        DEFAULT_SERVING.file_headers(stored.on_disk, head[:HEAD_BYTES]),
    )
