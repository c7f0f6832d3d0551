"""How the dashboard looks and can be reached: by keyboard, on a phone, with axe, in dark and light, in pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from playwright.sync_api import Page, expect
from walk import PAGES, Place, Scheme, Walk, walking

PHONE = (390, 844)


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


def tabs_until(walk: Walk, wanted: Callable[[dict[str, Any]], bool], most: int) -> None:
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
                    found[f"{scheme} {size[0]} {name}"] = walk.violations()
                walk.go("why", about="cpu0")
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


def pictures(place: Place) -> None:
    """The pictures of docs/dashboard.md: dark, light, and a phone."""
    for scheme in get_args(Scheme):
        with walking(place, scheme, (1280, 860)) as walk:
            walk.sign_in()
            page = walk.page
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
            walk.picture(f"phone-{scheme}")


def two_answers(page: Page, go: Callable[[str], None]) -> None:
    go("chat")
    page.get_by_role("button", name="Compare").click()
    page.get_by_label("Message to every open conversation").fill("What is the ledger of bytes?")
    page.get_by_role("button", name="Send").click()
    for pane in page.locator(".pane").all():
        expect(pane.locator(".message.assistant .stats").last).to_contain_text("ended", timeout=60_000)
