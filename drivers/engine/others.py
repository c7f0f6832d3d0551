"""The runners of models that are no causal language models: in one pass (rung F), or with `generate` (rung G)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from llmos.syscalls.errors import NotSupported

from ..ops.table import OpTable
from .detokenizer import Vocabulary
from .forward import ForwardRunner
from .generating import GenerateRunner
from .kinds import Kind
from .loader import FAILURES, Bundle
from .memory import out_of_memory
from .pace import Pace
from .runner import Runner
from .sampling.grammar import GrammarCompiler
from .shared import SharedModule
from .tasks.embeddings import Embeddings
from .tasks.offered import offered, writing

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


@torch.inference_mode()
def runners(
    bundle: Bundle, shared: SharedModule, vocabulary: Vocabulary | None, ops: OpTable, pace: Pace
) -> Sequence[Runner]:
    """What serves a model of another kind. Raises NotSupported for one that does not run."""
    try:
        if not bundle.about.kind.writes:
            return [ForwardRunner(shared, offered(bundle, ops), pace)]
        assert vocabulary is not None
        grammars = GrammarCompiler(bundle.tokenizer, vocabulary)
        return [GenerateRunner(bundle, shared, vocabulary, grammars, writing(bundle), pace)]
    except FAILURES as error:
        why = f"{bundle.about.architecture} does not run as a {bundle.about.kind.name}: {_first_line(error)}"
        raise out_of_memory(error) or NotSupported(why, why=why) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
