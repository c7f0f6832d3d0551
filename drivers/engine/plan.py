"""How many bytes a model will take, from its configuration alone: the model on the meta device, without weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..contract import Row
from . import attention, ladder
from .gathered import Gathering
from .loader import Description, empty_module
from .memory import tensors_in, tensors_of
from .pages import page_bytes
from .place import PROCESSOR, ROWS
from .quantized.library import stored
from .states import STATES_KEPT
from .tasks.base import BATCH_TOKENS

PROBE_TOKENS = 4
STATE_NAMES = ("past_key_values", "cache_params", "state", "mems")
PLANNED_TOKENS = 2048
"""Tokens of prompt and answer that room is planned for where many models have no limit."""

PREFILL_CHUNK = 512
"""Tokens of a prompt that go through the model in one step, where nobody says."""


@dataclass(frozen=True)
class CacheShape:
    """Bytes of the state of one sequence: `fixed`, and (bytes for each token, tokens kept at most) of each layer."""

    fixed: int
    layers: tuple[tuple[int, int | None], ...]

    def bytes(self, tokens: int) -> int:
        grown = sum(each * (tokens if most is None else min(tokens, most)) for each, most in self.layers)
        return self.fixed + grown


@dataclass(frozen=True)
class Footprint:
    """Bytes of weights, of keys and values, and of what one step needs beside them.

    Keys and values are `paged` bytes for all sequences together, with the states that some keep beside their pages, or
    else `cache` for each.
    """

    weights: int
    cache: CacheShape
    workspace: int
    parameters: int
    paged: int | None = None
    pages: int = 0
    """How many pages these are."""

    @property
    def conversation(self) -> CacheShape | None:
        """What a conversation takes of its own; None when all share the pages."""
        return self.cache if self.paged is None else None

    def times(self, ranks: int) -> Footprint:
        """So many processes with a share like this each."""
        layers = tuple((ranks * each, most) for each, most in self.cache.layers)
        return replace(
            self, weights=ranks * self.weights, cache=CacheShape(ranks * self.cache.fixed, layers),
            workspace=ranks * self.workspace, paged=None if self.paged is None else ranks * self.paged,
        )  # fmt: skip

    def without_pages(self) -> Footprint:
        """The model on a rung that has no pages after all: each conversation keeps a state of its own."""
        return replace(self, paged=None, pages=0)

    def with_draft(self, draft: Footprint) -> Footprint:
        """This model and a draft model on pages of its own; they take turns, so the larger workspace serves both."""
        paged = (self.paged or 0) + (draft.paged or 0)
        workspace = max(self.workspace, draft.workspace)
        return replace(self, weights=self.weights + draft.weights, workspace=workspace, paged=paged)

    def rows(self, owner: str, context: int, weights: int = 0, kv: int = 0) -> Sequence[Row]:
        """Ledger rows; `weights` and `kv` are bytes held now."""
        predicted = self.cache.bytes(context) if self.paged is None else self.paged
        return (
            Row("weights", owner, predicted=self.weights, allocator=weights),
            Row("kv", owner, predicted=predicted, allocator=kv),
            Row("workspace", owner, predicted=self.workspace),
        )


Sizing = Callable[[int, int, int], int]
"""How many pages a model gets: see `Place.pages`."""


Divide = Callable[[Any], int]
"""Leaves of a module a share: see `Place.divide`."""


def footprint(
    about: Description, rung: str = "", sizing: Sizing = PROCESSOR.pages, divide: Divide = lambda module: 1,
    prefill: int = PREFILL_CHUNK,
) -> Footprint:  # fmt: skip
    """Plan a model for the rung it will be served on, or the one asked for; all its shares where it is divided.
    `prefill`: tokens of a prompt that go through it in one step.

    Raises what building and dividing it raises.
    """
    module = empty_module(about)
    parameters = _parameters(module)
    ranks = divide(module)
    return _share(module, about, rung, sizing, parameters, prefill).times(ranks)


def _share(
    module: Any, about: Description, rung: str, sizing: Sizing, parameters: int, prefill: int
) -> Footprint:  # fmt: skip
    unique = {id(tensor): tensor for tensor in tensors_of(module)}.values()
    weights = sum(tensor.nbytes for tensor in unique)
    cache = cache_shape(module, about) if about.causal else _other_cache(about)
    workspace = _workspace(module, about, prefill) if about.causal else _batch_bytes(module)
    paging = about.causal and rung in ("", ladder.PAGED, ladder.HYBRID)
    found = _per_page(module, about, cache.fixed) if paging else None
    if found is None and about.narrow is not None:
        raise ladder.wide_alone(about)
    if found is None:
        return Footprint(weights, cache, workspace, parameters)
    each, kept = found
    pages = sizing(about.context, each, weights + workspace + kept)
    return Footprint(weights, cache, workspace, parameters, kept + pages * each, pages)


def _parameters(module: Any) -> int:
    """How many weights there are, however they are kept."""
    kept: int = sum(layer.in_features * layer.out_features for _, layer in stored(module))
    return kept + sum(int(tensor.numel()) for tensor in {id(item): item for item in module.parameters()}.values())


def _per_page(module: Any, about: Description, state: int) -> tuple[int, int] | None:
    """Bytes of a page, and those of the states of all rows where so large a one is kept of each; None when the model
    cannot have pages.
    """
    module.set_attn_implementation(attention.NAME)
    try:
        layers = ladder.paged_layers(module, about.context)
    except attention.Refused:
        return None
    if about.narrow is not None and isinstance(layers, Gathering):
        return None
    kept = ROWS * STATES_KEPT * state if isinstance(layers, Gathering) and layers.states else 0
    return page_bytes(layers.shapes, about.pages), kept


def cache_shape(module: Any, about: Description) -> CacheShape:
    """The state that a few tokens leave behind on the meta device tells its size for any number."""
    ids = torch.zeros(1, PROBE_TOKENS, dtype=torch.long, device="meta")
    try:
        with torch.inference_mode():
            answer = module.eval()(input_ids=ids, use_cache=True)
    except (RuntimeError, NotImplementedError):
        return _from_config(about) or _from_width(module, about)
    state = next((answer[name] for name in STATE_NAMES if name in answer), None)
    fixed, layers = 0, []
    for layer in getattr(state, "layers", [state]):
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        grown = 0 if keys is None or values is None else keys.nbytes + values.nbytes
        fixed += sum(tensor.nbytes for tensor in tensors_in(layer) if tensor is not keys and tensor is not values)
        window = getattr(layer, "sliding_window", None)
        layers.append((grown // PROBE_TOKENS, window))
    return CacheShape(fixed, tuple(layers))


def _from_config(about: Description) -> CacheShape | None:
    """Full attention in every layer, for a model that cannot run on the meta device; None where layers differ."""
    text = about.config.get_text_config(decoder=True)
    try:
        heads = text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // heads
        each = 2 * width * (getattr(text, "num_key_value_heads", None) or heads) * about.dtype.itemsize
        return CacheShape(0, ((each, None),) * text.num_hidden_layers)
    except (AttributeError, RuntimeError):  # RuntimeError: the library's, for a field that each layer has its own of
        return None


def _from_width(module: Any, about: Description) -> CacheShape:
    """Keys and values as wide as the embeddings, which is the most that is usual."""
    layers = getattr(about.config.get_text_config(decoder=True), "num_hidden_layers", None) or 1
    each = 2 * int(module.get_input_embeddings().embedding_dim) * about.dtype.itemsize
    return CacheShape(0, ((each, None),) * layers)


def _other_cache(about: Description) -> CacheShape:
    """What a model of another kind keeps of an answer that it writes, up to `PLANNED_TOKENS` of it."""
    if not about.kind.writes:
        return CacheShape(0, ())
    shape = _from_config(about) or CacheShape(0, ())
    return CacheShape(0, tuple((each, PLANNED_TOKENS) for each, _ in shape.layers))


def _batch_bytes(module: Any) -> int:
    """Activations of one batch of a model that runs in one pass, by its widest layer: about a dozen of them at once."""
    sizes = [min(tensor.shape[:2]) * tensor.itemsize for tensor in module.parameters() if tensor.ndim > 1]
    sizes += [min(layer.in_features, layer.out_features) * layer.dtype.itemsize for _, layer in stored(module)]
    return 12 * BATCH_TOKENS * max(sizes, default=0)


def _workspace(module: Any, about: Description, prefill: int) -> int:
    """Activations of one prefill step: residual, projections, a mask over the context, logits of one row in float32."""
    text = about.config.get_text_config(decoder=True)
    tokens = min(prefill, about.context)
    hidden: int = module.get_input_embeddings().embedding_dim
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    inner = max(inner) if isinstance(inner, list) else inner
    vocabulary: int = module.get_input_embeddings().num_embeddings
    activations = tokens * (8 * hidden + 3 * inner) * about.dtype.itemsize
    total: int = activations + tokens * about.context + 3 * 4 * vocabulary
    return total
