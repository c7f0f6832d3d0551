"""The page of a report stands by itself, and nothing of the data is taken for markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import tuning_reports
from llmos.userland.reports.page import page


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_well_formed_and_fetches_nothing() -> None:
    run = tuning_reports.run()
    made = page(run, run["facts"]["report"], {"ROC": "roc.png"})
    tags = Tags()
    tags.feed(made)
    assert not tags.open and "b" not in tags.seen and "script" not in tags.seen
    assert '<img src="roc.png" alt="ROC">' in made and "&lt;b&gt;film&lt;/b&gt; &amp; more" in made
    assert not re.search(r"https?:|//|url\(|@import", made)
    assert '<tr class="better"><td>accuracy</td>' in made and "t-1-7: lora on tiny" in made
