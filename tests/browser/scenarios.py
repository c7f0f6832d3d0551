"""What people do on the dashboard, each as one function that a browser carries out. They assert as they go."""

from __future__ import annotations

import re
import sys

from playwright.sync_api import Page, expect
from walk import PAGES, PATIENCE_MS, Place, walking


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
    """From the list to a model: sorted by size, opened, planned; and quantized."""
    with walking(place) as walk:
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
        walk.go("overview")
        queues = page.get_by_role("table", name="Queues").get_by_role("row")
        expect(queues).to_have_count(3)
        expect(queues.nth(2)).to_contain_text("uid:1001")
        advice = page.get_by_role("list", name="Advice").get_by_role("listitem")
        expect(advice.first).to_contain_text("evictions: −4")
        expect(advice.first).to_contain_text("llmos pin tiny")
        why = advice.first.get_by_role("link", name="Why is tiny as it is?")
        expect(why).to_have_attribute("href", "#/why?about=m-3")
        walk.go("alerts")
        page.get_by_role("link", name="Why: cuda0").click()
        expect(page.get_by_role("heading", name="Why: cuda0")).to_be_visible()
        first = page.locator(".timeline li").first
        expect(first).to_contain_text("is back on cuda0")
        expect(first).to_contain_text("took: 5.8 s")


def quantize(page: Page) -> None:
    """A model is quantized by a task: the page of the tasks opens and says that it has begun."""
    page.get_by_role("button", name="Quantize").click()
    page.get_by_role("dialog").get_by_role("button", name="Quantize").click()
    expect(page.get_by_role("heading", name="Tasks", exact=True)).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="has begun")).to_be_visible()
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


def before(place: Place) -> None:
    """Charts show what was before the page was opened, and how much that is can be chosen."""
    with walking(place) as walk:
        walk.sign_in()
        walk.go("charts")
        page = walk.page
        tokens = page.locator("figure.chart").first
        tokens.get_by_text("As a table").click()
        rows = tokens.locator(".twin tbody tr")
        assert rows.count() >= 15  # a page that was opened just now has two samples of its own
        newest, oldest = rows.first.inner_text(), rows.last.inner_text()
        page.get_by_label("Time shown").select_option("1800")
        expect(rows.last).not_to_have_text(oldest)
        assert newest and rows.count() >= 15


def runs(place: Place) -> None:
    """Loss curves grow, two runs lie over each other, a chart is a table too; a run is begun, and its page opens."""
    with walking(place, allowed="404") as walk:
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
        dialog.get_by_label("Data").fill("/home/me/none.jsonl")
        dialog.get_by_label("Save as").fill("/models/mine")
        dialog.get_by_role("button", name="Begin").click()
        expect(dialog).to_contain_text("does not exist")
        dialog.get_by_label("Data").fill("/home/me/train.jsonl")
        dialog.get_by_role("button", name="Begin").click()
        expect(page.get_by_role("heading", name="support-lora r8")).to_be_visible()
        state = page.locator(".page-head .pill").first
        for deed, after in (("Pause", "paused"), ("Resume", "running")):
            page.get_by_role("button", name=f"{deed} support-lora r8").click()
            expect(state).to_have_text(after)
        expect(page.get_by_role("button", name="Pause support-lora r8")).to_be_visible()
