"""One sequence through a causal LM, with whatever cache the model keeps.

The calls are those of transformers' own `generate`: the model prepares its inputs and hands its cache on, so that any
architecture works: growing keys and values, sliding windows, recurrent states, or no cache at all.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.utils import GenerationMixin

from .learned import Learned
from .memory import device_of, live_bytes, tensors_in

LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
INITIAL_CAPACITY = 64
TRIAL_TOKENS = 16
AGREED, HALF_AGREED = 1e-3, 0.25
"""How far logits may be apart and still be the same, as a share of their range; in half precision routers waver."""


class SequenceState:
    """The tokens of a sequence on a device, and the model's cache, which covers the first `done` of them."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._ids = torch.zeros(1, INITIAL_CAPACITY, dtype=torch.long, device=device)
        self.length = 0
        self.done = 0
        self.model_kwargs: dict[str, Any] = {}

    def append(self, tokens: Sequence[int]) -> None:
        """Add tokens that the cache does not cover yet."""
        needed = self.length + len(tokens)
        if needed > self._ids.shape[1]:
            grown = self._ids.new_zeros(1, max(needed, 2 * self._ids.shape[1]))
            grown[:, : self.length] = self._ids[:, : self.length]
            self._ids = grown
        if len(tokens) == 1:
            self._ids[0, self.length] = tokens[0]
        else:
            self._ids[0, self.length : needed] = torch.tensor(tokens, device=self._ids.device)
        self.length = needed

    def ids(self, count: int) -> Tensor:
        """The first `count` tokens, shape [1, count]."""
        return self._ids[:, :count]

    def tokens(self) -> list[int]:
        """All tokens."""
        return [int(token) for token in self._ids[0, : self.length].tolist()]

    def cache_bytes(self) -> int:
        """Bytes that the cache keeps alive."""
        return live_bytes(tensors_in(self.model_kwargs))

    def forget(self, length: int) -> None:
        """Keep `length` tokens and no cache; it is computed again when needed."""
        self.length, self.done, self.model_kwargs = length, 0, {}


class Decoder:
    """Runs sequences through one model, one at a time."""

    def __init__(self, module: Any, context: int, prefill_tokens: int, learned: Learned = ()) -> None:
        """`learned`: what stands before every sequence, of which each has a copy in its cache."""
        self._module, self._device = module, device_of(module)
        self._learned, self.before = learned, learned[0][0].shape[2] if learned else 0
        self._context = context
        self._prefill_tokens = prefill_tokens
        accepted = inspect.signature(module.forward).parameters
        counting = type(module)._prepare_position_ids_for_generation
        counted = counting is GenerationMixin._prepare_position_ids_for_generation
        places = torch.arange(self.before + context, device=self._device)[None]
        self._positions = places if counted and "position_ids" in accepted else None
        self._fixed = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._settings = copy.deepcopy(module.generation_config)
        self._settings.use_cache, self._settings.cache_implementation = True, None
        layers = self._fresh().get("past_key_values")
        plain = not module._is_stateful and all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in getattr(layers, "layers", (None,))
        )
        self._extends = plain
        """Whether several tokens may follow a cache at once. Recurrent layers start such a run from an empty state."""
        self._splits = plain and not rope_types(module.config) & set(LENGTH_DEPENDENT_ROPE)
        """Whether a prompt may go in parts. Frequencies that depend on the length want to see all of it."""
        self._agrees: bool | None = None

    def new_state(self) -> SequenceState:
        """An empty sequence."""
        return SequenceState(self._device)

    def reach(self, state: SequenceState) -> int:
        """How many tokens are covered after the next `run` of bounded length."""
        bounded = min(state.length, state.done + self._prefill_tokens)
        if state.done == 0:
            return bounded if bounded == state.length or (self._splits and self._parts_agree()) else state.length
        return bounded if bounded == state.done + 1 or (self._extends and self._parts_agree()) else state.done + 1

    def run(self, state: SequenceState, reach: int) -> Tensor:
        """Let the cache cover `reach` tokens; answers the logits [V] after the last. A failure empties the cache."""
        kwargs, done = state.model_kwargs or self._fresh(), state.done
        state.model_kwargs, state.done = {}, 0
        if self._positions is not None:
            kwargs = {**kwargs, "position_ids": self._positions[:, : self.before + reach]}
        inputs = self._module.prepare_inputs_for_generation(
            state.ids(reach), next_sequence_length=reach - done if done else None, is_first_iteration=not done, **kwargs
        )
        answer = self._module(**inputs, return_dict=True)
        kwargs.pop("position_ids", None)
        state.model_kwargs = self._module._update_model_kwargs_for_generation(answer, kwargs)
        state.done = reach
        return answer.logits[0, -1]  # type: ignore[no-any-return]

    def rewind(self, state: SequenceState, length: int) -> None:
        """Cut a sequence to `length` tokens; the cache is cropped, or dropped where the model cannot undo tokens."""
        surplus = state.done - length
        if surplus > 0:
            cache: Any = state.model_kwargs.get("past_key_values")
            if length > 0 and self._extends and not any(_window_is_full(layer) for layer in cache.layers):
                cache.crop(-surplus)
                state.done = length
            else:
                state.forget(length)
        state.length = length

    def fork(self, state: SequenceState) -> SequenceState:
        """An independent copy."""
        return copy.deepcopy(state)

    def _parts_agree(self) -> bool:
        """Whether tokens in two parts lead to where they lead at once; tried when it is first asked for.

        Some models put tokens of their own before what they are given, or group it.
        """
        if self._agrees is None:
            size = self._module.get_input_embeddings().num_embeddings
            count = min(TRIAL_TOKENS, self._context)
            ids = torch.randint(size, (count,), generator=torch.Generator().manual_seed(0)).tolist()
            with torch.inference_mode():
                whole, parts = self._after(ids, count), self._after(ids, count // 2, count)
            agreed = AGREED if whole.dtype == torch.float32 else HALF_AGREED
            self._agrees = bool((whole - parts).abs().max() <= agreed * (whole.max() - whole.min()))
        return self._agrees

    def _after(self, ids: Sequence[int], *cuts: int) -> Tensor:
        """The logits after a sequence that goes through the model up to each of the cuts."""
        state, logits = self.new_state(), torch.empty(0)
        state.append(ids)
        for cut in cuts:
            logits = self.run(state, cut)
        return logits

    def _fresh(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = {"attention_mask": None, "use_cache": True, **self._fixed}
        mode = GenerationMode.GREEDY_SEARCH
        self._module._prepare_cache_for_generation(self._settings, kwargs, mode, 1, self.before + self._context)
        for layer, (keys, values) in enumerate(self._learned):
            kwargs["past_key_values"].update(keys, values, layer)
        return kwargs


def _window_is_full(layer: Any) -> bool:
    """A sliding layer that has dropped tokens cannot go back to them."""
    return isinstance(layer, DynamicSlidingWindowLayer) and layer.get_seq_length() >= layer.sliding_window


def rope_types(config: Any) -> set[str]:
    """The kinds of rotary embedding that a configuration names, for all its layers."""
    found: set[str] = set()
    waiting = [getattr(config.get_text_config(decoder=True), "rope_parameters", None)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            kind = value.get("rope_type")
            found |= {kind} if isinstance(kind, str) else set()
            waiting.extend(value.values())
    return found
