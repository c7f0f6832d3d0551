"""What holds whichever policy is asked."""

from __future__ import annotations

import pytest

from llmos.kernel.arbiter.policies import NAMES, LeastRecentlyUsed, policy_named
from llmos.kernel.arbiter.residence import Candidate, choose


def names(policy: str, view: list[Candidate], needed: int, now: int = 100) -> list[str]:
    return [choice.candidate.model for choice in choose(policy_named(policy), view, needed, now)]


@pytest.mark.parametrize("policy", NAMES)
def test_nothing_pinned_or_busy_or_empty_leaves_and_nothing_in_vain(policy: str) -> None:
    view = [
        Candidate("pinned", 10, pinned=True), Candidate("busy", 10, busy=True), Candidate("empty", 0),
        Candidate("idle", 10), Candidate("other", 10),
    ]  # fmt: skip
    assert names(policy, view, 10) == ["idle"]
    assert names(policy, view, 20) == ["idle", "other"]
    assert names(policy, view, 21) == [] and names(policy, view, 0) == [] and names(policy, [], 1) == []


@pytest.mark.parametrize("policy", NAMES)
def test_a_group_leaves_together_and_is_held_by_any_of_its_members(policy: str) -> None:
    draft = Candidate("draft", 2, used=1, group="pair", rate=0.1, reload_s=1, keep_alive_s=1)
    large = Candidate("large", 8, used=50, group="pair", rate=0.1, reload_s=1, keep_alive_s=2)
    alone = Candidate("alone", 10, used=40, rate=9.0, reload_s=9, keep_alive_s=3)
    assert set(names(policy, [draft, large], 1)) == {"draft", "large"}
    for member in (Candidate("m", 5, group="pair", busy=True), Candidate("m", 5, group="pair", pinned=True)):
        assert names(policy, [draft, large, member, alone], 1) == ["alone"]


def test_a_group_is_as_young_as_its_youngest_member_and_lasts_as_long() -> None:
    view = [
        Candidate("a", 5, used=1, group="g", keep_alive_s=1), Candidate("b", 5, used=9, group="g"),
        Candidate("c", 5, used=5, keep_alive_s=7),
    ]  # fmt: skip
    assert names("lru", view, 5) == ["c"] and names("keep-alive", view, 5) == ["c"]


def test_a_choice_tells_its_rule_and_numbers() -> None:
    (choice,) = choose(LeastRecentlyUsed(), [Candidate("a", 5, used=0)], 1, 3_000_000_000)
    assert (choice.rule, choice.numbers) == ("least recently used first", {"idle_s": 3.0})
