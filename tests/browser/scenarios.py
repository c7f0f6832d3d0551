"""What people do on the dashboard, each as one function that a browser carries out. They assert as they go."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import get_args

from playwright.sync_api import Page, expect
from walk import PAGES, PATIENCE_MS, Place, Scheme, walking

PHONE = (390, 844)


def tell(what: str) -> None:
    """Ask the test for something, and wait until it is done."""
    sys.stdout.write(what + "\n")
    sys.stdout.flush()
    assert sys.stdin.readline().strip() == "ok"


def load(place: Place) -> None:
    """The gate, a wrong key, the right one, the link with a key, the cookie, signing out."""
    with walking(place, allowed="401") as walk:
        page = walk.page
        page.goto(place.url)
        expect(page.get_by_label("Key", exact=True)).to_be_focused()
        page.get_by_label("Key", exact=True).fill("llmos_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("llmos keys create")
        page.get_by_label("Key", exact=True).fill(place.key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        assert "llmos_key" not in page.evaluate("document.cookie")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Key", exact=True)).to_be_visible()
        assert not page.context.cookies()
        walk.sign_in()
        assert place.key not in page.url
        expect(page.get_by_role("heading", name="Devices")).to_be_visible()
        expect(page.locator(".device").first.locator(".bar")).to_have_attribute(
            "aria-label", re.compile(" of .* used: ")
        )
        expect(page.locator("#link-state")).to_have_text("live")
        for figure in ("Tokens", "Requests", "Queue", "First token", "Whole request", "Errors"):
            expect(page.locator(".figure", has_text=figure).locator(".value").first).not_to_be_empty()
        seen = page.locator(".spark path").first
        before = seen.get_attribute("d")
        expect(seen).not_to_have_attribute("d", before or "", timeout=PATIENCE_MS)  # it is live


def chat(place: Place) -> None:
    """Two conversations side by side get one message; both answers come as they are written, with their figures."""
    with walking(place) as walk:
        walk.sign_in()
        walk.go("chat")
        page = walk.page
        message = page.get_by_label("Message to every open conversation")
        expect(message).to_be_focused()
        message.fill("Say something short")
        page.keyboard.press("Enter")
        expect(page.locator(".message.user")).to_have_text(re.compile("Say something short"))
        expect(page.locator(".message.assistant .text").first).not_to_be_empty(timeout=60_000)
        expect(page.locator(".message.assistant .stats").first).to_contain_text("ended", timeout=60_000)
        page.get_by_role("button", name="Compare").click()
        expect(page.locator(".pane")).to_have_count(2)
        second = page.locator(".pane").nth(1)
        second.get_by_role("button", name="Settings").click()
        second.get_by_label("Most tokens").fill("8")
        second.get_by_role("button", name="Settings").click()
        message.fill("And now both of you")
        page.get_by_role("button", name="Send").click()
        for pane in page.locator(".pane").all():
            expect(pane.locator(".message.assistant .stats").last).to_contain_text("first token", timeout=60_000)
        expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="New chat").click()
        expect(page.locator(".message")).to_have_count(0)


def cancel(place: Place) -> None:
    """An answer that takes long is stopped by the button, and another by Escape."""
    with walking(place) as walk:
        walk.sign_in()
        walk.go("chat")
        page = walk.page
        message = page.get_by_label("Message to every open conversation")
        for stop in ("button", "key"):
            message.fill("!slow 20; please write very long and slow answers " * 3)
            page.keyboard.press("Enter")
            expect(page.locator(".message.assistant .text").last).not_to_be_empty()
            if stop == "button":
                page.get_by_role("button", name="Stop").click()
            else:
                page.keyboard.press("Escape")
            expect(page.locator(".message.assistant .stats").last).to_contain_text("stopped")
            expect(page.get_by_role("button", name="Send")).to_be_visible()
        tell("cancelled twice")


def browse(place: Place) -> None:
    """From the list to a model: sorted by size, opened, planned; and a service that comes later says so."""
    with walking(place, allowed="501") as walk:
        walk.sign_in()
        walk.go("models")
        page = walk.page
        rows = page.locator("tbody tr")
        expect(rows.first).to_be_visible()
        size = page.get_by_role("button", name="Size", exact=True)
        size.click()
        expect(page.locator("th", has=size)).to_have_attribute("aria-sort", "descending")
        size.click()
        expect(page.locator("th", has=size)).to_have_attribute("aria-sort", "ascending")
        name = page.locator("tbody tr", has_text="stored").first.locator("a.name-cell").inner_text()
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        page.get_by_role("button", name="Plan it").click()
        expect(page.locator(".plan .verdict").first).to_contain_text(re.compile("fit"))
        expect(page.locator(".plan").first).to_contain_text(re.compile(r"needs [\d.]+ .?i?B, [\d.]+ .?i?B free"))
        quantize(page)


def journal(place: Place) -> None:
    """The journal by words, level and unit; held still; from an alert and from a line to the reasons."""
    with walking(place) as walk:
        walk.sign_in()
        walk.go("journal")
        page = walk.page
        lines = page.get_by_role("list", name="Journal").get_by_role("listitem")
        expect(lines.first).to_be_visible()
        every = lines.count()
        page.get_by_role("searchbox", name="Words in the line").fill("signal 9")
        expect(lines).to_have_count(1)
        page.get_by_role("searchbox", name="Words in the line").fill("")
        expect(lines).to_have_count(every)
        page.get_by_label("Lowest level").select_option("error")
        expect(lines).to_have_count(1)
        page.get_by_label("Lowest level").select_option("info")
        page.get_by_label("Unit").select_option("residency")
        expect(lines).to_have_count(1)
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
        walk.go("alerts")
        page.get_by_role("link", name="Why: cuda0").click()
        expect(page.get_by_role("heading", name="Why: cuda0")).to_be_visible()
        first = page.locator(".timeline li").first
        expect(first).to_contain_text("is back on cuda0")
        expect(first).to_contain_text("took s: 5.8 s")


def quantize(page: Page) -> None:
    """A service that comes later says so in its own words, and the page stays usable."""
    page.get_by_role("button", name="Quantize").click()
    page.get_by_role("dialog").get_by_role("button", name="Quantize").click()
    expect(page.locator("dialog [data-state=later]")).to_contain_text("Not offered yet")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def steer(place: Place) -> None:
    """Load, sleep, wake, pin, unload a model of the real system; each asks first, and the page follows."""
    with walking(place) as walk:
        walk.sign_in()
        page = walk.page
        walk.go("model", path="/models/small")
        page.get_by_role("button", name="Load", exact=True).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Device").select_option("null0")
        dialog.get_by_role("button", name="Load", exact=True).click()
        expect(dialog).to_have_count(0, timeout=60_000)
        state = page.locator(".page-head .pill")
        expect(state).to_have_text("awake")
        for deed, after in (("Sleep", "asleep"), ("Wake", "awake"), ("Pin", "awake"), ("Unpin", "awake")):
            page.get_by_role("button", name=f"{deed} small", exact=True).click()
            dialog.get_by_role("button", name=deed, exact=True).click()
            expect(state).to_have_text(after, timeout=60_000)
            expect(dialog).to_have_count(0)
        page.get_by_role("link", name="Why is small as it is?").click()
        expect(page.locator(".timeline li").first).to_be_visible()
        page.go_back()
        page.get_by_role("button", name="Unload small").click()
        dialog.get_by_role("button", name="Cancel").click()
        expect(state).to_have_text("awake")
        page.get_by_role("button", name="Unload small").click()
        dialog.get_by_role("button", name="Unload", exact=True).click()
        expect(state).to_have_text("stored")


def limited(place: Place) -> None:
    """A key with few scopes sees every page without an error; what it may not do stands greyed out, with the reason."""
    with walking(place) as walk:
        walk.sign_in(place.lesser_key)
        page = walk.page
        for name in PAGES:
            walk.go(name)
            page.wait_for_timeout(500)
            expect(page.locator(".failure")).to_have_count(0)
        walk.go("model", path="/models/small")
        load = page.get_by_role("button", name="Load", exact=True)
        expect(load).to_be_disabled()
        expect(load).to_have_attribute("title", re.compile("scope load"))
        page.get_by_role("button", name="Plan it").click()
        expect(page.locator(".plan .verdict")).to_have_text("It fits")
        walk.go("chat", model="small")
        page.get_by_label("Message to every open conversation").fill("hello")
        page.keyboard.press("Enter")
        expect(page.locator(".message.assistant .stats").last).to_contain_text("ended", timeout=60_000)
        walk.go("overview")
        unload = page.get_by_role("button", name="Unload small")
        expect(unload).to_be_disabled()
        expect(unload).to_have_attribute("title", re.compile("scope manage"))


def search(place: Place) -> None:
    """Words and filters narrow the list; the address keeps them; nothing found says so."""
    with walking(place) as walk:
        walk.sign_in()
        walk.go("models")
        page = walk.page
        rows = page.locator("tbody tr")
        expect(rows.first).to_be_visible()
        every = rows.count()
        assert every > 1
        page.get_by_role("searchbox", name="Search models").fill("tiny")
        expect(rows).to_have_count(1)
        expect(rows.first).to_contain_text("tiny")
        assert "q=tiny" in page.url
        page.reload()
        expect(rows).to_have_count(1)
        page.get_by_role("searchbox").fill("nosuchmodelanywhere")
        expect(page.get_by_role("heading", name="No model matches")).to_be_visible()
        page.get_by_role("searchbox").fill("")
        expect(rows).to_have_count(every)
        page.get_by_text("Filters", exact=True).click()
        page.get_by_label("At most").fill("1 B")
        expect(page.get_by_role("heading", name="No model matches")).to_be_visible()
        page.get_by_label("At most").fill("a lot")
        expect(page.get_by_role("alert")).to_contain_text("is no size")


def survive(place: Place) -> None:
    """The kernel is killed: the page says so and keeps what it knew; it comes back: the page goes on by itself."""
    with walking(place, allowed="503") as walk:
        walk.sign_in()
        page = walk.page
        expect(page.locator("#link-state")).to_have_text("live")
        tell("kill the kernel")
        expect(page.locator("#banner")).to_contain_text("The kernel is gone")
        expect(page.locator("#link-state")).to_have_text("kernel gone")
        expect(page.get_by_role("heading", name="Devices")).to_be_visible()
        walk.go("alerts")
        expect(page.locator(".alert.error")).to_be_visible()
        walk.go("charts")
        walk.go("models")
        expect(page.get_by_role("alert")).to_be_visible()  # it cannot be asked now
        tell("start the kernel")
        expect(page.locator("#link-state")).to_have_text("live", timeout=60_000)
        expect(page.locator("#banner")).to_be_empty()
        expect(page.locator("tbody tr").first).to_be_visible(timeout=60_000)  # asked again by itself
        walk.go("overview")
        expect(page.locator(".device").first).to_be_visible(timeout=60_000)


def keyboard(place: Place) -> None:
    """Everything without a mouse: skip link, page shortcuts, search, rows, a dialog, a chat."""
    with walking(place) as walk:
        walk.sign_in()
        page = walk.page
        page.keyboard.press("Tab")
        assert walk.focused() == {"tag": "A", "id": "skip", "text": "Skip to the content", "ring": True}
        page.keyboard.press("Enter")
        assert walk.focused()["id"] == "main"
        for key, name in zip("olcmtjaw", PAGES_BY_KEY, strict=True):
            page.locator("body").evaluate("() => document.activeElement.blur()")
            page.keyboard.press("g")
            page.keyboard.press(key)
            expect(page.locator("main h1")).to_have_text(name)
        page.locator("body").evaluate("() => document.activeElement.blur()")
        page.keyboard.press("g")
        page.keyboard.press("m")
        expect(page.locator("tbody tr").first).to_be_visible()
        page.keyboard.press("/")
        assert walk.focused()["text"] == "Search models"
        tabs_until(walk, lambda found: found["tag"] == "TR", 40)
        first = walk.focused()
        page.keyboard.press("ArrowDown")
        second = walk.focused()
        assert second["tag"] == "TR" and second["text"] != first["text"] and second["ring"]
        page.keyboard.press("Home")
        assert walk.focused()["text"] == first["text"]
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="All models")).to_be_visible()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.locator("body").evaluate("() => document.activeElement.blur()")
        dark = page.locator("html").get_attribute("data-theme")
        page.keyboard.press("t")
        page.keyboard.press("t")
        assert dark == "light" and page.locator("html").get_attribute("data-theme") == "dark"
        page.keyboard.press("g")
        page.keyboard.press("c")
        expect(page.get_by_label("Message to every open conversation")).to_be_focused()
        page.keyboard.type("hello by keyboard")
        page.keyboard.press("Enter")
        expect(page.locator(".message.assistant .text")).not_to_be_empty(timeout=60_000)
        page.keyboard.press("Escape")


PAGES_BY_KEY = ("Overview", "Live charts", "Chat", "Models", "Tasks", "Journal", "Alerts", "Why")


def tabs_until(walk, wanted, most):  # type: ignore[no-untyped-def]
    """Press Tab until what has the focus is wanted; everything on the way must show that it has it."""
    for _ in range(most):
        walk.page.keyboard.press("Tab")
        found = walk.focused()
        assert found["ring"], f"the focus cannot be seen on {found}"
        if wanted(found):
            return
    raise AssertionError(f"not reached by {most} tabs")


def phone(place: Place) -> None:
    """On a phone no page scrolls sideways, the menu opens and closes, and a chat works."""
    with walking(place, size=PHONE) as walk:
        walk.sign_in()
        page = walk.page
        for name in PAGES:
            walk.go(name)
            page.wait_for_timeout(600)
            assert walk.width() <= PHONE[0], f"{name} is {walk.width()} px wide"
        page.get_by_role("button", name="Menu").click()
        menu = page.get_by_role("navigation", name="Pages").get_by_role("link", name="Models")
        expect(menu).to_be_visible()
        menu.click()
        expect(page.get_by_role("heading", name="Models")).to_be_visible()
        expect(page.locator("#side")).to_be_hidden()
        page.locator("tbody tr a.name-cell").first.click()
        expect(page.get_by_role("heading", name="What it is")).to_be_visible()
        assert walk.width() <= PHONE[0]


def accessible(place: Place) -> None:
    """axe finds nothing serious on any page, dark or light, wide or narrow, nor in a dialog or at the gate."""
    found: dict[str, list[str]] = {}
    for scheme in get_args(Scheme):
        for size in ((1280, 800), PHONE):
            with walking(place, scheme, size, allowed="401") as walk:
                walk.page.goto(place.url)
                expect(walk.page.get_by_label("Key", exact=True)).to_be_visible()
                found[f"{scheme} {size[0]} gate"] = walk.violations()
                walk.sign_in()
                for name in PAGES:
                    walk.go(name)
                    walk.page.wait_for_timeout(700)
                    found[f"{scheme} {size[0]} {name}"] = walk.violations()
                walk.go("why", about="cpu0")
                walk.page.wait_for_timeout(500)
                found[f"{scheme} {size[0]} reasons"] = walk.violations()
                walk.page.keyboard.press("?")
                found[f"{scheme} {size[0]} dialog"] = walk.violations()
    assert len(found) == 4 * (len(PAGES) + 3)
    assert not {name: bad for name, bad in found.items() if bad}, {name: bad for name, bad in found.items() if bad}


def themes(place: Place) -> None:
    """The page follows the system's theme, the reader's choice stays, nothing moves for those who asked for calm."""
    ground = "getComputedStyle(document.body).backgroundColor"
    with walking(place, "dark", calm=True) as walk:
        walk.sign_in()
        page = walk.page
        dark = page.evaluate(ground)
        page.emulate_media(color_scheme="light")
        page.wait_for_function(f"{ground} !== '{dark}'")
        light = page.evaluate(ground)
        page.get_by_role("button", name="Theme: as the system").click()
        page.get_by_role("button", name="Theme: light").click()
        assert page.evaluate(ground) == dark
        page.reload()
        expect(page.get_by_role("heading", name="Devices")).to_be_visible()
        assert page.evaluate(ground) == dark != light
        moving = (
            "[...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).animationName !== 'none').length"
        )
        assert page.evaluate(moving) == 0


def runs(place: Place) -> None:
    """Loss curves grow, two runs lie over each other, and a chart is a table too. Tuning says that it comes later."""
    with walking(place, allowed="501") as walk:
        walk.sign_in()
        walk.go("tasks")
        page = walk.page
        for box in page.get_by_role("checkbox").all()[:2]:
            box.check()
        page.get_by_role("button", name="Compare runs (2)").click()
        expect(page.get_by_role("heading", name="2 runs compared")).to_be_visible()
        expect(page.locator(".plot canvas")).to_be_visible()
        plot = page.locator(".plot")
        expect(plot).to_have_attribute("aria-label", re.compile("Curve: .* now .* least .* most "))
        before = plot.get_attribute("aria-label") or ""
        expect(plot).not_to_have_attribute("aria-label", before)  # it grows
        page.get_by_text("As a table").click()
        expect(page.locator(".twin tbody tr").first).to_be_visible()
        expect(page.get_by_role("table", name="Results of the runs")).to_contain_text("· best")
        walk.go("tasks")
        page.get_by_role("button", name="Tune a model").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Data").fill("/home/me/train.jsonl")
        dialog.get_by_label("Save as").fill("/models/mine")
        dialog.get_by_role("button", name="Begin").click()
        expect(page.locator("dialog [data-state=later]")).to_contain_text("Not offered yet")


def pictures(place: Place) -> None:
    """The pictures of docs/dashboard.md: dark, light, and a phone."""
    for scheme in get_args(Scheme):
        with walking(place, scheme, (1280, 860)) as walk:
            walk.sign_in()
            page = walk.page
            page.wait_for_timeout(15_000)  # so that there is something to draw
            walk.picture(f"overview-{scheme}")
            if scheme == "dark":
                walk.go("charts")
                walk.picture("charts-dark")
                walk.go("model", path="/models/llama-3.2-1b")
                page.get_by_role("button", name="Plan it").click()
                expect(page.locator(".plan .verdict").nth(1)).to_be_visible()
                walk.picture("model-dark")
                walk.go("why", about="m-1")
                expect(page.locator(".timeline li").first).to_be_visible()
                walk.picture("why-dark")
            else:
                two_answers(page, walk.go)
                walk.picture("chat-light")
                walk.go("models")
                expect(page.locator("tbody tr").first).to_be_visible()
                walk.picture("models-light")
                walk.go("tasks")
                for box in page.get_by_role("checkbox").all()[:2]:
                    box.check()
                page.get_by_role("button", name="Compare runs (2)").click()
                expect(page.locator(".plot canvas")).to_be_visible()
                walk.picture("runs-light")
        with walking(place, scheme, PHONE) as walk:
            walk.sign_in()
            walk.page.wait_for_timeout(5000)
            walk.picture(f"phone-{scheme}")


def two_answers(page: Page, go: Callable[[str], None]) -> None:
    go("chat")
    page.get_by_role("button", name="Compare").click()
    page.get_by_label("Message to every open conversation").fill("What is the ledger of bytes?")
    page.get_by_role("button", name="Send").click()
    for pane in page.locator(".pane").all():
        expect(pane.locator(".message.assistant .stats").last).to_contain_text("ended", timeout=60_000)
