"""Generated tasks that tiny models can learn, and whether they have.

A causal model that has learnt to count in three ways, each after a token that says which, and encoders with random
weights. Each verdict is a bootstrap interval of 99.9 % over held-out examples.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
import tuning_runs
from torch import Tensor, nn

from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.batches import Batches, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.methods import adapt, companion_of
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.objectives.protocol import Objective
from llmos.drivers.tuning.passes import backward_of
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.trainer import train
from llmos.drivers.tuning.training import Training

FIRST, COUNT = 6, 18
WAYS = {3: 1, 4: 5, 5: 11}
UNSAID = 2
"""Tokens from FIRST on are the numbers 0 to COUNT - 1. A token of WAYS says by how much is counted, UNSAID does not."""

Make = Callable[[int, torch.Generator], list[Example]]


def numbers(shape: tuple[int, ...], generator: torch.Generator) -> list[Any]:
    found: list[Any] = torch.randint(COUNT, shape, generator=generator).tolist()
    return found


def counting(said: Sequence[int], by: int | None = None) -> Make:
    """A way of `said`, a number that means nothing, a number, and the next one: which alone is learnt."""

    def make(count: int, generator: torch.Generator) -> list[Example]:
        made = []
        for noise, number, which in numbers((count, 3), generator):
            way = said[which % len(said)]
            step = WAYS[way] if by is None else by
            tokens = [way if by is None else UNSAID, FIRST + noise, FIRST + number, FIRST + (number + step) % COUNT]
            made.append(Example(tokens, [-100, -100, -100, tokens[3]]))
        return made

    return make


def preferred(count: int, generator: torch.Generator) -> list[Example]:
    """Counting by 5 is better than counting by 11."""
    made = []
    for noise, number in numbers((count, 2), generator):
        both = []
        for step in (5, 11):
            tokens = [UNSAID, FIRST + noise, FIRST + number, FIRST + (number + step) % COUNT]
            both.append(Example(tokens, [-100, -100, -100, tokens[3]]))
        made.append(dataclasses.replace(both[0], others=(both[1],)))
    return made


def told(label: Callable[[list[int]], Sequence[float]]) -> Make:
    """Six numbers, and what is said of them as a whole."""

    def make(count: int, generator: torch.Generator) -> list[Example]:
        rows = numbers((count, 6), generator)
        return [Example([FIRST + n for n in row], tuple(label(row)), whole=True) for row in rows]

    return make


def tagged(count: int, generator: torch.Generator) -> list[Example]:
    return [
        Example([FIRST + n for n in row], [n % 3 for n in row], aligned=True) for row in numbers((count, 6), generator)
    ]


def marked(count: int, generator: torch.Generator) -> list[Example]:
    """Six numbers, but for the marks 3 and 4, where the answer begins and ends; a fifth of answers are the last two."""
    made = []
    for row, (first, length) in zip(numbers((count, 6), generator), numbers((count, 2), generator), strict=True):
        begin = first % 5
        end = begin + 1 + length % (5 - begin)
        tokens = [FIRST + n for n in row]
        tokens[begin], tokens[end] = 3, 4
        made.append(Example(tokens, (begin, end), whole=True))
    return made


def runs(count: int, generator: torch.Generator) -> list[Example]:
    """Each text is one number, again and again: a hidden token can be known."""
    rows = [[FIRST + n] * 8 for (n,) in numbers((count, 1), generator)]
    return [Example(row, row, aligned=True) for row in rows]


def written(count: int, generator: torch.Generator) -> list[Example]:
    """The first of three numbers is to be written."""
    made = []
    for row in numbers((count, 3), generator):
        tokens = [FIRST + n for n in row]
        made.append(Example(tokens, [-100] * 3, others=(Example(tokens[:1], tokens[:1], aligned=True),)))
    return made


def near(others: int) -> Make:
    """To a number belongs the one that is 7 more, as a text of it alone; and then one that does not."""

    def make(count: int, generator: torch.Generator) -> list[Example]:
        made = []
        for number, off in numbers((count, 2), generator):
            texts = [[FIRST + (number + by) % COUNT] * 3 for by in (0, 7, 8 + off % (COUNT - 1))]
            own, *rest = (Example(text, (0,), whole=True) for text in texts)
            made.append(dataclasses.replace(own, others=tuple(rest[:others])))
        return made

    return make


def choices(count: int, generator: torch.Generator) -> list[Example]:
    """Of three ways to count, the one by 5."""
    made = []
    for noise, number in numbers((count, 2), generator):
        rows = []
        for step in (5, 11, 1):
            tokens = [UNSAID, FIRST + noise, FIRST + number, FIRST + (number + step) % COUNT]
            rows.append(Example(tokens, [-100, -100, -100, tokens[3]]))
        made.append(dataclasses.replace(rows[0], others=tuple(rows[1:])))
    return made


def any_first(examples: Sequence[Example], generator: torch.Generator) -> list[Example]:
    """Which of the answers is the right one, by chance."""
    made = []
    for own in examples:
        every = (dataclasses.replace(own, others=()), *own.others)
        first, *rest = (every[n] for n in torch.randperm(len(every), generator=generator).tolist())
        made.append(dataclasses.replace(first, others=tuple(rest)))
    return made


def mixed_up(examples: Sequence[Example], generator: torch.Generator) -> list[Example]:
    """The same texts, each with another one's labels and further texts."""
    order = torch.randperm(len(examples), generator=generator).tolist()
    return [
        dataclasses.replace(own, labels=examples[n].labels, others=examples[n].others)
        for own, n in zip(examples, order, strict=True)
    ]


def swapped(examples: Sequence[Example], generator: torch.Generator) -> list[Example]:
    """Which of two answers is the better one, by chance."""
    made = []
    for own, swap in zip(examples, torch.rand(len(examples), generator=generator) < 0.5, strict=True):
        other = own.others[0]
        made.append(dataclasses.replace(other, others=(dataclasses.replace(own, others=()),)) if swap else own)
    return made


@functools.cache
def counter() -> Any:
    """A causal model that counts as it is told to; where nothing is said, one way is as likely as another."""
    module = tuning_runs.llama(size=32)
    recipe = Recipe.of({
        "method": "full", "max_steps": 250, "batch_size": 64, "learning_rate": 1e-2, "packing": False,
    })  # fmt: skip
    generator = torch.Generator().manual_seed(9)
    examples = counting(tuple(WAYS))(3000, generator)
    for step in WAYS.values():
        examples += counting((UNSAID,), step)(500, generator)
    train(Training(module, Causal(), recipe, Batches(examples, recipe)))
    return module.requires_grad_(False)


def t5() -> Any:
    torch.manual_seed(1)
    return transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=tuning_runs.VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, dropout_rate=0.0,
        pad_token_id=0, decoder_start_token_id=0,
    ))  # fmt: skip


def encoder(head: str, labels: int = 2) -> Callable[[], Any]:
    return lambda: tuning_runs.bert(head, size=32, num_labels=labels)


@dataclass(frozen=True)
class Task:
    """`figure` of the objective's summary is the better the larger; `without` is what knowing nothing gives."""

    objective: Objective
    kind: kinds.Kind
    base: Callable[[], Any]
    make: Make
    figure: str = "accuracy"
    without: float = 0.0
    rate: float = 1e-2
    steps: int = 120
    at_once: int = 8
    mix: Callable[[Sequence[Example], torch.Generator], list[Example]] = mixed_up
    method: str = "lora"
    fields: tuple[tuple[str, Any], ...] = ()

    def figures(self, module: nn.Module, examples: Sequence[Example]) -> Tensor:
        """Of each group of `at_once` examples."""
        found = []
        module.eval()
        for start in range(0, len(examples), self.at_once):
            torch.manual_seed(0)
            batch = self.objective.prepare(collate([[one] for one in examples[start : start + self.at_once]]), False)
            with torch.no_grad():
                outcome = self.objective.loss(module, batch)
            sums = {name: float(value) for name, value in outcome.sums.items()}
            sums |= {"loss": float(outcome.total), "weight": self.objective.weight(batch)}
            value = self.objective.summary(sums)[self.figure]
            found.append(-value if "error" in self.figure else value)
        return torch.tensor(found)

    def tuned(self, examples: Sequence[Example], seed: int) -> tuple[nn.Module, nn.Module]:
        """The module before and after."""
        fields = {
            "learning_rate": self.rate,
            "max_steps": self.steps,
            "batch_size": 32,
            "seed": seed,
            **dict(self.fields),
        }
        recipe = Recipe.of({"method": self.method, "packing": False, "rank": 8, **fields})
        torch.manual_seed(seed)
        module = adapt(copy.deepcopy(self.base()).requires_grad_(False), self.kind, recipe, self.steps)
        before = copy.deepcopy(module)
        companion = companion_of(module, recipe)
        backward = backward_of(recipe, self.objective)
        train(Training(
            module, self.objective, recipe, Batches(examples, recipe), companion=companion, backward=backward
        ))  # fmt: skip
        return before, module


def surely(gains: Tensor) -> bool:
    """Whether the mean is above 0 in 999 of 1000 samples with replacement."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(gains), (10_000, len(gains)), generator=generator)
    return bool(torch.quantile(gains[drawn].mean(1), 0.001) > 0)


def learns(task: Task, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    examples, held_out = task.make(600, generator), task.make(400, generator)
    verdicts = []
    for given in (examples, task.mix(examples, generator)):
        before, after = task.tuned(given, seed)
        first, then = task.figures(before, held_out), task.figures(after, held_out)
        start = torch.maximum(first.mean(), torch.tensor(task.without))
        print(f"{task.method} {type(task.objective).__name__} {seed}: {start:.3f} to {then.mean():.3f}")
        verdicts.append(surely(then - first) and surely(then - task.without))
        was, now = (dict(each.named_parameters()) for each in (before, after))
        frozen = [name for name, value in was.items() if not value.requires_grad]
        assert (frozen or task.method == "full") and all(torch.equal(was[name], now[name]) for name in frozen)
        assert any(not torch.equal(was[name], now[name]) for name in was)
    assert verdicts == [True, False]


def by_method(method: str, rate: float, **more: Any) -> Task:
    fields = tuple(more.pop("fields", {}).items())
    return Task(
        Causal(), kinds.CAUSAL, counter, counting((UNSAID,), 5), method=method, rate=rate, without=1 / 3,
        fields=fields, **more,
    )  # fmt: skip
