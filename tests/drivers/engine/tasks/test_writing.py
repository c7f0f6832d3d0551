"""What tasks that write are made of: what a draft says by itself."""

from __future__ import annotations

from llmos.drivers.contract import Prompt, Request
from llmos.drivers.engine.tasks.writing import Draft, Ending


def test_a_draft_continues_nothing_and_changes_nothing_unless_it_says_so() -> None:
    draft = Draft(Request("r", "m", Prompt(text="x")), None, 3, 3, 10)
    assert (draft.prompt, draft.group, draft.settings) == ((), None, {})
    assert Ending([1], "x", "stop").result is None
