"""Pages for models that attend in a way of their own: they ask a cache for all keys and values, and get them gathered.

Such a model does what it always does: it builds its masks and positions from the cache that it is handed, which is a
`Cache` object of the library over pages. Rows that decode go together as a batch padded on the left, as `generate` has
it; each other row goes alone. That costs copies, and the weights are read once for each row that goes alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ..ops.replay import Variant
from .pages import LayerShape, PagePool
from .reach import Refused
from .steps import PAGE_TOKENS, RowStep

CACHE_NAMES = ("past_key_values", "layer_past", "cache_params")
PROBE_TOKENS = 4

Call = tuple[str, int]
"""What is kept (keys, values, index) and the layer that keeps it."""


class TakingCache(Cache):
    """What a model hands to its cache goes through `take`, tensor by tensor; the n-th call of a step is `calls[n]`."""

    def __init__(self, past: int, new: int) -> None:
        super().__init__(layers=[])
        self._past, self._new = past, new

    def take(self, call: Call, states: Tensor) -> Tensor:
        """[B, H, new, D] to all that the rows have, [B, H, past + new, D]; each kind of cache has its own."""
        raise NotImplementedError(f"{type(self).__name__} takes nothing")

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        return self.take(("keys", layer_idx), key_states), self.take(("values", layer_idx), value_states)

    def update_indexer(self, indexer_key_states: Tensor, layer_idx: int) -> Tensor:
        return self.take(("index", layer_idx), indexer_key_states[:, None])[:, 0]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._past

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._past + query_length, 0


class NotingCache(TakingCache):
    """Stands for pages while it is found out what a model keeps."""

    def __init__(self) -> None:
        super().__init__(0, PROBE_TOKENS)
        self.calls: list[Call] = []
        self.shapes: list[LayerShape] = []

    def take(self, call: Call, states: Tensor) -> Tensor:
        if states.ndim != 4 or states.shape[0] != 1 or states.shape[2] != PROBE_TOKENS:
            raise Refused(f"its cache keeps {call[0]} of shape {list(states.shape)} for {PROBE_TOKENS} tokens")
        self.calls.append(call)
        self.shapes.append(LayerShape(states.shape[1], states.shape[3], 0))
        return states


class PagesCache(TakingCache):
    """Writes what is new of some rows into pages, and gathers what they have.

    write [B, new], read [B, past + new] int64: page * PAGE_TOKENS + offset.
    """

    def __init__(self, calls: Sequence[Call], pages: Sequence[Tensor], write: Tensor, read: Tensor) -> None:
        super().__init__(read.shape[1] - write.shape[1], write.shape[1])
        self._calls, self._pages, self._taken = calls, pages, 0
        self._write, self._read = write[:, None], read[:, None]

    def take(self, call: Call, states: Tensor) -> Tensor:
        """Raises RuntimeError when a model does not call in the order that was noted."""
        if self._taken >= len(self._calls) or self._calls[self._taken] != call:
            raise RuntimeError(f"the cache was given {call} out of turn")
        pages = self._pages[self._taken]
        self._taken += 1
        heads = torch.arange(pages.shape[1], device=pages.device)[:, None]
        pages[self._write // PAGE_TOKENS, heads, self._write % PAGE_TOKENS] = states.to(pages.dtype)
        return pages[self._read // PAGE_TOKENS, heads, self._read % PAGE_TOKENS].to(states.dtype)


@dataclass(frozen=True)
class Gathering:
    """What a module keeps of its tokens, in the order of its calls, and how it is called.

    `told`: it takes position_ids; `padded`: rows of unlike length may go in one batch; `states`: some layers keep a
    state beside.
    """

    calls: Sequence[Call]
    shapes: Sequence[LayerShape]
    cache: str
    told: bool
    padded: bool = False
    states: bool = False
    modules: Sequence[Any] = ()
    meanings: Sequence[Any] = ()


def gathering_of(module: Any, layers: Sequence[Any] = ()) -> Gathering:
    """What a module keeps, by one run of a few tokens; `layers` are those of a cache that keep a state.

    Raises Refused, and what the module raises.
    """
    accepted = inspect.signature(module.forward).parameters
    cache = next((name for name in CACHE_NAMES if name in accepted), "")
    if not cache:
        raise Refused("it takes no cache")
    noting, device = NotingCache(), next(iter(module.parameters())).device
    noting.layers = list(layers)
    ids = torch.zeros(1, PROBE_TOKENS, dtype=torch.long, device=device)
    told = "position_ids" in accepted
    options = {"position_ids": torch.arange(PROBE_TOKENS, device=device)[None]} if told else {}
    with torch.inference_mode():
        module(input_ids=ids, use_cache=True, return_dict=True, **{cache: noting}, **options)
    if not noting.calls and not layers:
        raise Refused("it hands nothing to a cache")
    return Gathering(noting.calls, noting.shapes, cache, told, states=bool(layers))


class Gathered:
    """Runs the rows of a step through such a module. `before` is called with the rows of each of its runs."""

    def __init__(self, module: Any, layers: Gathering, pool: PagePool) -> None:
        self.before: Callable[[Sequence[RowStep]], Any] | None = None
        self._module, self._layers = module, layers
        self._device = next(iter(module.parameters())).device
        self._pages = [keys for keys, _values in pool.views()]
        self._keeps = "logits_to_keep" in inspect.signature(module.forward).parameters

    def release(self) -> None:
        """Nothing of the module was changed."""

    def run(self, rows: Sequence[RowStep], variant: Variant | None) -> Tensor:
        """Logits [R, V] of the wanted positions, row after row."""
        single = [at for at, step in enumerate(rows) if step.count == step.logits == 1]
        batch = single if self._layers.padded and len(single) > 1 else []
        found: dict[int, Tensor] = {}
        for group in [batch, *([at] for at in range(len(rows)) if at not in batch)]:
            if group:
                logits = self._run([rows[at] for at in group])
                found |= dict(zip(group, logits, strict=True))
        return torch.cat([found[at] for at in range(len(rows))])

    def _run(self, rows: Sequence[RowStep]) -> Tensor:
        """Logits [B, wanted, V] of rows that are alike in what is new of them."""
        return self._through(rows, ())

    def _through(self, rows: Sequence[RowStep], layers: Sequence[Any]) -> Tensor:
        """The same with layers of the cache that keep a state, or none."""
        if self.before is not None:
            self.before(rows)
        device, count, wanted = self._device, rows[0].count, rows[0].logits
        length = max(step.start + step.count for step in rows)
        slots = torch.stack([_slots(step, length) for step in rows]).to(device)
        cache = PagesCache(self._layers.calls, self._pages, slots[:, length - count :], slots)
        cache.layers = list(layers)
        options: dict[str, Any] = {self._layers.cache: cache, "use_cache": True, "return_dict": True}
        if len(rows) > 1:
            padding = torch.tensor([length - step.start - step.count for step in rows], device=device)
            options["attention_mask"] = (torch.arange(length, device=device) >= padding[:, None]).long()
        if self._layers.told:
            at = [list(range(step.start, step.start + step.count)) for step in rows]
            options["position_ids"] = torch.tensor(at, device=device)
        kept = torch.arange(count - wanted, count, device=device)
        if self._keeps:
            options["logits_to_keep"] = kept
        ids = torch.tensor([new_tokens(step) for step in rows], device=device)
        logits: Tensor = self._module(input_ids=ids, **options).logits
        return logits if self._keeps else logits[:, kept]


def new_tokens(step: RowStep) -> list[int]:
    """The tokens of a row in a step, and the guesses that follow them."""
    row, end, known = step.row, step.start + step.count, len(step.row.tokens)
    return row.tokens[step.start : end] + row.drafts[max(0, step.start - known) : max(0, end - known)]


def _slots(step: RowStep, length: int) -> Tensor:
    """Where each token of a row is, with its first one again where it is padded: what is read there is finite."""
    end = step.start + step.count
    pages = torch.tensor(step.row.pages[: (end + PAGE_TOKENS - 1) // PAGE_TOKENS])
    found = (pages[:, None] * PAGE_TOKENS + torch.arange(PAGE_TOKENS)).flatten()[:end]
    return torch.cat([found[:1].expand(length - end), found])
