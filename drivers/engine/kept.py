"""What conversations had computed, kept in host memory while their model sleeps.

A page that several conversations hold is kept once. Those used last come first, as far as there is room; the others
keep their tokens, which are computed again when they go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .blocks import BlockManager, pages_for
from .memory import live_bytes
from .pages import PagePool
from .steps import Row

if TYPE_CHECKING:
    from .models import Resident
    from .runner import Conversation


@dataclass(eq=False)
class Kept:
    """Of one conversation: `parts` hold what was computed of its first `computed` tokens, on the rung `rung`.

    `salt` is that of its row; `state` is what a runner has made of the parts, where they are not pages.
    """

    rung: str
    computed: int
    parts: Sequence[Tensor]
    salt: bytes = b""
    state: Any = None


def copied(rung: str, row: Row, pool: PagePool, pages: dict[int, Tensor], room: int) -> Kept | None:
    """Copies of a row's pages in host memory; `pages` are those that are there already, by number. None where the
    others take more than `room` bytes, or nothing was computed."""
    held = row.pages[: pages_for(row.computed)]
    missing = [page for page in held if page not in pages]
    if not held or len(missing) * pool.page_bytes > room:
        return None
    pages.update((page, pool.read(page)) for page in missing)
    return Kept(rung, row.computed, [pages[page] for page in held], row.salt)


def filled(row: Row, kept: Kept, blocks: BlockManager, pool: PagePool) -> bool:
    """Give a row without pages those that were copied; whether there are enough for it."""
    known = blocks.resume(row, kept.computed)
    if known is None:
        return False
    for page, content in zip(row.pages[known:], kept.parts[known:], strict=True):
        pool.write(page, content)
    blocks.publish(row)
    return True


def put_away(conversations: Iterable[Conversation], room: int) -> dict[str, Kept]:
    """What is kept of conversations of one model in `room` bytes of host memory, by their ids."""
    kept: dict[str, Kept] = {}
    pages: dict[int, Tensor] = {}
    for conversation in sorted(conversations, key=lambda each: -each.used):
        if conversation.keeper is not None:
            found = conversation.keeper.put_away(conversation, pages, room - bytes_of(kept))
            if found is not None:
                kept[conversation.id] = found
    return kept


def bytes_of(kept: Mapping[str, Kept]) -> int:
    """What they take of host memory."""
    return live_bytes(part for each in kept.values() for part in each.parts)


def take_back(conversation: Conversation, kept: Kept, resident: Resident, adapter: str) -> None:
    """Let a conversation go on from what was kept, with this version of its adapter, if there is room for it."""
    runner = next((each for each in resident.runners if each.rung == kept.rung), None)
    if runner is not None and runner.take_back(conversation, kept, adapter):
        conversation.keeper, conversation.adapter = runner, adapter
