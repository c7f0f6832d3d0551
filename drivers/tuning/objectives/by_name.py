"""The objective that a recipe names, for a base."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llmos.syscalls.errors import BadModel

from ..data.base import Base
from ..recipe import Recipe
from .answers import Answers
from .causal import Causal
from .choices import Choices
from .classes import Masked, Rows, Tokens
from .embedding import Embedding, Triplet
from .preference import Preference
from .protocol import Objective
from .seq2seq import Seq2seq
from .values import MultiLabel, Regression


def objective_of(recipe: Recipe, base: Base, class_weights: Sequence[float] | None = None) -> Objective:
    """The objective; `class_weights` say how much each class counts, where it is one of single classes.

    Raises BadModel when the base lacks what the objective needs.
    """
    smoothing = recipe.label_smoothing
    weights = None if class_weights is None else torch.tensor(class_weights)
    match recipe.objective:
        case "masked-lm":
            return _masked(recipe, base)
        case "seq2seq":
            return Seq2seq(smoothing=smoothing)
        case "classification":
            return Rows(smoothing=smoothing, class_weights=weights)
        case "multi-label":
            return MultiLabel()
        case "regression":
            return Regression()
        case "token-classification":
            return Tokens(smoothing=smoothing, class_weights=weights)
        case "question-answering":
            return Answers()
        case "multiple-choice":
            return Choices()
        case "embedding" if recipe.contrast == "triplet":
            return Triplet(margin=recipe.margin)
        case "embedding":
            return Embedding(temperature=recipe.temperature)
        case "preference":
            return Preference(beta=recipe.beta)
    return Causal(smoothing=smoothing)


def _masked(recipe: Recipe, base: Base) -> Masked:
    mask = base.tokenizer.mask_token_id
    if mask is None:
        why = "its tokenizer has no mask token"
        raise BadModel(f"{base.name} cannot learn masked-lm: {why}", file="tokenizer_config.json", why=why)
    share, vocabulary = recipe.masked_share, len(base.tokenizer)
    return Masked(smoothing=recipe.label_smoothing, mask=mask, vocabulary=vocabulary, share=share)
