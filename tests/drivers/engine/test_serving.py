"""Which runner serves a task. What they answer: `test_engine.py`."""

from __future__ import annotations

from pathlib import Path

from tiny_models import PROMPT, ask, silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.serving import serving, token_answer
from llmos.drivers.ops.table import OpTable


def test_the_first_that_can_serves_and_the_last_for_what_goes_alone(ops: OpTable, llama: Path) -> None:
    engine = Engine(ops)
    engine.load("m", source_of(llama), LoadSettings(), silent)
    resident = engine._entries["m"].awake()
    rungs = [each and each.rung for each in (
        serving(resident, "text-generation"), serving(resident, "text-generation", alone=True),
        serving(resident, "feature-extraction"), serving(resident, "summarization"),
    )]  # fmt: skip
    assert rungs == ["P", "G", "G", None]
    answer = token_answer(resident, ask(PROMPT), "tokenize")
    assert (answer.choices[0].tokens, answer.choices[0].text, answer.prompt_tokens) == (list(PROMPT), "", len(PROMPT))
    assert token_answer(resident, ask(PROMPT), "detokenize").choices[0].text
