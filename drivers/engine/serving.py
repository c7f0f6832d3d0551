"""Which runner of a model serves a task, and what is answered without any."""

from __future__ import annotations

from ..contract import ChoiceResult, DoneEvent, Request
from . import tokens
from .models import Resident
from .runner import Runner


def serving(resident: Resident, task: str, alone: bool = False) -> Runner | None:
    """The runner of a task; `alone` asks for the lowest rung, which does what does not go together with others."""
    able = [runner for runner in resident.runners if task in runner.tasks]
    return able[-1 if alone else 0] if able else None


def token_answer(resident: Resident, request: Request, task: str) -> DoneEvent:
    """Tokenizing and its reverse, special tokens shown: no model runs."""
    ids = tokens.prepare(resident.bundle, request.prompt)
    text = "" if task == "tokenize" else resident.bundle.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return DoneEvent(request.id, task, (ChoiceResult(0, text, ids, "stop"),), prompt_tokens=len(ids))
