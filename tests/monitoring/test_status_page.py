"""The status page: its text and markup, and how it looks in a browser: light, dark, wide, and on a telephone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.support.cpu_limit import limit_cpu_time
from tests.support.fleet_statuses import EXPECTED_HEALTH, FAULTS, NOW, ODD_NAMES, make_fleet
from tests.support.viewers import Browser, BrowserPage, StaticSite, pixels
from tilesync.model.history import MirrorHistory
from tilesync.monitoring.status import MirrorStatus, make_status
from tilesync.monitoring.status_page import format_duration, make_page, render_status_page

WIDE, TELEPHONE = (1280, 900), (360, 740)


def render(statuses: list[MirrorStatus]) -> str:
    """Render the page of a fleet."""
    return render_status_page(statuses, title="fleet.toml", now=NOW, tilesync_version="1.2.3")


class _Tags(HTMLParser):
    """Collects the tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    """There is no script, no link but the icon in the page itself, and a policy that forbids both."""
    found = _Tags(render(make_fleet()))
    names = {name for name, _ in found.tags}
    assert names.isdisjoint({"script", "img", "iframe", "object", "embed", "a", "form", "base"})
    assert [attributes["rel"] for name, attributes in found.tags if name == "link"] == ["icon"]
    addresses = [value for _, each in found.tags for key, value in each.items() if key in {"src", "href"}]
    assert all(value is not None and value.startswith("data:image/svg+xml,") for value in addresses)
    assert not any(key.startswith("on") or key == "style" for _, each in found.tags for key in each)
    (policy,) = (each["content"] for _, each in found.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_names_are_escaped() -> None:
    """A display name is shown as it is, whatever markup it has; characters that HTML must not have are replaced."""
    html = render(make_fleet())
    assert "<script" not in html
    assert ODD_NAMES[7] in _Tags(html).text
    assert "\0" not in html
    assert "Baustelle \u202egnirts\N{REPLACEMENT CHARACTER}" in html
    html.encode()


def test_problems_come_first_with_what_to_do() -> None:
    """Each mirror that is not fresh has a card with reason, hint and command; the worst are the first."""
    page = make_page(make_fleet(), title="fleet.toml", now=NOW, tilesync_version="1")
    assert [row.health for row in page.problems] == ["failing"] * 4 + ["never"] + ["stale"] * 2
    assert [row.health for row in page.rows[:7]] == [row.health for row in page.problems]
    expected = {f"mirror-{number:02d}": EXPECTED_HEALTH[fault] for number, fault in FAULTS.items()}
    assert {row.name: row.health for row in page.problems} == {
        name: health for name, health in expected.items() if health != "fresh"
    }
    refused = next(row for row in page.problems if row.name == "mirror-03")
    assert refused.reasons == ((("The service refuses this identity", False),),)
    assert refused.hint == (("Check ", False), ("TILESYNC_TOKEN", True))
    assert refused.command == "tilesync fleet fleet.toml --only mirror-03"
    assert "<code>TILESYNC_TOKEN</code>" in render(make_fleet())


def test_the_headline_counts() -> None:
    """The headline says how many mirrors are fresh; for one mirror, how it is."""

    def headline(statuses: list[MirrorStatus]) -> str:
        return make_page(statuses, title="", now=NOW, tilesync_version="1").headline

    fleet = make_fleet()
    assert headline(fleet) == "43 of 50 mirrors are fresh"
    assert headline(fleet[:3]) == "All 3 mirrors are fresh"
    assert headline(fleet[3:4]) == "The mirror is failing"
    assert headline(fleet[41:42]) == "The mirror is not mirrored yet"
    assert headline([]) == "There are no mirrors"
    assert "There are no mirrors" in render([])


def test_the_squares_say_how_runs_ended() -> None:
    """A square is the run of a night: unchanged, published, failed, killed or running, with its time in the title."""
    fleet = make_fleet()
    rows = {row.name: row for row in make_page(fleet, title="", now=NOW, tilesync_version="1").rows}
    assert rows["mirror-00"].squares[0] == ("p", "1 Nov 02:00 published")
    assert rows["mirror-03"].squares[-1] == ("f", "30 Nov 02:00 failed, exit 5")
    assert rows["mirror-29"].squares[-1] == ("k", "30 Nov 02:00 killed")
    assert rows["mirror-37"].squares[-1] == ("r", "30 Nov 02:00 running")
    assert rows["mirror-03"].strip_label == "30 runs, 4 failed or killed"
    assert rows["mirror-37"].strip_label == "30 runs, 0 failed or killed"
    assert rows["mirror-41"].strip_label == "no run yet"
    assert render(fleet).count('<i title="') > 500


def test_one_mirror_has_a_list_of_its_runs() -> None:
    """The page of one mirror lists its runs, the latest first; that of a fleet does not."""
    page = make_page(make_fleet()[3:4], title="", now=NOW, tilesync_version="1")
    assert [run.outcome for run in page.runs[:5]] == ["failed, exit 5"] * 4 + [page.runs[4].outcome]
    assert (page.runs[0].time, page.runs[0].message) == (
        "30 Nov 2026, 02:00 UTC",
        "the service refuses this identity",
    )
    assert make_page(make_fleet(), title="", now=NOW, tilesync_version="1").runs == ()


def test_a_thousand_mirrors_make_a_small_page() -> None:
    """The page of 1,000 mirrors with 30 runs each has less than 3 MB, and does not take quadratic time."""
    fleet = make_fleet(1000)
    with limit_cpu_time():
        html = render(fleet)
    assert len(html.encode()) < 3_000_000


def test_a_status_without_facts_is_shown() -> None:
    """A mirror of which nothing is known has a row, without charts."""
    html = render([make_status("new", "az://account/tiles", MirrorHistory(), now=NOW)])
    assert "no run has ended well yet".capitalize() in html
    assert "<svg" not in _without_head(html)


def _without_head(html: str) -> str:
    return html[html.index("<body>") :]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (59.4, "59 s"), (185, "3 min 5 s"), (7620, "2 h 7 min")]
)
def test_durations_have_one_or_two_units(seconds: float, text: str) -> None:
    """A duration is short enough for a column."""
    assert format_duration(seconds) == text


# --- in a browser ---


@contextmanager
def opened(
    browser: Browser, folder: Path, html: str, size_px: tuple[int, int], scheme: str = "light"
) -> Iterator[tuple[BrowserPage, StaticSite]]:
    """Open a page from a server in a browser that prefers light or dark."""
    (folder / "status.html").write_text(html, encoding="utf-8")
    with StaticSite({"/": folder}) as site, browser.page(f"{site.url}/status.html", size_px) as page:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.call("Emulation.setEmulatedMedia", page.session, features=features)
        yield page, site


def evaluate(page: BrowserPage, expression: str) -> Any:
    """Return the value of an expression in the page."""
    return page.run(f"(() => {expression})")


@pytest.mark.parametrize("size_px", [WIDE, (820, 1180), TELEPHONE], ids=["wide", "tablet", "telephone"])
def test_the_page_fits_the_screen(browser: Browser, tmp_path: Path, size_px: tuple[int, int]) -> None:
    """No text is wider than the screen, every mirror has a row, and nothing else is requested."""
    with opened(browser, tmp_path, render(make_fleet()), size_px) as (page, site):
        assert evaluate(page, "document.documentElement.scrollWidth") <= size_px[0]
        visible = "[...document.querySelectorAll('main *')].filter(e => !e.closest('thead'))"
        assert evaluate(page, f"Math.max(...{visible}.map(e => e.getBoundingClientRect().right))") <= size_px[0]
        assert evaluate(page, "document.querySelectorAll('tbody tr').length") == 50
        assert evaluate(page, "document.querySelectorAll('.card').length") == 7
        assert evaluate(page, "document.querySelector('h1').innerText") == "43 of 50 mirrors are fresh"
        assert site.requests == [("/status.html", 200)]


def test_problems_are_the_first_rows(browser: Browser, tmp_path: Path) -> None:
    """Cards come before the table, and rows of problems before those of fresh mirrors; nothing of a name is run."""
    with opened(browser, tmp_path, render(make_fleet()), WIDE) as (page, _):
        order = evaluate(page, "[...document.querySelectorAll('tbody tr')].map(row => row.className)")
        assert order == ["failing"] * 4 + ["never"] + ["stale"] * 2 + ["fresh"] * 43
        first_row = "document.querySelector('tbody tr').getBoundingClientRect().top"
        last_card = "[...document.querySelectorAll('.card')].pop().getBoundingClientRect().bottom"
        assert evaluate(page, f"{last_card} < {first_row}")
        assert evaluate(page, "document.title") == "43 of 50 mirrors are fresh · fleet.toml"
        assert ODD_NAMES[7] in evaluate(page, "[...document.querySelectorAll('.name')].map(e => e.textContent)")


def test_the_style_is_accepted_by_the_policy(browser: Browser, tmp_path: Path) -> None:
    """The digest in the policy is that of the style: a browser applies it."""
    with opened(browser, tmp_path, render(make_fleet()), WIDE) as (page, _):
        assert evaluate(page, "getComputedStyle(document.querySelector('.card')).borderLeftWidth") == "4px"


@pytest.mark.parametrize("size_px", [WIDE, TELEPHONE], ids=["wide", "telephone"])
def test_dark_is_dark(browser: Browser, tmp_path: Path, size_px: tuple[int, int]) -> None:
    """Most pixels are dark for who prefers that, and light for who does not."""
    shares = {}
    for scheme in ("light", "dark"):
        with opened(browser, tmp_path, render(make_fleet()), size_px, scheme) as (page, _):
            drawn = pixels(page.screenshot())
            shares[scheme] = sum(sum(each) < 3 * 60 for each in drawn) / len(drawn)
    assert shares["dark"] > 0.8
    assert shares["light"] < 0.2


CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = (rgb) => rgb.slice(0, 3).map(c => linear(c / 255))
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  const found = {};
  for (const node of document.querySelectorAll('main *')) {
    if (![...node.childNodes].some(each => each.nodeType === 3 && each.textContent.trim())) continue;
    const [one, two] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
    const ratio = (one + .05) / (two + .05);
    if (ratio < 4.5) found[node.tagName + '.' + node.className] = ratio;
  }
  return found;
})
"""
"""Function that returns the elements whose text has less contrast than 4.5 to 1. Source: WCAG 2.2, 1.4.3."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser: Browser, tmp_path: Path, scheme: str) -> None:
    """Every text has the contrast that WCAG AA asks for, light and dark."""
    with opened(browser, tmp_path, render(make_fleet()), WIDE, scheme) as (page, _):
        assert page.run(re.sub(r"\s+", " ", CONTRAST)) == {}


def test_charts_have_names_for_screen_readers(browser: Browser, tmp_path: Path) -> None:
    """Each chart and each strip of runs is an image with a name; cells keep their roles on a telephone."""
    with opened(browser, tmp_path, render(make_fleet()), TELEPHONE) as (page, _):
        tree = browser.call("Accessibility.getFullAXTree", page.session)["nodes"]
    images = [node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "image"]
    assert len(images) > 100
    assert all(images)
    roles = [node.get("role", {}).get("value") for node in tree]
    assert (roles.count("table"), roles.count("row"), roles.count("rowheader")) == (1, 51, 50)
