"""Rows without labels, looked at before and after: how many a model is sure of, and which are worth a label next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .choosing import doubt, next_rows
from .data.batches import Batch
from .data.example import IGNORED
from .data.unlabelled import Pool
from .mistakes import cut
from .objectives.protocol import inputs
from .options.unlabelled import Unlabelled
from .training import Looked

UNSURE = 4
"""Times as many rows as are asked for: the least sure ones, among which those are chosen that differ."""


@dataclass(frozen=True)
class ToLabel:
    """A `Look` at rows without labels.

    Attributes:
        batches: the rows in their order, one in each row of a batch.
        pool: where each row stands.
        asked: how many to choose, and what is sure.
        decode: tokens to text.
        names: of classes.
        device: where the module is.
    """

    batches: Sequence[Batch]
    pool: Pool
    asked: Unlabelled
    decode: Callable[[Sequence[int]], str]
    names: Sequence[str]
    device: torch.device

    def look(self, module: nn.Module, yield_: Callable[[], None]) -> Looked:
        """`unlabelled_sure`, the share of items whose class is likely enough, `unlabelled_doubt`, the mean doubt of
        rows from 0 to 1; of the rows that are doubted most, doubt, class, number and mean state."""
        sure = items = rows = total = 0.0
        kept: list[Tensor] = [torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0), torch.empty(0)]
        for batch in self.batches:
            unsure, likely, said, vectors = self._judged(module, batch)
            sure, items = sure + float((likely >= self.asked.confidence).sum()), items + len(likely)
            numbers, rows = torch.arange(len(unsure)) + int(rows), rows + len(unsure)
            total += float(unsure.sum())
            joined = [
                torch.cat((a, b)) if len(a) else b for a, b in zip(kept, (unsure, numbers, said, vectors), strict=True)
            ]
            order = joined[0].argsort(descending=True, stable=True)[: self.asked.choose * UNSURE]
            kept = [each[order] for each in joined]
            yield_()
        figures = {"unlabelled_sure": sure / max(1.0, items), "unlabelled_doubt": total / max(1.0, rows)}
        told = {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}
        return Looked(figures, told | dict(zip(("doubt", "rows", "said", "vectors"), kept, strict=True)))

    def _judged(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each row its doubt and its mean state, of each item how likely its class is; and the class of each row, of
        several items that of the one that is doubted most."""
        ready = batch.to(self.device)
        answer: Any = module(**inputs(ready), output_hidden_states=True)
        kept = ready.labels != IGNORED
        scores = answer.logits[kept].float()
        doubts, (likely, said) = doubt(scores, self.asked.doubt), scores.softmax(1).max(1)
        of = kept.nonzero()[:, 0]
        count = len(batch.input_ids)
        most = torch.zeros(count, device=self.device).scatter_reduce(0, of, doubts, "amax")
        classes = torch.zeros(count, dtype=torch.int64, device=self.device)
        classes[of[doubts == most[of]]] = said[doubts == most[of]]
        mask = ready.attention_mask[..., None]
        states = (answer.hidden_states[-1].float() * mask).sum(1) / mask.sum(1)
        return most.cpu(), likely.cpu(), classes.cpu(), states.cpu()

    def compared(
        self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], between: Callable[[], None]
    ) -> dict[str, Any]:
        """`unlabelled`: how many rows there are, what share of them is sure before and after, and which are worth a
        label next."""
        chosen = next_rows(after["doubt"], after["vectors"], self.asked.choose, UNSURE)
        shares = [float(each["unlabelled_sure"]) if each else None for each in (before, after)]
        told = [self._told(after, place) for place in chosen]
        return {"unlabelled": {"rows": len(self.pool.given), "sure": shares, "to_label": told}}

    def _told(self, after: Mapping[str, Tensor], place: int) -> dict[str, Any]:
        number, said = int(after["rows"][place]), int(after["said"][place])
        text = " ".join(self.decode(self.pool.given[number].tokens).split())
        name = self.names[said] if said < len(self.names) else str(said)
        return {
            "place": self.pool.places[number],
            "text": cut(text),
            "said": cut(name, 40),
            "doubt": float(after["doubt"][place]),
        }
