"""The pieces of a task of one forward pass."""

from __future__ import annotations

from typing import ClassVar

import torch
from tiny_kinds import answers, ask

from llmos.drivers.contract import LabelScore, LabelsResult, Request
from llmos.drivers.engine.forward import ForwardRunner
from llmos.drivers.engine.pace import Pace
from llmos.drivers.engine.shared import SharedModule
from llmos.drivers.engine.tasks.base import Job, Line, Outcome


class Sums:
    """A task of a few lines: the sum of each word's bytes by a module that adds."""

    name = "sum"
    options: ClassVar[dict[str, str]] = {}
    batch_tokens = 100

    def prepare(self, request: Request) -> Job:
        words = (request.prompt.text or "").split()
        lines = [Line({"bytes": torch.tensor(list(word.encode()))}, len(word)) for word in words]

        def answer(outputs: object) -> Outcome:
            assert isinstance(outputs, list)
            return Outcome(LabelsResult([LabelScore(w, s) for w, s in zip(words, outputs, strict=True)]))

        return Job(lines, sum(map(len, words)), answer)

    def run(self, module: torch.nn.Module, lines: list[Line]) -> list[float]:
        padded = torch.zeros(len(lines), max(line.length for line in lines))
        for row, line in zip(padded, lines, strict=True):
            row[: line.length] = line.inputs["bytes"]
        return [float(each) for each in module(padded).sum(dim=-1)]


class Module(torch.nn.Bilinear):
    """Adds nothing to what it is given."""

    class config:
        _attn_implementation = "eager"

    def forward(self, given: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return given


def test_a_task_of_its_own_is_served() -> None:
    runner = ForwardRunner(SharedModule(Module(1, 1, 1)), [Sums()], Pace(1))
    (one, other) = answers(runner, [ask("ab c ddd", "sum", "1"), ask("c", "sum", "2")])
    assert one.result == LabelsResult([LabelScore("ab", 195.0), LabelScore("c", 99.0), LabelScore("ddd", 300.0)])
    assert other.result == LabelsResult([LabelScore("c", 99.0)])
    assert (one.prompt_tokens, other.prompt_tokens) == (6, 1)
