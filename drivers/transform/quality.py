"""How well a model tells what comes next in a text, and the text that this is tried on.

Perplexity is the exponential of the mean negative logarithm of the probability of each token, given those before it in
its piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llmos.syscalls.errors import BadArgument

from ..contract import ModelSource, ProgressSink

LENGTH = 512
"""Tokens of a piece, at most what the model's context takes."""
PIECES = 64
"""Pieces for calibration at most; as many again are kept for measuring, at most a third of all."""
OWN_PIECES, OWN_LENGTH = 16, 256
SEED = 1
LEAST = 16
"""Tokens of a piece at least."""
SCORES = 128
"""Positions whose scores are worked on at a time."""


@dataclass(frozen=True)
class Text:
    """Token ids of pieces [B, T]: those to learn from, and others to measure on. `origin` says where they are from."""

    origin: str
    learn: Tensor
    measure: Tensor


def given_text(tokenizer: Any, texts: Sequence[ModelSource], context: int) -> Text:
    """Pieces of text files; every third is measured on. With less than two pieces, both are the same.

    Raises:
        BadArgument: a file is no text, or there is too little of it.
    """
    ids: list[int] = []
    for text in texts:
        for file in text.files:
            try:
                words = file.path.read_bytes().decode()
            except UnicodeDecodeError as error:
                said = f"{file.name} is no text in UTF-8: {error.reason} at byte {error.start}"
                raise BadArgument(said, name="sources", got=file.name, want="text in UTF-8") from error
            ids += tokenizer(words, add_special_tokens=False, verbose=False).input_ids
    length = min(LENGTH, context, max(len(ids) // 2, 1))
    if length < LEAST:
        said = f"the text has {len(ids)} tokens, which is too little: {2 * LEAST} are needed"
        raise BadArgument(said, name="sources", got=str(len(ids)), want=f"at least {2 * LEAST} tokens")
    pieces = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)
    measure = torch.arange(len(pieces)) % 3 == 1
    return Text("the given text", _spread(pieces[~measure], PIECES), _spread(pieces[measure], PIECES))


def own_text(module: Any, context: int, progress: ProgressSink) -> Text:
    """What the model itself writes, from a fixed seed: for want of better, it is near what the model was trained on."""
    length = min(OWN_LENGTH, context)
    generator = torch.Generator().manual_seed(SEED)
    vocabulary = module.get_input_embeddings().num_embeddings
    ids = torch.randint(vocabulary, (2 * OWN_PIECES, 1), generator=generator)
    cache: Any = None
    with torch.inference_mode():
        while ids.shape[1] < length:
            answer = module(input_ids=ids if cache is None else ids[:, -1:], past_key_values=cache, use_cache=True)
            cache = answer.past_key_values
            scores = answer.logits[:, -1].float().softmax(dim=-1)
            ids = torch.cat((ids, torch.multinomial(scores, 1, generator=generator)), dim=1)
            progress(ids.shape[1], length, "tokens", "write text")
    return Text("text that the model wrote", ids[:OWN_PIECES], ids[OWN_PIECES:])


def perplexity(module: Any, pieces: Tensor, progress: ProgressSink, stage: str) -> float:
    """Of pieces [B, T] under a model that writes text."""
    total = 0.0
    with torch.inference_mode():
        for done, piece in enumerate(pieces):
            progress(done, len(pieces), "pieces", stage)
            scores = module(input_ids=piece[None], use_cache=False).logits[0, :-1]
            for start in range(0, len(scores), SCORES):
                part = scores[start : start + SCORES].float()
                total += float(F.cross_entropy(part, piece[1:][start : start + SCORES], reduction="sum"))
    return math.exp(total / (pieces.shape[0] * (pieces.shape[1] - 1)))


def _spread(pieces: Tensor, count: int) -> Tensor:
    """At most so many, evenly from all."""
    if len(pieces) <= count:
        return pieces
    return pieces[torch.arange(count) * len(pieces) // count]
