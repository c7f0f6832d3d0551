"""What a type does, by a look at its source, its configuration and one run; a check on the engine's own detection."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "tests_look"
STATE_KINDS = {
    "linear_attention", "conv", "hybrid", "hybrid_sliding", "compressed_sparse_attention",
    "heavily_compressed_attention",
}  # fmt: skip
"""Kinds of layers that keep something else than keys and values of each token."""

HARMLESS = {
    "position_ids", "use_cache", "output_router_logits", "output_attentions", "output_hidden_states", "logits_to_keep",
    "cache_position", "is_causal",
}  # fmt: skip
"""Arguments of the attention function that change nothing of what it computes."""


@dataclass
class Facts:
    """`interface`: its module asks the library for the attention function. `attends`: some layer of a text does.

    `arguments`: what the function is given that changes its meaning. `recurrent`: some layer keeps a state.
    `repeats`: a module attends several times in one step. `experts`: the library's interface of experts.
    """

    interface: bool
    backend: bool
    experts: bool
    recurrent: bool
    shares_keys: bool
    rotary_sections: bool
    attends: bool = False
    repeats: bool = False
    arguments: set[str] = field(default_factory=set)

    def words(self) -> str:
        """For the table of what is covered."""
        said = {
            "a state": self.recurrent, "shared keys": self.shares_keys, "experts": self.experts,
            "rotary sections": self.rotary_sections, "repeated layers": self.repeats,
            "attention of its own": not self.interface and not self.recurrent,
        }  # fmt: skip
        return ", ".join([*(word for word, holds in said.items() if holds), *sorted(self.arguments)])


def look(module: Any) -> Facts:
    """Facts of a causal LM; the module is left as it was."""
    source = "".join(inspect.getsource(sys.modules[name]) for name in sorted(_modules(module)))
    text = module.config.get_text_config(decoder=True)
    kinds = {kind for name in ("layer_types", "layers_block_type") for kind in getattr(text, name, None) or ()}
    facts = Facts(
        interface="ALL_ATTENTION_FUNCTIONS.get_interface(" in source,
        backend=bool(module._supports_attention_backend),
        experts="use_experts_implementation" in source,
        recurrent=bool(module._is_stateful or kinds & STATE_KINDS),
        shares_keys=bool(getattr(text, "num_kv_shared_layers", 0)),
        rotary_sections="mrope_section" in source,
    )
    if facts.interface:
        _run(module, facts)
    return facts


def _modules(module: Any) -> set[str]:
    """The library's files that the parts of a model come from."""
    return {name for part in module.modules() if (name := type(part).__module__).startswith("transformers.models.")}


def _run(module: Any, facts: Facts) -> None:
    """One run of a few tokens whose attention notes what it is given."""
    calls: Counter[Any] = Counter()

    def note(layer: Any, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any = None, **given: Any) -> Any:
        calls[layer] += 1
        meaning = {name for name, value in given.items() if value is not None} - HARMLESS - {"scaling", "dropout"}
        facts.arguments |= meaning | ({"attention_mask"} if attention_mask is not None else set())
        return q.new_zeros(*q.shape[:1], q.shape[2], q.shape[1], v.shape[-1]), None

    AttentionInterface.register(NAME, note)
    before = module.config._attn_implementation
    module.set_attn_implementation(NAME)
    try:
        with torch.inference_mode():
            module(input_ids=torch.arange(4)[None] + 7, use_cache=False)
    except (TypeError, AttributeError, RuntimeError, IndexError):
        facts.arguments.add("attention_mask")  # it computes with a mask that is not made for other functions
    finally:
        module.set_attn_implementation(before)
    facts.attends = bool(calls)
    facts.repeats = any(count > 1 for count in calls.values())
