"""How many tokens a model takes, by what its configuration, tokenizer and tables of positions say."""

from __future__ import annotations

from typing import Any

from llmos.syscalls.errors import BadArgument

UNBOUNDED = 32_768
"""Tokens, for models that name no limit of their own (recurrent ones, ALiBi)."""

NAMES = ("max_position_embeddings", "max_seq_len", "n_ctx", "max_target_positions")
"""Where configurations say how many tokens a model takes."""


def context_of(text: Any, asked: int | None) -> int:
    """Tokens that fit a model with this configuration of its text, or as many of them as are asked for.

    Raises BadArgument where fewer than one are asked for, or more than fit.
    """
    sizes = (getattr(text, name, None) for name in NAMES)
    own = next((int(size) for size in sizes if size and size > 0), None)
    if asked is None:
        return own or UNBOUNDED
    if asked < 1 or (own is not None and asked > own):
        want = f"1 to {own}" if own else "at least 1"
        said = f"max_context is {asked}, this model takes {want} tokens"
        raise BadArgument(said, name="max_context", got=str(asked), want=want)
    return asked


def usable_context(module: Any, tokenizer: Any, context: int) -> int:
    """What is left of a context in a loaded model that is not causal.

    Encoders of the RoBERTa family count positions from behind the padding index, and their tokenizer knows.
    """
    sizes = [context, int(tokenizer.model_max_length)]
    for name, table in module.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            sizes.append(table.num_embeddings - table.padding_idx - 1)
    return min(size for size in sizes if size > 0)
