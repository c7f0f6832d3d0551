"""Of texts: how likely they are to a model, and how much of what it wrote is what was wanted."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SIGNS = str.maketrans("", "", string.punctuation)
_KEYS = ("rouge1", "rouge2", "rougeL")
"""Those that need no splitter of sentences, whose data would have to be fetched."""


def perplexity(losses: Tensor) -> float:
    """Among how many tokens the model in the mean hesitates. `losses`: float32 [tokens], nats; at least one."""
    return math.exp(min(700.0, float(losses.double().mean())))


def written(said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """BLEU of all texts together (up to four words, split at spaces) and the mean F1 of ROUGE of each.

    Words of ROUGE are runs of a-z and 0-9 in small letters, as in its first implementation (Lin 2004).

    Raises:
        ValueError: there are no texts, or different numbers of them.
    """
    from torchmetrics.functional.text import bleu_score, rouge_score

    if not said or len(said) != len(wanted):
        raise ValueError(f"{len(said)} texts are said, {len(wanted)} wanted")
    rouge = rouge_score(list(said), [[text] for text in wanted], rouge_keys=_KEYS)
    return {"bleu": float(bleu_score(list(said), [[text] for text in wanted]))} | {
        key.lower(): float(rouge[f"{key}_fmeasure"]) for key in _KEYS
    }


def answers(said: Sequence[str], wanted: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Exact match and F1 of words for each answer, as SQuAD reckons (Rajpurkar et al. 2016).

    Small and large letters, signs and articles make no difference; of several right answers the nearest counts. An
    answer without words is right where one of those that are right has none.

    Args:
        said: one for each question.
        wanted: the right ones, at least one for each question.

    Returns:
        float32 [questions] each, 0 to 1.
    """
    pairs = [(_words(one), [_words(text) for text in right]) for one, right in zip(said, wanted, strict=True)]
    exact = [float(any(one == other for other in right)) for one, right in pairs]
    near = [max(overlap(one, other) for other in right) for one, right in pairs]
    return torch.tensor(exact), torch.tensor(near)


def overlap(said: Sequence[object], wanted: Sequence[object]) -> float:
    """F1 of two bags."""
    if not said or not wanted:
        return float(list(said) == list(wanted))
    return 2 * (Counter(said) & Counter(wanted)).total() / (len(said) + len(wanted))


def ends(said: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Exact match and F1 of tokens where answers are places: int64 [questions, 2], first and last token, both in.

    Returns:
        float32 [questions] each.
    """
    exact = (said == wanted).all(dim=1).float()
    both = torch.minimum(said[:, 1], wanted[:, 1]) - torch.maximum(said[:, 0], wanted[:, 0]) + 1
    sizes = (said[:, 1] - said[:, 0] + 1).clamp(min=0) + wanted[:, 1] - wanted[:, 0] + 1
    return exact, 2 * both.clamp(min=0) / sizes


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_SIGNS)).split()
