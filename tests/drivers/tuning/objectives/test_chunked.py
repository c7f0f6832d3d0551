"""A few scores at a time: the same losses and gradients as of all at once, and less memory."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch
import transformers
import tuning_runs

from llmos.drivers.tuning.aids import backward_of
from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.objectives.chunked import Chunked, fits


def batch(packed: bool) -> Batch:
    each = [Example(one.tokens, [-100, -100, *one.labels[2:]]) for one in tuning_runs.sentences(6)]
    return collate([each[:4], each[4:]] if packed else [[one] for one in each])


def module(dropout: float = 0.0) -> Any:
    made = tuning_runs.lora(tuning_runs.llama(), dropout)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.3)
    return made


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("room", [1, 100, 1 << 20])
@pytest.mark.parametrize("fields", [{}, {"smoothing": 0.2, "class_weights": torch.arange(1.0, 25.0)}])
def test_losses_and_gradients_are_those_of_all_at_once(packed: bool, room: int, fields: dict[str, Any]) -> None:
    one, given = module(), batch(packed)
    other = copy.deepcopy(one)
    loss, made = tuning_runs.learnt(Chunked(room=room, **fields), one, given)
    wanted, theirs = tuning_runs.learnt(Causal(**fields), other, given)
    assert loss == pytest.approx(wanted, rel=1e-6)
    torch.testing.assert_close(made, theirs, rtol=1e-4, atol=1e-7)
    parts = [objective.loss(one, given).sums for objective in (Chunked(room=room), Causal())]
    assert {name: int(value) for name, value in parts[0].items()} == {n: int(v) for n, v in parts[1].items()}


def test_without_a_gradient_there_is_only_the_loss() -> None:
    made, given = module(), batch(True)
    with torch.no_grad():
        outcome, plain = Chunked(room=50).loss(made, given), Causal().loss(made, given)
    torch.testing.assert_close(outcome.total, plain.total)
    assert not outcome.total.requires_grad and not made.get_output_embeddings()._forward_pre_hooks


def test_prompts_that_are_learnt_have_no_scores() -> None:
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    made: Any = peft.get_peft_model(tuning_runs.llama(), settings)
    assert fits(made, batch(False))
    loss, found = tuning_runs.learnt(Chunked(room=60), made, batch(False))
    made.zero_grad()
    wanted, theirs = tuning_runs.learnt(Causal(), made, batch(False))
    assert loss == pytest.approx(wanted, rel=1e-6) and found.keys() == theirs.keys()


def test_only_heads_that_make_all_of_the_scores_and_stay_are_taken() -> None:
    assert fits(module(), batch(True)) and module().training
    bounded = transformers.Gemma2Config(
        vocab_size=24, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.1,
    )  # fmt: skip
    assert not fits(transformers.Gemma2ForCausalLM(bounded).requires_grad_(False), batch(False))
    bounded.final_logit_softcapping = None
    assert fits(transformers.Gemma2ForCausalLM(bounded).requires_grad_(False), batch(False))
    frozen = tuning_runs.llama().requires_grad_(False)
    assert fits(frozen, batch(False))
    frozen.lm_head.requires_grad_(True)
    assert not fits(frozen, batch(False))
    assert not fits(tuning_runs.bert("Model").requires_grad_(False), batch(False))


def test_scores_of_all_tokens_are_never_there_at_once() -> None:
    """256 tokens of 8000 classes: 8 MB of scores, of which plain training holds three at least."""
    made = tuning_runs.lora(tuning_runs.llama(vocabulary=8000))
    tokens = [3 + n % 90 for n in range(128)]
    given = collate([[Example(tokens, tokens)]] * 2)
    most = {}
    for objective in (Causal(), Chunked(room=16 * 8000)):
        backward = backward_of(objective.loss)
        backward(made, given, 1.0)
        most[type(objective).__name__] = tuning_runs.allocated(lambda run=backward: run(made, given, 1.0))  # type: ignore[misc]
    scores = 4 * 254 * 8000
    print(most, scores)
    assert most["Causal"] > 3 * scores and most["Chunked"] < 0.6 * scores
