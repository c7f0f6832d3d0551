"""The words of a recipe: methods, objectives, and what else is one of a few."""

from __future__ import annotations

from collections.abc import Mapping

METHODS: Mapping[str, float] = {
    "lora": 2e-4, "rslora": 2e-4, "dora": 2e-4, "adalora": 5e-4, "qlora": 2e-4, "ia3": 3e-3, "prompt": 3e-2,
    "prefix": 1e-3, "p-tuning": 1e-3, "bottleneck": 1e-3, "bitfit": 1e-3, "last-layers": 5e-5, "full": 2e-5,
}  # fmt: skip
"""What can move, each with the learning rate that is taken where the recipe names none."""

WHOLE = ("full", "last-layers", "bitfit")
"""Methods that move weights of the model itself; what comes of them is a model, not an adapter."""

BOTTLENECK = "bottleneck"
"""Small layers behind those of the model (arXiv:1902.00751)."""

LOW_RANK = ("lora", "rslora", "dora", "qlora")
"""Methods with two matrices of low rank whose ranks stay."""

PROMPTS = ("prompt", "prefix", "p-tuning")
"""Methods that learn tokens before those of the text (arXiv:2104.08691, 2101.00190, 2103.10385), in the context."""

SCHEDULES = ("constant", "linear", "cosine", "polynomial", "inverse_sqrt")
"""How the learning rate goes after its warm-up."""

OBJECTIVES: Mapping[str, tuple[str, ...]] = {
    "causal-lm": ("messages", "completion", "text"),
    "masked-lm": ("text",),
    "seq2seq": ("completion",),
    "classification": ("label",),
    "multi-label": ("labels",),
    "regression": ("score",),
    "token-classification": ("tags",),
    "question-answering": ("answer",),
    "embedding": ("triple", "pair"),
    "preference": ("preference",),
    "multiple-choice": ("choice",),
}
"""What is learned, each with the schemas of rows (`data/schema.py`) that teach it, the most telling first."""

SEVERAL = "several"
"""What a job of several tasks is judged as: it has a loss, and each task figures of its own."""

LONG = ("", "refuse", "cut", "drop", "split")
"""What becomes of a text that is too long. Empty: a text file is split, every other row refused."""

WEIGHTS = ("balanced", "effective")
"""How rare classes may count more."""

SCORED = ("causal-lm", "masked-lm", "seq2seq", "classification", "token-classification")
"""Objectives whose items have a score for each class."""

WRITTEN = ("causal-lm", "seq2seq")
"""Objectives that learn to write answers."""

CLASSES = ("classification", "token-classification")
"""Objectives whose items have one class each."""

ACTIVATIONS = ("gelu", "relu", "silu", "tanh")
"""What is between the two layers of a bottleneck."""

PRECISIONS = ("", "bf16")
"""What products are made in, beside that of the model itself."""

CONTRASTS = ("infonce", "triplet")
"""How texts that belong together are told from others: among all of a batch, or from one that is given."""

RESULTS = ("", "adapter", "model")
"""What is stored: what moves, beside its base, or the model with it. Empty: what is served (`serving.py`)."""

TRAINED = ("answers", "all")
"""Which tokens are learned from: those of answers, or those of prompts as well."""
