"""The viewer page of `tilesync serve`, with the real server as a process, in a headless Chromium."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.viewers import Browser, BrowserPage, Pixels, pixels

DESKTOP_PX = (800, 520)
PHONE_PX = (390, 844)
CANVAS = "document.getElementById('canvas')"
EDGE_PX = 60
PICTURE_SCALE = 0.3
"""A tenth of the pixels is enough to compare pictures."""
LOCAL_SCHEMES = frozenset({"data", "blob", "about"})


@dataclass
class ViewerPage:
    """The open page. Its requests and exceptions are recorded."""

    page: BrowserPage
    url: str
    size_px: tuple[int, int]

    def idle(self) -> None:
        """Wait until everything is loaded and drawn."""
        self.page.run("tilesyncViewer.idle")

    def state(self) -> dict[str, Any]:
        """Wait, and return what the page shows."""
        self.idle()
        state: dict[str, Any] = self.page.run("tilesyncViewer.state")
        return state

    def wait_until(self, condition: str) -> None:
        """Wait until an expression of this page, or of the next one, is true; at most for BROWSER_TIMEOUT."""
        wait = f"(async () => {{ while (!({condition})) await new Promise(requestAnimationFrame); }})"
        try:
            self.page.run(wait)
        except RuntimeError as error:
            if "navigated" not in str(error) and "context was destroyed" not in str(error):
                raise
            self.page.run(wait)

    def poll_until(self, condition: str) -> None:
        """Let the page ask the server for news, again and again, until an expression is true."""
        self.wait_until(f"await tilesyncViewer.poll(), {condition}")

    def text(self, selector: str) -> str:
        """Return the text of an element as the reader sees it."""
        text: str = self.page.run(f"(() => document.querySelector({selector!r})?.innerText ?? '')")
        return text

    def click_element(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        self.click(*self._middle(selector))

    def _middle(self, selector: str) -> tuple[float, float]:
        box = self.page.run(f"(() => document.querySelector({selector!r}).getBoundingClientRect().toJSON())")
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def click(self, x: float, y: float) -> None:
        """Click a point of the page with the mouse."""
        for kind in ("mousePressed", "mouseReleased"):
            self.page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float], button: str = "left") -> None:
        """Drag with the mouse."""
        held = {"button": button, "clickCount": 1}
        self.page.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], **held)
        for share in (0.25, 0.5, 0.75, 1):
            x, y = (a + (b - a) * share for a, b in zip(start, end, strict=True))
            self.page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, buttons=1, **held)
        self.page.call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], **held)

    def press(self, key: str) -> None:
        """Press a key and release it."""
        text = {"text": key} if len(key) == 1 else {}
        self.page.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.page.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def touch(self, *frames: list[tuple[float, float]]) -> None:
        """Put fingers down at the first frame, move them to the next ones, and lift them."""
        for number, points in enumerate(frames):
            fingers = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(points)]
            kind = "touchMove" if number else "touchStart"
            self.page.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)
        self.page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def set_media(self, **features: str) -> None:
        """Set media features, with `_` for `-`."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.page.call("Emulation.setEmulatedMedia", features=named)

    def picture(self) -> Pixels:
        """Wait, and return the pixels of the middle of the canvas, reduced: what lies at its edges is not in it."""
        self.idle()
        return self.picture_now()

    def picture_now(self) -> Pixels:
        """Return these pixels without waiting."""
        left, top, right, bottom = self.canvas_box()
        x, y = left + EDGE_PX, top + EDGE_PX
        clip = {"x": x, "y": y, "width": right - EDGE_PX - x, "height": bottom - EDGE_PX - y, "scale": PICTURE_SCALE}
        shot = self.page.call("Page.captureScreenshot", format="png", clip=clip)
        return pixels(base64.b64decode(shot["data"]))

    def screenshot(self) -> bytes:
        """Wait, and return the whole page as a PNG."""
        self.idle()
        return self.page.screenshot()

    def canvas_box(self) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of the canvas in the page."""
        box = self.page.run(f"(() => {CANVAS}.getBoundingClientRect().toJSON())")
        return int(box["left"]), int(box["top"]), int(box["right"]), int(box["bottom"])

    def requests(self) -> list[tuple[str, int]]:
        """Return URL and status of each answer since the last call; 0 if there was none."""
        browser = self.page.browser
        failed = [params["requestId"] for params in browser.take_events("Network.loadingFailed")]
        sent = {each["requestId"]: each["request"]["url"] for each in browser.take_events("Network.requestWillBeSent")}
        answers = [each["response"] for each in browser.take_events("Network.responseReceived")]
        return [(each["url"], each["status"]) for each in answers] + [
            (sent[number], 0) for number in failed if number in sent
        ]

    def assert_own_server_only(self) -> list[tuple[str, int]]:
        """Assert that every request so far went to the own server; return those that it answered with an error."""
        server = urlsplit(self.url)
        made = [(url, status) for url, status in self.requests() if urlsplit(url).scheme not in LOCAL_SCHEMES]
        assert {urlsplit(url).netloc for url, _ in made} <= {server.netloc}
        return [(url, status) for url, status in made if status >= 400]

    def exceptions(self) -> list[str]:
        """Return the exceptions that nothing caught."""
        thrown = self.page.browser.take_events("Runtime.exceptionThrown")
        return [each["exceptionDetails"].get("exception", {}).get("description", "?") for each in thrown]


@contextmanager
def open_viewer(
    browser: Browser, url: str, size_px: tuple[int, int] = DESKTOP_PX, *, dark: bool = False, waits: bool = True
) -> Iterator[ViewerPage]:
    """Open the page; wait until it is at rest. Asserts at the end that it asked no other host, and threw nothing."""

    def prepare(page: BrowserPage) -> None:
        page.call("Network.enable")
        page.call("Emulation.setTouchEmulationEnabled", enabled=size_px == PHONE_PX, maxTouchPoints=2)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])

    with browser.page(url, size_px, prepare) as page:
        viewer = ViewerPage(page, url, size_px)
        if waits:
            viewer.idle()
        yield viewer
        assert viewer.exceptions() == []
        viewer.assert_own_server_only()


def most_frequent(picture: Pixels) -> tuple[int, ...]:
    """Return the colour of the background: the most frequent one."""
    return Counter(picture).most_common(1)[0][0]


def drawn_share(picture: Pixels, background: tuple[int, ...]) -> float:
    """Return the fraction of a picture that is not background."""
    return 1 - sum(colour == background for colour in picture) / len(picture)


def share_of(picture: Pixels, matches: Any) -> float:
    """Return the fraction of the pixels for which a function of red, green and blue is true."""
    return sum(bool(matches(*colour)) for colour in picture) / len(picture)
