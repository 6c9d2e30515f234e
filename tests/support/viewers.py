"""Real viewers for the tests: CesiumJS and 3d-tiles-renderer in a headless Chromium, and the requests they make.

`make viewers` puts the packages and a program that starts Chromium into `.viewers/` of the checkout; the variable
CHROMIUM names another one. The browser is driven over a pipe, in the Chrome DevTools Protocol.
"""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from tests.support.http_server import LoopbackHttpServer

PAGES = Path(__file__).resolve().parents[1] / "viewers"
INSTALLED = PAGES.parent.parent / ".viewers"
INSTALLED_MARKER = INSTALLED / "installed.json"
PACKAGES = INSTALLED / "node_modules"
CHROMIUM_OPTIONS = (
    "--headless",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-sandbox",  # root, and most containers, cannot have it; the only pages are ours
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
    "--no-first-run",
    "--remote-debugging-pipe",
)
BROWSER_TIMEOUT = timedelta(seconds=120)
VIEW_SIZE_PX = (180, 120)
BACKGROUND_RGB = (255, 0, 255)

Pixels = list[tuple[int, int, int]]


def find_browser() -> str | None:
    """Return the path of a program that starts Chromium; None if it or the viewers are not installed."""
    return shutil.which(os.environ.get("CHROMIUM") or INSTALLED / "browser") if INSTALLED_MARKER.exists() else None


# --- the flight ---


@dataclass(frozen=True)
class CameraPose:
    """A camera position: degrees, distance in radii of the tileset's bounding sphere, and the allowed screen error."""

    name: str
    heading: float
    pitch: float
    distance: float
    error: float


CAMERA_PATH = (
    CameraPose("far", 30, -35, 2.5, 16),
    CameraPose("oblique", 120, -50, 1.3, 0.1),
    CameraPose("near", 210, -25, 0.5, 1),
    CameraPose("inside", 300, -10, 0.05, 1),
)


@dataclass
class ViewerResult:
    """Result of a flight: loaded content, errors, a PNG of each view, and the requests to the mirror."""

    loaded: int = 0
    errors: list[str] = field(default_factory=list)
    screenshots: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)

    @property
    def requested_names(self) -> set[str]:
        """Return the requested files."""
        return {name for name, _ in self.requests}

    def problems(self, closure: set[str]) -> list[str]:
        """Return every reason why this flight does not prove that the mirror is good."""
        refused = [f"answered {status}: {name}" for name, status in self.requests if status != 200]
        strange = [f"not in the closure: {name}" for name in sorted(self.requested_names - closure)]
        return [*refused, *strange, *self.errors]

    def drawn_shares(self) -> Iterator[float]:
        """Return the fraction of each picture that is not background. 1 is as suspicious as 0: a lost canvas."""
        for png in self.screenshots.values():
            counts = Counter(pixels(png))
            yield 1 - counts[BACKGROUND_RGB] / counts.total()


def view_mirror(browser: Browser, viewer: str, folder: Path, views: Sequence[CameraPose] = CAMERA_PATH) -> ViewerResult:
    """Open the `tileset.json` of a mirror's folder from another origin, and wait at each view until all is loaded."""
    with StaticSite({"/mirrors/this one/": folder}) as mirror:
        flight = view_url(browser, viewer, f"{mirror.url}/mirrors/this%20one/tileset.json", views)
        flight.requests = [(name.removeprefix("/mirrors/this one/"), status) for name, status in mirror.requests]
    return flight


def view_url(
    browser: Browser,
    viewer: str,
    url: str,
    views: Sequence[CameraPose] = CAMERA_PATH,
    before_view: Callable[[CameraPose], object] = lambda view: None,
    *,
    size_px: tuple[int, int] = VIEW_SIZE_PX,
    background_rgb: tuple[int, int, int] = BACKGROUND_RGB,
) -> ViewerResult:
    """Open a tileset, and wait at each view until all is loaded. The server records the requests.

    The query of `viewer` is passed to the page. `before_view` is called before each view.
    """
    flight = ViewerResult()
    name, mark, more = viewer.partition("?")
    with StaticSite({"/": PAGES, "/packages/": PACKAGES}) as ground:
        with browser.page(f"{ground.url}/{name}.html{mark}{more}", size_px) as page:
            page.run("begin", url, f"rgb{background_rgb}")
            for view in views:
                before_view(view)
                seen = page.run("look", vars(view))
                flight.loaded, flight.errors = seen["loaded"], seen["wrongs"]
                flight.screenshots[view.name] = page.screenshot()
        flight.errors += [f"the page lacks {name}" for name, status in ground.requests if status != 200]
    return flight


# --- a site ---


class StaticSite:
    """Serves folders on loopback to pages of any origin; records (decoded path, status) of each request."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self.requests: list[tuple[str, int]] = []
        self._server = LoopbackHttpServer(type("Handler", (_SiteHandler,), {"site": self}))
        self.url = self._server.url("")

    def file(self, path: str) -> Path:
        """Return the file of a decoded path, in the folder with the longest matching mount."""
        mount = max((mount for mount in self.folders if path.startswith(mount)), key=len, default=None)
        return self.folders[mount] / path.removeprefix(mount) if mount else Path("/nonexistent")

    def __enter__(self) -> StaticSite:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()


class _SiteHandler(SimpleHTTPRequestHandler):
    site: StaticSite
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def translate_path(self, path: str) -> str:
        return str(self.site.file(unquote(urlsplit(path).path)))

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        if self.path != "/favicon.ico":
            self.site.requests.append((unquote(urlsplit(self.path).path), int(code)))

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


# --- a browser ---


class Browser:
    """Running Chromium, controlled through a pipe; messages end with a NUL."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._buffer = b""
        self._message_count = 0
        self._unmatched: list[dict[str, Any]] = []

    @contextmanager
    def page(
        self,
        url: str,
        size_px: tuple[int, int] = VIEW_SIZE_PX,
        before_load: Callable[[BrowserPage], object] = lambda page: None,
    ) -> Iterator[BrowserPage]:
        """Open a page and wait until it has loaded; it closes with the context. `before_load` prepares it."""
        self._unmatched.clear()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        try:
            for domain in ("Page", "Inspector", "Runtime"):
                self.call(f"{domain}.enable", session)
            size = {"width": size_px[0], "height": size_px[1], "deviceScaleFactor": 1, "mobile": False}
            self.call("Emulation.setDeviceMetricsOverride", session, **size)
            before_load(BrowserPage(self, session))
            self.call("Page.navigate", session, url=url)
            self._wait_for(method="Page.loadEventFired", sessionId=session)
            thrown = [
                response["params"]
                for response in self._unmatched
                if response.get("method") == "Runtime.exceptionThrown"
            ]
            if thrown:
                raise RuntimeError(f"{url} does not load: {json.dumps(thrown)}")
            yield BrowserPage(self, session)
        finally:
            self.call("Target.closeTarget", targetId=target)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and return the response. Raises RuntimeError if it fails, and TimeoutError."""
        self._message_count += 1
        message = {"id": self._message_count, "method": method, "params": params}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        answer = self._wait_for(id=self._message_count)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def take_events(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of the events of one kind so far, and forget them."""
        taken = [message for message in self._unmatched if message.get("method") == method]
        self._unmatched = [message for message in self._unmatched if message.get("method") != method]
        return [message["params"] for message in taken]

    def _wait_for(self, **wanted: Any) -> dict[str, Any]:
        """Wait for the first message with these entries; keep the others."""
        for message in self._unmatched:
            if wanted.items() <= message.items():
                self._unmatched.remove(message)
                return message
        deadline = time.monotonic() + BROWSER_TIMEOUT.total_seconds()
        while True:
            message = self._read(deadline)
            if message.get("method") == "Inspector.targetCrashed":
                raise RuntimeError("the page crashed")
            if all(message.get(key) == value for key, value in wanted.items()):
                return message
            self._unmatched.append(message)

    def _read(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\0" not in self._buffer:
            if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"the browser said nothing for {BROWSER_TIMEOUT}")
            piece = os.read(pipe, 1 << 20)
            if not piece:
                raise RuntimeError("the browser ended")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@dataclass
class BrowserPage:
    """Page of the browser."""

    browser: Browser
    session: str

    def run(self, function: str, *values: Any) -> Any:
        """Call a function of the page. Raises RuntimeError with its message if it throws."""
        expression = f"{function}({', '.join(map(json.dumps, values))})"
        response = self.browser.call(
            "Runtime.evaluate", self.session, expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in response:
            raise RuntimeError(f"{expression}: {json.dumps(response['exceptionDetails'])}")
        return response["result"].get("value")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command about this page."""
        return self.browser.call(method, self.session, **params)

    def screenshot(self) -> bytes:
        """Take a screenshot as PNG."""
        return base64.b64decode(self.browser.call("Page.captureScreenshot", self.session, format="png")["data"])


@contextmanager
def start_browser(program: str) -> Iterator[Browser]:
    """Run a headless Chromium until the context ends. Raises RuntimeError with its output if it does not start."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder, "log")
        # It reads the descriptor 3 and writes the descriptor 4.
        command = ["/bin/sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >&2', "sh", program, *CHROMIUM_OPTIONS]
        with log.open("wb") as err:
            process = subprocess.Popen(
                [*command, f"--user-data-dir={folder}/profile"],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                start_new_session=True,
            )
        with process:
            try:
                browser = Browser(process)
                try:
                    browser.call("Browser.getVersion")
                except (OSError, RuntimeError) as error:
                    raise RuntimeError(f"{program} did not start: {log.read_text(errors='replace')}") from error
                yield browser
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def pixels(png: bytes) -> Pixels:
    """Decode the (red, green, blue) pixels of a PNG, line by line."""
    with Image.open(io.BytesIO(png)) as image:
        samples = iter(image.convert("RGB").tobytes())
    return list(zip(samples, samples, samples, strict=True))


def mean_difference(left: Pixels, right: Pixels) -> float:
    """Return the mean difference of the samples of two pictures of one size; 255 for black and white."""
    total = sum(abs(a - b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True))
    return total / (3 * len(left))
