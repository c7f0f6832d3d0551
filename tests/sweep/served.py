"""One tiny model through the engine: two requests at once, their prompts in parts, against what `generate` answers."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from architectures.build import OTHER_PROMPT, PROMPT, TOKENS, TinyModel, config_of
from architectures.reference import Answer, greedy
from tiny_models import ask, byte_level, finish, silent, source_of

from llmos.drivers.contract import ChoiceResult, DoneEvent, LoadedModel, LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

PREFILL_TOKENS = 7
"""How many tokens of a prompt a step takes at most, where a runner may split prompts."""

BEST = 4
"""How many of the best tokens are compared at each place, besides the one that was chosen."""

TOLERANCE = 5e-5
"""By how much log-probabilities may differ, as a share of the largest logit or of 1."""


@dataclass(frozen=True)
class Served:
    """How a model was loaded, and what the engine answered to each prompt."""

    loaded: LoadedModel
    choices: Sequence[ChoiceResult]
    expected: Sequence[Answer]

    def differences(self) -> list[str]:
        """Where tokens or log-probabilities differ from the library's; empty when they are the same."""
        found = []
        for number, (choice, answer) in enumerate(zip(self.choices, self.expected, strict=True)):
            if list(choice.tokens) != list(answer.tokens):
                found.append(f"prompt {number}: {list(choice.tokens)} is not {list(answer.tokens)}")
            elif (distance := _distance(choice, answer)) > TOLERANCE:
                found.append(f"prompt {number}: log-probabilities differ by {distance:.1e} of the largest logit")
        return found


def serve(model: TinyModel, rung: str = "") -> Served:
    """Save, load, and answer both prompts in one engine. Raises what the engine raises at load."""
    expected = (model.answer, greedy(model.module, OTHER_PROMPT, TOKENS))
    engine = Engine(_ops(), prefill_tokens=PREFILL_TOKENS)
    with saved(model) as folder:
        loaded = engine.load("m", source_of(folder), LoadSettings(dtype="float32", rung=rung), silent)
    requests = [
        ask(prompt, f"r{number}", max_tokens=TOKENS, ignore_eos=True, logprobs=BEST)
        for number, prompt in enumerate((PROMPT, OTHER_PROMPT))
    ]
    events = finish(engine, *requests)
    engine.unload("m")
    choices = []
    for request in requests:
        last = events[request.id][-1]
        assert isinstance(last, DoneEvent), last
        choices.append(last.choices[0])
    return Served(loaded, choices, expected)


@contextmanager
def saved(model: TinyModel) -> Iterator[Path]:
    """A folder with the model and a tokenizer, for as long as it is read."""
    with tempfile.TemporaryDirectory(prefix="tiny") as name:
        yield save(model, Path(name))


def save(model: TinyModel, folder: Path) -> Path:
    """Write the model and a tokenizer as the library's own tools would."""
    model.module.save_pretrained(folder)
    config = config_of(model.name)
    if config.model_type != model.module.config.model_type:  # the text part of a larger model was built
        config.architectures = model.module.config.architectures
        config.save_pretrained(folder)
    for name, data in _tokenizer_files().items():
        (folder / name).write_bytes(data)
    return folder


@functools.cache
def _tokenizer_files() -> Mapping[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="tokenizer") as name:
        byte_level().save_pretrained(name)
        return {path.name: path.read_bytes() for path in sorted(Path(name).iterdir())}


@functools.cache
def _ops() -> OpTable:
    table = OpTable()
    register_reference(table)
    return table


def _distance(choice: ChoiceResult, answer: Answer) -> float:
    """The largest difference between log-probabilities, as TOLERANCE counts it."""
    expected = torch.log_softmax(answer.logits, -1)
    pairs = [
        (given, expected[at, token])
        for at, entry in enumerate(choice.logprobs or ())
        for token, given in [(entry.token, entry.logprob), *((token, given) for token, _, given in entry.top)]
    ]
    assert len(pairs) == len(answer.tokens) * (BEST + 1)
    differences = [abs(given - float(right)) for given, right in pairs]
    return max(differences) / max(1.0, float(answer.logits.abs().max()))
