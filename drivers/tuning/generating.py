"""Answers to held-out prompts, written before the first step and after the last, and compared with what is wanted.

They are written greedily by the module that is trained, as it is, over the weights that serve: the library's own
`generate`, with the cache that the architecture has. Where tokens are learned that stand before each text, each token
is a pass of its own without a cache, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from llmos.syscalls.errors import BadArgument

from ..engine.loader import Bundle
from . import report
from .data.base import Base
from .data.dataset import Dataset
from .data.example import IGNORED, Example
from .metrics import writing
from .metrics.texts import written
from .mistakes import LETTERS, cut
from .recipe import Recipe
from .training import Looked
from .words import PROMPTS

TEXTS = "texts"
"""What answers are called in a report."""
SHOWN = 8
"""Rows of a report: those whose answers are the worst."""
NOTHING = -1
"""Where an answer has ended."""
_AT_ONCE = 50
"""Draws that are reckoned with before others may have a turn."""


@dataclass(frozen=True)
class Question:
    """A held-out row, in tokens: what is asked and what is wanted."""

    prompt: Sequence[int]
    wanted: Sequence[int]


def questions(examples: Sequence[Example], rows: int) -> list[Question]:
    """The first rows that have a prompt; of a conversation the last answer is wanted, all before it is the prompt."""
    every = (_question(example) for example in examples)
    return [question for question in every if question is not None][:rows]


def _question(example: Example) -> Question | None:
    if example.aligned:
        [answer] = example.others
        return Question(example.tokens, answer.tokens)
    learned = [n for n, label in enumerate(example.labels) if label != IGNORED]
    if not learned:
        return None
    first = end = learned[-1]
    while first and example.labels[first - 1] != IGNORED:
        first -= 1
    return Question(example.tokens[:first], example.tokens[first : end + 1]) if first else None


def asked_of(recipe: Recipe, data: Dataset, context: int) -> list[Question]:
    """What a recipe wants to be answered of its data; nothing where it asks for nothing.

    Args:
        recipe: with the option `generate`, or without.
        data: encoded.
        context: the most tokens.

    Raises:
        BadArgument: there is nothing to answer, or no room for the answers.
    """
    asked = recipe.generate
    if asked is None:
        return []
    found = questions(data.held_out, asked.rows)
    if not found:
        want = "held-out rows with a prompt and an answer: messages, or prompt and completion"
        said = f"generate has nothing to answer: it needs {want}"
        raise BadArgument(said, name="generate", got="rows without a prompt", want=want)
    longest = max(len(each.prompt) for each in found) if recipe.objective != "seq2seq" else 0
    context -= recipe.virtual_tokens if recipe.method in PROMPTS else 0
    if asked.tokens + longest > context:
        want = f"at most {context - longest}" if longest < context else "shorter prompts, with a max_length"
        said = f"tokens of generate is {asked.tokens}, and the longest prompt takes {longest} of the model's {context}"
        raise BadArgument(f"{said}; it is {want}", name="tokens", got=str(asked.tokens), want=want)
    return found


@dataclass(frozen=True)
class Writer:
    """How answers are written.

    Attributes:
        tokens: of an answer at most.
        ends: tokens that end one.
        padding: the token of places that hold none.
        size: rows at once.
        device: where the module is.
        encoded: whether an encoder reads the prompt, and the decoder begins anew.
        cached: whether the module can go on from what it keeps of a text.
    """

    tokens: int
    ends: tuple[int, ...]
    padding: int
    size: int
    device: torch.device
    encoded: bool
    cached: bool

    @torch.no_grad()
    def answers(self, module: Any, prompts: Sequence[Sequence[int]], yield_: Callable[[], None]) -> list[list[int]]:
        """What the module, which does not train, writes to each prompt, without the token that ends it; `yield_` is
        called after each token."""
        made: dict[int, list[int]] = {}
        for numbers in self.batches(prompts):
            rows = [prompts[number] for number in numbers]
            ids = self._generated(module, rows, yield_) if self.cached else self._passed(module, rows, yield_)
            made |= dict(zip(numbers, map(self._ended, ids), strict=True))
        return [made[number] for number in range(len(prompts))]

    def batches(self, prompts: Sequence[Sequence[int]]) -> Iterator[Sequence[int]]:
        """The numbers of rows that are answered at once: those of about the same length."""
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        size = self.size if self.cached else 1
        return (order[n : n + size] for n in range(0, len(order), size))

    def given(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """What the module gets: `input_ids` and `attention_mask`, int64 [rows, tokens]. A decoder goes on at the end of
        its rows, so they are filled up in front; what an encoder reads begins at its first position."""
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.padding)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            place = slice(0, len(row)) if self.encoded else slice(longest - len(row), longest)
            ids[number, place] = torch.tensor(row)
            mask[number, place] = 1
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}

    def _generated(
        self, module: Any, rows: Sequence[Sequence[int]], yield_: Callable[[], None]
    ) -> Sequence[Sequence[int]]:
        given = self.given(rows)
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=self.tokens, do_sample=False, num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0,
            min_length=0, eos_token_id=list(self.ends) or None, pad_token_id=self.padding, use_cache=True,
        )  # fmt: skip
        stops = StoppingCriteriaList([_Between(yield_)])
        ids: Tensor = module.generate(**given, generation_config=settings, stopping_criteria=stops)
        begun = 1 if self.encoded else given["input_ids"].shape[1]
        answers: list[list[int]] = ids[:, begun:].tolist()
        return answers

    def _passed(
        self, module: Any, rows: Sequence[Sequence[int]], yield_: Callable[[], None]
    ) -> Sequence[Sequence[int]]:
        """One row, a pass for each token."""
        [row] = rows
        said: list[int] = []
        while len(said) < self.tokens and not (said and said[-1] in self.ends):
            said.append(int(module(**self.given([[*row, *said]]), use_cache=False).logits[0, -1].argmax()))
            yield_()
        return [said]

    def _ended(self, ids: Sequence[int]) -> list[int]:
        """An answer up to its end."""
        end = next((n for n, token in enumerate(ids) if token in self.ends), len(ids))
        return list(ids[:end])


class _Between(StoppingCriteria):
    """Stops nothing: gives way after each token."""

    def __init__(self, yield_: Callable[[], None]) -> None:
        self._yield = yield_

    def __call__(self, input_ids: Tensor, scores: Any, **more: Any) -> Any:
        self._yield()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def writer_of(recipe: Recipe, bundle: Bundle, device: torch.device) -> Writer:
    """How answers are written by what a recipe trains; it asks for them."""
    assert recipe.generate is not None
    end = bundle.tokenizer.eos_token_id
    ends = tuple(sorted({*bundle.eos, *(() if end is None else (end,))}))
    encoded, cached = recipe.objective == "seq2seq", recipe.method not in PROMPTS
    padding = Base.of(bundle).padding
    return Writer(recipe.generate.tokens, ends, padding, recipe.batch_size, device, encoded, cached)


def prompts_of(recipe: Recipe, found: Sequence[Question], bundle: Bundle) -> dict[str, Tensor] | None:
    """The largest prompts that are answered at once, as the module gets them; None where nothing is asked."""
    if not found:
        return None
    writer = writer_of(recipe, bundle, torch.device("cpu"))
    prompts = [each.prompt for each in found]
    batches = [[prompts[number] for number in numbers] for numbers in writer.batches(prompts)]
    return writer.given(max(batches, key=lambda rows: len(rows) * max(map(len, rows))))


@dataclass(frozen=True)
class Answers:
    """A `Look` at what the module answers to held-out prompts.

    Attributes:
        questions: at least one.
        writer: how answers are written.
        decode: tokens to text.
    """

    questions: Sequence[Question]
    writer: Writer
    decode: Callable[[Sequence[int]], str]

    def look(self, module: nn.Module, yield_: Callable[[], None]) -> Looked:
        """`bleu`, `rouge1`, `rouge2` and `rougel`; `said`, int64 [rows, tokens], NOTHING where an answer has ended."""
        answers = self.writer.answers(module, [each.prompt for each in self.questions], yield_)
        said = torch.full((len(answers), self.writer.tokens), NOTHING)
        for number, answer in enumerate(answers):
            said[number, : len(answer)] = torch.tensor(answer, dtype=torch.int64)
        return Looked(written(self._texts(said), self._wanted()), {"said": said})

    def compared(
        self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], between: Callable[[], None]
    ) -> dict[str, Any]:
        """The figures of both, with what chance does to them, and as `texts` the worst answers: what was asked, what
        was wanted, and what was written before and after."""
        wanted, both = self._wanted(), [self._texts(each["said"]) for each in (before, after)]
        sums = [writing.parts(said, wanted) for said in both]
        drawn = [partial(writing.figures, each) for each in sums]
        figures = report.spans(drawn, len(wanted), "rows", _AT_ONCE, between)
        worst = sums[1][:, -1].argsort(stable=True)[:SHOWN].tolist()
        examples = [
            {
                "prompt": _end(self.decode(self.questions[n].prompt)), "wanted": _line(wanted[n]),
                "before": _line(both[0][n]), "after": _line(both[1][n]),
            }
            for n in worst
        ]  # fmt: skip
        told = {"rows": len(wanted), "tokens": self.writer.tokens, "examples": examples}
        return {"figures": figures, TEXTS: told}

    def _wanted(self) -> list[str]:
        return [self.decode(each.wanted).strip() for each in self.questions]

    def _texts(self, said: Tensor) -> list[str]:
        return [self.decode([token for token in row if token != NOTHING]).strip() for row in said.tolist()]


def _line(text: str) -> str:
    return cut(_plain(text))


def _plain(text: str) -> str:
    """One line without signs that a terminal would obey: a model that has learned nothing may write any."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(text.split()))


def _end(text: str) -> str:
    """The end of a text, where the question stands."""
    text = _plain(text)
    return text if len(text) <= LETTERS else "…" + text[1 - LETTERS :]
