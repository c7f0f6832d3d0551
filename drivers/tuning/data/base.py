"""What a base has to have for an objective: a head, a tokenizer, a chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import BadModel

from ...engine import kinds
from ...engine.loader import Bundle

HEADS: Mapping[str, tuple[kinds.Kind, ...]] = {
    "causal-lm": (kinds.CAUSAL, kinds.VISION),
    "preference": (kinds.CAUSAL, kinds.VISION),
    "multiple-choice": (kinds.CAUSAL, kinds.VISION),
    "masked-lm": (kinds.MASKED,),
    "seq2seq": (kinds.SEQ2SEQ,),
    "classification": (kinds.SEQUENCE,),
    "multi-label": (kinds.SEQUENCE,),
    "regression": (kinds.SEQUENCE,),
    "token-classification": (kinds.TOKEN,),
    "question-answering": (kinds.QUESTION,),
    "embedding": (kinds.ENCODER, kinds.TEXT_ENCODER, kinds.MASKED, kinds.CAUSAL),
}
"""For each objective, the kinds of model that can learn it."""


@dataclass(frozen=True)
class Base:
    """What the data need to know of the model.

    Attributes:
        name: for people to read.
        kind: what it is for.
        tokenizer: of transformers, with offsets.
        context: the most tokens.
        labels: names of the outputs of its head of classes; empty without one.
    """

    name: str
    kind: kinds.Kind
    tokenizer: Any
    context: int
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, bundle: Bundle, name: str = "") -> Base:
        """Of a loaded model."""
        about = bundle.about
        names = about.config.id2label if about.kind in (kinds.SEQUENCE, kinds.TOKEN) else {}
        labels = tuple(str(names[number]) for number in sorted(names))
        return cls(name or about.architecture, about.kind, bundle.tokenizer, about.context, labels)

    @property
    def padding(self) -> int:
        """The token of places that hold none."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def named(self) -> bool:
        """Whether its labels have names of their own, not the library's `LABEL_0`."""
        return bool(self.labels) and self.labels != tuple(f"LABEL_{n}" for n in range(len(self.labels)))

    def check(self, objective: str) -> None:
        """Raises BadModel when the model cannot learn this, or its tokenizer does not say where tokens begin."""
        wanted = HEADS[objective]
        if self.kind not in wanted:
            why = f"{objective} needs a {' or '.join(kind.name for kind in wanted)}, this is a {self.kind.name}"
            fit = ", ".join(name for name, fits in HEADS.items() if self.kind in fits) or "none"
            said = f"{self.name}: {why}; objectives for it: {fit}; or save the base with {wanted[0].auto}"
            raise BadModel(said, file="config.json", why=why)
        if objective == "regression" and len(self.labels) > 1:
            why = f"regression needs a head with one output, this one has {len(self.labels)}"
            said = f"{self.name}: {why}; save the base with num_labels 1, or train classification"
            raise BadModel(said, file="config.json", why=why)
        if self.tokenizer is None or not getattr(self.tokenizer, "is_fast", False):
            why = "the tokenizer does not tell where in a text its tokens begin"
            raise BadModel(f"{self.name}: {why}; save it as tokenizer.json", file="tokenizer.json", why=why)

    def check_chat(self) -> None:
        """Raises BadModel without a chat template."""
        if not self.tokenizer.chat_template:
            why = "no chat template"
            said = f"{self.name} has {why}, which rows of messages need; use rows of prompt and completion, or text"
            raise BadModel(said, file="chat_template.jinja", why=why)
