"""Of several texts the right one: the loss of the library's own models."""

from __future__ import annotations

import torch
import tuning_runs
from torch.nn import functional

from llmos.drivers.tuning.data.batches import collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.choices import Choices


def test_the_loss_is_the_librarys() -> None:
    texts = [tuning_runs.sentences(4, seed, longest) for seed, longest in ((1, 5), (2, 12), (3, 7))]
    rows = [
        Example(own.tokens, (label,), whole=True, others=tuple(Example(o.tokens, (0,), whole=True) for o in others))
        for label, own, *others in zip((0, 2, 1, 1), *texts, strict=True)
    ]
    batch = collate([[row] for row in rows])
    module = tuning_runs.bert("ForMultipleChoice")
    longest = max(each.input_ids.shape[1] for each in (batch, *batch.others))

    def all_of(name: str) -> torch.Tensor:
        each = [getattr(text, name) for text in (batch, *batch.others)]
        return torch.stack([functional.pad(text, (0, longest - text.shape[1])) for text in each], 1)

    loss, made = tuning_runs.learnt(Choices(), module, batch)
    other = tuning_runs.bert("ForMultipleChoice")
    wanted = other(
        input_ids=all_of("input_ids"), attention_mask=all_of("attention_mask"), labels=torch.tensor([0, 2, 1, 1])
    ).loss
    wanted.backward()
    torch.testing.assert_close(torch.tensor(loss), wanted.detach())
    torch.testing.assert_close(made, tuning_runs.gradients(other), rtol=1e-4, atol=1e-6)
    assert batch.input_ids.shape[1] < longest
