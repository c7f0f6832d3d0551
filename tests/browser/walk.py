"""A real browser on the dashboard. Runs in the environment `build/clients/browser`, started by `drive.py`."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--font-render-hinting=none",
)  # fmt: skip
PAGES = ("overview", "charts", "chat", "models", "tasks", "journal", "alerts", "why")
PATIENCE_MS = 20_000
SETTLED = """() => !document.documentElement.hasAttribute('data-pending')
  && ['live', 'kernel gone'].includes(document.getElementById('link-state').textContent)
  && (document.querySelector('.chart-grid:not([hidden])') === null || document.querySelector('.plot canvas') !== null)
  && document.getAnimations().every((one) =>
    one.playState !== 'running' || one.effect.getComputedTiming().iterations === Infinity)"""

Scheme = Literal["dark", "light"]


@dataclass
class Place:
    """Where to go: the gateway, the key to sign in with, one that may do less, the browser, axe's script, and where
    pictures go.
    """

    url: str
    key: str
    lesser_key: str
    browser: str
    axe: str
    pictures: Path | None = None


@dataclass
class Walk:
    """One page in a window of its own; remembers what went wrong in it."""

    place: Place
    page: Page
    problems: list[str] = field(default_factory=list)

    def go(self, page: str, **params: str) -> None:
        """Open a page of the dashboard and wait until it is drawn."""
        query = "&".join(f"{name}={value}" for name, value in params.items())
        self.page.goto(f"{self.place.url}/dashboard#/{page}{'?' + query if query else ''}")
        expect(self.page.locator(f"main[data-page={page}] h1")).to_be_visible(timeout=PATIENCE_MS)
        self.settled()

    def settled(self) -> None:
        """Wait until the page knows how the kernel is, waits for no answer, has drawn its charts and moves nothing."""
        self.page.wait_for_function(SETTLED)

    def sign_in(self, key: str = "") -> None:
        """By a link with the key."""
        self.page.goto(f"{self.place.url}/dashboard#key={key or self.place.key}")
        expect(self.page.get_by_role("heading", name="Overview")).to_be_visible(timeout=PATIENCE_MS)

    def width(self) -> int:
        return int(self.page.evaluate("document.scrollingElement.scrollWidth"))

    def focused(self) -> dict[str, Any]:
        """What has the focus, and whether one can see that."""
        found = self.page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e), box = e.closest('.composer');"
            " return {tag: e.tagName, id: e.id, text: (e.getAttribute('aria-label') || e.textContent || '').trim(),"
            " ring: s.outlineStyle !== 'none' || Boolean(box && getComputedStyle(box).boxShadow !== 'none')} }"
        )
        return dict(found)

    def violations(self) -> list[str]:
        """What axe finds of weight serious or critical."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(Path(self.place.axe).read_text())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']} ({one['impact']}): {one['help']}: {[node['target'] for node in one['nodes']][:4]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    def picture(self, name: str) -> None:
        if self.place.pictures is not None:
            self.settled()
            self.page.screenshot(path=self.place.pictures / f"{name}.png")


@contextlib.contextmanager
def walking(
    place: Place, scheme: Scheme = "light", size: tuple[int, int] = (1280, 800), calm: bool = False, allowed: str = ""
) -> Iterator[Walk]:
    """A fresh browser. At the end nothing may have gone wrong in the page: no script error, no breach of the content
    security policy, no request to anywhere else. `allowed` is a text that problems may contain.
    """
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context: BrowserContext = playwright.chromium.launch_persistent_context(
            profile, executable_path=place.browser, headless=True, args=list(FLAGS), color_scheme=scheme,
            viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce" if calm else "no-preference",
            device_scale_factor=1, locale="en-GB", timezone_id="UTC",
        )  # fmt: skip
        context.set_default_timeout(PATIENCE_MS)
        page = context.pages[0]
        walk = Walk(place, page)
        page.on("pageerror", lambda error: walk.problems.append(f"script: {error}"))
        page.on("console", lambda line: walk.problems.append(f"console: {line.text}") if line.type == "error" else None)
        host = urlsplit(place.url).netloc
        page.on("request", lambda one: _foreign(one.url, host, walk.problems))
        try:
            yield walk
        except BaseException:
            sys.stderr.write(json.dumps(walk.problems, indent=1) + "\n")
            raise
        finally:
            context.close()
    bad = [problem for problem in walk.problems if not (allowed and allowed in problem)]
    assert not bad, bad


def _foreign(url: str, host: str, problems: list[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.netloc != host:
        problems.append(f"request to {url}")
