"""A conversation goes from one runner to another with its tokens alone."""

from __future__ import annotations

from typing import Any

from llmos.drivers.engine.runner import Conversation


class Keeper:
    """Keeps something for conversations and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def conversation_bytes(self, conversation: Conversation) -> int:
        return 7

    def forget(self, conversation: Conversation) -> int:
        self.asked.append(("forget", conversation.id))
        conversation.held = None
        return 7

    def fork(self, parent: Conversation, child: Conversation) -> None:
        self.asked.append(("fork", parent.id, child.id))
        child.held = parent.held


def opened(keeper: Any, adapter: str = "") -> Conversation:
    conversation = Conversation("c", "m", 100, tokens=[1, 2])
    conversation.give_to(keeper, adapter)
    conversation.held = "pages"
    return conversation


def test_the_same_runner_goes_on_with_what_it_holds() -> None:
    keeper: Any = Keeper()
    conversation = opened(keeper)
    conversation.give_to(keeper, "")
    assert (conversation.held, conversation.bytes(), keeper.asked) == ("pages", 7, [])


def test_another_runner_or_adapter_begins_from_the_tokens() -> None:
    first: Any = Keeper()
    second: Any = Keeper()
    conversation = opened(first)
    conversation.give_to(first, "adapter1")
    assert conversation.held is None and first.asked == [("forget", "c")]
    conversation.give_to(second, "adapter1")
    assert first.asked == [("forget", "c")] * 2 and second.asked == []
    assert (conversation.keeper, conversation.adapter, conversation.tokens) == (second, "adapter1", [1, 2])


def test_nothing_is_held_before_the_first_request_and_after_forgetting() -> None:
    fresh = Conversation("c", "m", 100)
    assert (fresh.bytes(), fresh.forget()) == (0, 0)
    keeper: Any = Keeper()
    conversation = opened(keeper)
    assert (conversation.forget(), conversation.forget(), conversation.bytes()) == (7, 0, 0)
    assert conversation.tokens == [1, 2]


def test_a_copy_has_tokens_of_its_own() -> None:
    keeper: Any = Keeper()
    parent, child = opened(keeper, "a"), Conversation("d", "m", 100)
    child.fork(parent)
    child.tokens.append(3)
    assert (parent.tokens, child.tokens, child.held, child.adapter) == ([1, 2], [1, 2, 3], "pages", "a")
    assert keeper.asked == [("fork", "c", "d")]
