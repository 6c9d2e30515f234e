"""What viewers need of a place that tiles were mirrored to: from inside, then from outside, as a browser asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple
from urllib.parse import quote

from tilesync.core.gzip import GZIP_DEFLATE_MAGIC
from tilesync.core.http_headers import HEAD_BYTES, CachePolicy
from tilesync.core.manifest import read_header, read_line
from tilesync.doctor import response_rules as viewing
from tilesync.doctor.protocols import BrowserClient
from tilesync.doctor.remedies import Remedies
from tilesync.doctor.response_rules import SampleFile, SampleResponses, ViewerPage
from tilesync.doctor.result import CheckResult, CheckStatus
from tilesync.doctor.runner import Check
from tilesync.errors import DestinationError
from tilesync.jobs.versions.pointer import compute_pointer_digest
from tilesync.model import POINTER, StoredFile, Version
from tilesync.model.storage import HttpResponse
from tilesync.protocols import ReadOnlyPublication, StoredFiles
from tilesync.runtime.threads import run_in_thread

MAX_SAMPLED_KINDS = 8
"""Files that are asked for at most, besides the one whose name must be quoted."""

QUOTED_CHARS = frozenset(" +%#?&;=[]'()")
"""Letters in names that servers and what stands before them take for something else, beside all that is not ASCII."""

DEFAULT_SERVING = CachePolicy()


class StoredMirror(NamedTuple):
    """What is held: how it may be read, or the error that says why it may not."""

    open: Callable[[], tuple[StoredFiles, ReadOnlyPublication]]
    display_name: str


class PublicAccess(NamedTuple):
    """Where viewers reach it, who asks, whether there is a state that must not be served, and what mends it all."""

    url: str
    browser: BrowserClient
    viewer_page: ViewerPage
    remedies: Remedies
    has_state: bool


class HostingChecks:
    """The checks of one place; `outside` is None where nobody said how viewers reach it."""

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
        """All of them, in order."""
        yield Check("held", self._check_stored_version)
        yield Check("pointer", self._check_stored_pointer, ("held",))
        if self._public_access is None:
            yield Check("outside", self._skip_public_checks)
            return
        files = ("held", "public")
        yield Check("public", self._check_public_access)
        yield Check("current", self._check_pointer, ("public", "pointer"))
        yield Check("pointer-caching", self._check_pointer_caching, ("public",))
        yield Check("files", self._check_files, files)
        yield Check(
            "names", lambda: _return_result(viewing.check_quoted_name(self._responses, self._quoted_name)), files
        )
        yield Check("origin", self._check_cors, ("public",))
        yield Check("preflight", self._check_preflight)
        for name, judge in (
            ("types", viewing.check_content_types),
            ("encoding", viewing.check_content_encodings),
            ("range", viewing.check_ranges),
        ):
            yield Check(name, self._make_file_check(judge), files)
        yield Check("caching", self._make_file_check(self._check_caching), files)
        if self._required_access.has_state:
            yield Check("state", self._check_state_hidden, ("public",))

    @property
    def _required_access(self) -> PublicAccess:
        assert self._public_access is not None
        return self._public_access

    # --- from inside ---

    async def _check_stored_version(self) -> CheckResult:
        files, published = await run_in_thread(self._stored_mirror.open)
        latest = await run_in_thread(published.latest)
        if latest is None:
            raise DestinationError(
                f"nothing is published in {self._stored_mirror.display_name}: there is no latest.json of tilesync",
                hint="run `tilesync mirror` first, or name the place that it filled",
            )
        name = str(latest["version"])
        if name not in await run_in_thread(published.manifest_names):
            raise DestinationError(
                f"latest.json names version {name}, which has no manifest",
                hint="`tilesync mirror` again writes it; or `tilesync rollback` to a version that is held",
            )
        await run_in_thread(self._choose_samples, files, published, name)
        assert self._version is not None
        return CheckResult(f"version {name}, {self._version.files:,} files")

    def _choose_samples(self, files: StoredFiles, published: ReadOnlyPublication, name: str) -> None:
        """Read the manifest, choose what is asked for, and what the pointer must be."""
        lines = published.manifest(name)
        try:
            version = read_header(next(lines), name=name)
            chosen, self._quoted_name = choose_samples(map(read_line, lines))
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise DestinationError(
                f"the manifest of version {name} cannot be read ({str(error) or 'it is empty'})",
                hint="run `tilesync mirror` again: it writes it anew",
            ) from error
        self._version, self._prefix = version, published.prefix(version)
        self._samples = [_read_sample(files, version, held, self._prefix) for held in chosen]
        self._quoted_name = self._prefix + self._quoted_name if self._quoted_name is not None else None
        self._pointer_sha256 = compute_pointer_digest(version, files, self._prefix)
        self._stored_pointer_sha256 = published.pointer_digest()

    async def _check_stored_pointer(self) -> CheckResult:
        assert self._version is not None
        if self._stored_pointer_sha256 == self._pointer_sha256:
            return CheckResult(f"{POINTER} leads to version {self._version.name}")
        what = (
            "is not there" if self._stored_pointer_sha256 is None else f"does not lead to version {self._version.name}"
        )
        raise DestinationError(f"{POINTER} {what}", hint="run `tilesync mirror` again: it puts the pointer right")

    async def _skip_public_checks(self) -> CheckResult:
        return CheckResult(
            "how viewers reach this folder is not known, so no web server was asked: caching, other origins, types,"
            " encoding, parts, and whether the state hides, were not looked at",
            CheckStatus.SKIPPED,
            "give --public-url, the address under which a web server or CDN serves it",
        )

    # --- from outside ---

    async def _request(self, path: str, *, method: str = "GET", **more: str) -> HttpResponse:
        headers = {"Origin": self._required_access.viewer_page.origin, "Accept-Encoding": "identity"}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        return await self._required_access.browser.send_request(
            method, f"{self._required_access.url}/{quote(path, safe='/~')}", headers
        )

    async def _check_public_access(self) -> CheckResult:
        self._pointer_response = await self._request(POINTER)
        mend = self._required_access.remedies.for_server(self._pointer_response.headers.get("server"))
        self._public_access = self._required_access._replace(remedies=mend)
        return viewing.check_public_access(self._pointer_response, mend)

    def _require_pointer_response(self) -> HttpResponse:
        assert self._pointer_response is not None
        return self._pointer_response

    async def _check_pointer(self) -> CheckResult:
        assert self._version is not None
        return viewing.check_pointer(self._require_pointer_response(), self._version.name, self._pointer_sha256)

    async def _check_pointer_caching(self) -> CheckResult:
        return viewing.check_pointer_caching(self._require_pointer_response(), self._required_access.remedies)

    async def _check_files(self) -> CheckResult:
        for sample in self._samples:
            whole = await self._request(sample.path)
            part = await self._request(sample.path, Range="bytes=0-0")
            self._responses.append(SampleResponses(sample, whole, part))
        return viewing.check_files(self._responses)

    async def _check_cors(self) -> CheckResult:
        answers = [
            self._require_pointer_response(),
            *(each.full for each in self._responses if each.full.status == 200),
        ]
        return viewing.check_cors(answers, self._required_access.viewer_page, self._required_access.remedies)

    async def _check_preflight(self) -> CheckResult:
        """Also where nobody may read: a store answers by its rules for all origins."""
        if self._pointer_response is None:
            return CheckResult("not looked at, since nothing answers there", CheckStatus.SKIPPED)
        asked = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "range"}
        answer = await self._request(POINTER, method="OPTIONS", **asked)
        return viewing.check_preflight(answer, self._required_access.viewer_page, self._required_access.remedies)

    def _make_file_check(
        self, rule: Callable[[list[SampleResponses], Remedies], CheckResult]
    ) -> Callable[[], Awaitable[CheckResult]]:
        async def look() -> CheckResult:
            answered = [each for each in self._responses if each.full.status == 200]
            return (
                rule(answered, self._required_access.remedies)
                if answered
                else CheckResult("no file is served", CheckStatus.SKIPPED)
            )

        return look

    def _check_caching(self, responses: list[SampleResponses], remedies: Remedies) -> CheckResult:
        if not self._prefix:
            return CheckResult("the flat layout has no version that never changes", CheckStatus.SKIPPED)
        return viewing.check_caching(responses, remedies)

    async def _check_state_hidden(self) -> CheckResult:
        answer = await self._request(".tilesync/catalog.sqlite3", method="HEAD")
        return viewing.check_state_hidden(answer, self._required_access.remedies)


async def _return_result(result: CheckResult) -> CheckResult:
    return result


def choose_samples(stored_files: Iterator[StoredFile]) -> tuple[list[StoredFile], str | None]:
    """The smallest file of each kind, by the end of its name, those at the top first; and one with a name that must be
    quoted, where there is one.
    """
    kinds: dict[str, StoredFile] = {}
    odd: StoredFile | None = None
    for held in stored_files:
        name, size = held.blob.name, held.size
        if not size:
            continue
        leaf = name.rpartition("/")[2]
        kind = leaf.rpartition(".")[2].lower() if "." in leaf else ""
        if kind not in kinds or size < kinds[kind].size:
            kinds[kind] = held
        if (not name.isascii() or QUOTED_CHARS & set(name)) and (odd is None or size < odd.size):
            odd = held
    first = sorted(kinds, key=lambda kind: (kind not in {"json", "glb"}, kind))[:MAX_SAMPLED_KINDS]
    chosen = [kinds[kind] for kind in first]
    if odd is not None and odd not in chosen:
        chosen.append(odd)
    return chosen, odd.blob.name if odd is not None else None


def _read_sample(files: StoredFiles, version: Version, stored: StoredFile, prefix: str) -> SampleFile:
    head = b""
    for chunk in files.chunks(version, stored.blob.name):
        head += chunk[:HEAD_BYTES]
        if len(head) >= HEAD_BYTES:
            break
    packed = head.startswith(GZIP_DEFLATE_MAGIC)
    return SampleFile(
        prefix + stored.blob.name,
        stored.size,
        stored.sha256,
        packed,
        DEFAULT_SERVING.file_headers(stored.on_disk, head[:HEAD_BYTES]),
    )
