"""What people do with runs of tuning on the dashboard: begin, pause, resume and cancel them, read reports, compare."""

from __future__ import annotations

import re

from playwright.sync_api import expect
from walk import Place, Walk, walking

PHONE = (390, 844)
SOON = 60_000
PUT = """(data) => fetch('/api/v1/files/home/me/d.jsonl',
  {method: 'PUT', body: data, headers: {'X-LLMOS-Dashboard': '1'}}).then((answer) => answer.ok)"""


def steer_tuning(place: Place) -> None:
    """On a real kernel: a run is begun from its dialog, paused, resumed, cancelled; another one makes a result."""
    with walking(place) as walk:
        walk.sign_in()
        page = walk.page
        assert page.evaluate(PUT, "".join(f'{{"text": "line {n}"}}\n' for n in range(100)))
        walk.go("model", path="/models/other")
        page.get_by_role("button", name="Load", exact=True).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Device").select_option("null0")
        dialog.get_by_role("button", name="Load", exact=True).click()
        expect(dialog).to_have_count(0, timeout=SOON)
        begin(walk, "/models/long", epochs="1000000")
        state = page.locator(".page-head .pill").first
        expect(state).to_have_text("running")
        name = page.get_by_role("heading", level=1).inner_text()
        page.get_by_role("button", name=f"Pause {name}").click()
        expect(state).to_have_text("paused", timeout=SOON)
        expect(page.get_by_role("button", name=f"Pause {name}")).to_have_count(0)
        walk.go("tasks")
        row = page.get_by_role("row").filter(has_text="/models/long")
        now = row.locator("td[data-label=State] .pill")
        expect(now).to_have_text("paused")
        row.get_by_role("button", name="Resume").click()
        expect(now).to_have_text("running", timeout=SOON)
        row.get_by_role("button", name="Cancel").click()
        dialog.get_by_role("button", name="Cancel", exact=True).click()
        expect(dialog).to_have_count(0)
        expect(now).to_have_text("running")
        row.get_by_role("button", name="Cancel").click()
        dialog.get_by_role("button", name="Cancel the task").click()
        expect(now).to_have_text("cancelled", timeout=SOON)
        expect(row.get_by_role("button", name=re.compile("Pause|Resume|Cancel"))).to_have_count(0)
        begin(walk, "/models/short", epochs="1")
        expect(state).to_have_text("done", timeout=SOON)
        expect(page.locator(".page-head")).to_contain_text("promoted")
        expect(page.locator(".page-head")).to_contain_text(re.compile("/models/short@."))
        walk.go("tasks")
        expect(page.get_by_role("row").filter(has_text="/models/short")).to_contain_text("promoted")


def begin(walk: Walk, out: str, epochs: str) -> None:
    """Fill in the dialog and begin; the page of the run opens."""
    walk.go("tasks")
    page = walk.page
    page.get_by_role("button", name="Tune a model").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Model").fill("/models/other")
    dialog.get_by_label("Data").fill("/home/me/d.jsonl")
    dialog.get_by_label("Save as").fill(out)
    dialog.get_by_label("Epochs").fill(epochs)
    dialog.get_by_role("button", name="Begin").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).to_contain_text(out)


def reports(place: Place) -> None:
    """The report of a run: figures, classes, curves, groups, mistakes, trials; nothing of it is taken for markup."""
    with walking(place) as walk:
        walk.sign_in()
        walk.go("task", id="t-17")
        page = walk.page
        figures = page.get_by_role("region", name="Figures of held-out rows").get_by_role("row")
        expect(figures.nth(1)).to_contain_text("accuracy")
        expect(figures.nth(1)).to_contain_text("0.9 [0.87, 0.93]")
        expect(figures.nth(1)).to_contain_text("better")
        expect(figures.nth(3)).to_contain_text("may be chance")
        matrix = page.get_by_role("region", name="Confusion matrix").get_by_role("cell")
        expect(matrix.filter(has_text=re.compile("^144$"))).to_have_count(1)
        expect(page.get_by_role("img", name=re.compile("ROC: refund, area 0.97"))).to_be_visible()
        expect(page.get_by_role("img", name=re.compile("Precision and recall: refund"))).to_be_visible()
        expect(page.get_by_role("region", name="Groups", exact=True)).to_contain_text("south")
        mistakes = page.get_by_role("region", name="Worst mistakes")
        expect(mistakes).to_contain_text("<script>document.title = 'taken'</script>")
        expect(page).not_to_have_title("taken")
        trials = page.get_by_role("region", name="Trials of the search").get_by_role("row")
        expect(trials).to_have_count(6)
        expect(trials.nth(1)).to_contain_text("0 · best")
        expect(trials.last).to_contain_text("the loss is no number any more")
        expect(page.get_by_label("learning rate", exact=True)).to_have_attribute("value", "0.71")
        walk.go("task", id="t-11")
        expect(page.get_by_role("region", name="Worth a label next")).to_contain_text("<u>money</u> or parcel")
        expect(page.get_by_role("region", name="Figures of answers")).to_contain_text("0.41")
        expect(page.get_by_role("definition").filter(has_text="Where is <i>it</i>?")).to_have_count(1)
    look(place, "t-17")
    look(place, "t-11")


def side_by_side(place: Place) -> None:
    """Two runs are ticked, one of them known by its record alone: curves, figures and recipes stand side by side."""
    with walking(place) as walk:
        walk.sign_in()
        walk.go("tasks")
        page = walk.page
        rows = page.get_by_role("row")
        expect(rows.filter(has_text="t-17")).to_contain_text("promoted")
        expect(rows.filter(has_text="t-11")).to_contain_text("not promoted")
        for id in ("t-17", "t-11"):
            rows.filter(has_text=id).get_by_role("checkbox").check()
        page.get_by_role("button", name="Compare runs (2)").click()
        figures = page.get_by_role("region", name="Figures of the runs").get_by_role("row")
        for said in ("accuracy", "0.9 [0.87, 0.93]", "0.78 [0.75, 0.81]", "before 0.34 [0.31, 0.37]"):
            expect(figures.nth(1)).to_contain_text(said)
        recipes = page.get_by_role("region", name="Recipes of the runs").get_by_role("row")
        expect(recipes.filter(has_text="rank")).to_contain_text("16")
        expect(page.get_by_role("table", name="Results of the runs")).to_contain_text("support-lora-candidate")
        expect(page.locator(".plot canvas")).to_be_visible()
    look(place, "t-17,t-11")


def look(place: Place, ids: str) -> None:
    """The page of these runs in dark and light, wide and narrow: nothing is too wide, and axe finds nothing serious."""
    for scheme, size in (("dark", (1280, 800)), ("light", (1280, 800)), ("dark", PHONE), ("light", PHONE)):
        with walking(place, scheme, size) as walk:
            walk.sign_in()
            walk.go("task", id=ids)
            expect(walk.page.locator(".report").first).to_be_visible()
            assert walk.width() <= size[0], f"{walk.width()} px wide"
            assert not walk.violations()
            walk.picture(f"{ids}-{scheme}-{size[0]}")
