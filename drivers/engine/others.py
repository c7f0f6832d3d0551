"""The runners of models that are no causal language models: in one pass (rung F), or with `generate` (rung G)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ops.table import OpTable
from .detokenizer import Vocabulary
from .forward import ForwardRunner
from .kinds import Kind
from .loader import Bundle
from .pace import Pace
from .runner import Runner
from .shared import SharedModule
from .tasks.embeddings import Embeddings
from .tasks.offered import offered

EMBEDDING = Embeddings.name
ALIASES: Mapping[str, str] = {
    "ner": "token-classification", "sentiment-analysis": "text-classification", "asr": "automatic-speech-recognition",
    "embed": EMBEDDING, "sentence-similarity": EMBEDDING, "text-ranking": "rerank",
}  # fmt: skip
"""Other names of tasks."""


def rung(kind: Kind) -> tuple[str, tuple[str, ...]]:
    """The rung that serves a kind, and why none above it does."""
    if kind.writes:
        return "G", (f"P, H, S: they serve causal language models, this is one of another kind: {kind.name}",)
    return "F", (f"P, H, S, G: it writes no text, it is of the kind: {kind.name}",)


def runners(
    bundle: Bundle, shared: SharedModule, vocabulary: Vocabulary | None, ops: OpTable, pace: Pace
) -> Sequence[Runner]:
    """What serves a model of another kind."""
    return [ForwardRunner(shared, offered(bundle, ops), pace)]
