"""Inputs to vectors: the states of a model's last layer, pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument

from ...contract import EmbedSettings, Request
from ...ops.table import OpTable
from .base import BATCH_TOKENS, Job, Line, Outcome
from .options import Options
from .text import Encoded, TextFront

POOLINGS = ("mean", "cls", "last")


class Embeddings:
    """A vector for each text part, or for a text, token ids or a chat.

    Special tokens take part in the mean, as in sentence-transformers; padding does not.
    """

    name: ClassVar[str] = "feature-extraction"
    options: ClassVar[Mapping[str, str]] = {
        "pooling": "how the states of the tokens become one: mean (default), cls or last",
        "normalize": "false to keep the length of the vectors; by default it is made 1",
        "max_tokens": "cut longer inputs to so many tokens, and say which; by default they are refused",
    }
    batch_tokens = BATCH_TOKENS

    def __init__(self, front: TextFront, ops: OpTable) -> None:
        self._front = front
        self._pool = ops.choose("pool_states", {"device": "cpu", "dtype": "float32"}).implementation.call

    def prepare(self, request: Request) -> Job:
        settings = settings_of(request, self.name, self.options)
        made = self._encoded(request, settings.max_tokens)

        def answer(outputs: Sequence[tuple[Tensor, Tensor]]) -> Outcome:
            rows = torch.cat([self._pool(states, mask, settings.pooling) for states, mask in outputs])
            if settings.normalize:
                rows = torch.nn.functional.normalize(rows, dim=-1)
            return Outcome(embeddings=rows.tolist(), truncated=tuple(each.truncated for each in made))

        return Job([each.line for each in made], sum(len(each.ids) for each in made), answer)

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[tuple[Tensor, Tensor]]:
        """The states [1, T, D] and the mask [1, T] of each line."""
        batch = self._front.collate(lines)
        states = self._front.forward(module.base_model, batch).last_hidden_state
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).to(states.device)
        return [(states[i : i + 1, : line.length], mask[i : i + 1, : line.length]) for i, line in enumerate(lines)]

    def _encoded(self, request: Request, most: int | None) -> list[Encoded]:
        prompt = request.prompt
        if prompt.ids is not None or prompt.messages is not None:
            return [self._front.one(prompt, most)[1]]
        texts = self._front.texts(prompt, "a text, token ids, a chat, or texts as parts")
        return [self._front.encode(text, most=most) for text in texts]


def settings_of(request: Request, task: str, known: Mapping[str, str]) -> EmbedSettings:
    """What `embed` asked for, or the options of `infer`. Raises BadArgument."""
    given = request.options if request.embed is None else {**vars(request.embed), **request.options}
    options = Options(task, known, given)
    most = options.whole("max_tokens", 0, 1) if "max_tokens" in options else None
    settings = EmbedSettings(options.choice("pooling", "mean", POOLINGS), options.flag("normalize", default=True), most)
    if request.prompt.tensors is not None:
        raise BadArgument(f"{task} takes no tensors", name="input", got="tensors", want="text, token ids or a chat")
    return settings
