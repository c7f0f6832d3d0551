"""A few scores at a time: the same losses and gradients as of all at once, and less memory."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch
import transformers
import tuning_runs

from llmos.drivers.engine.surgery.merged import SingleLinear
from llmos.drivers.ops.cpu import linear
from llmos.drivers.ops.cpu.linear import NativeLinear
from llmos.drivers.ops.cpu.native import Native
from llmos.drivers.tuning.aids import backward_of
from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives import chunked
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.objectives.chunked import Chunked, fits
from llmos.drivers.tuning.objectives.entropy import Entropy
from llmos.drivers.tuning.resident import ResidentLinear
from llmos.drivers.tuning.slices import mark


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


@pytest.mark.parametrize("held", [1, 8])
def test_scores_wait_for_one_another_and_go_through_a_packed_head_in_pieces(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """150 tokens of 300 classes, 16 at a time, of which one part waits or four; in two pieces of 256 and 44 classes."""
    weights, states = torch.randn(300, 24), torch.randn(150, 24, requires_grad=True)
    wanted, head = torch.randint(0, 300, (150,)), ResidentLinear(SingleLinear(NativeLinear(Native(), [weights], None)))
    theirs = torch.nn.functional.cross_entropy(states @ weights.t(), wanted, reduction="none")
    factors = torch.rand(150)
    (exact,) = torch.autograd.grad((theirs * factors).sum(), states)
    monkeypatch.setattr(linear, "PIECE_BYTES", 256 * 24 * 4)
    monkeypatch.setattr(chunked, "HELD", held)
    turns: list[str] = []
    handles = mark(head, lambda: turns.append("turn"))
    losses, _ = chunked.losses_at(states, wanted, head, Entropy(), room=8 * 300)
    assert len(turns) == 2 * 10 + 2 * {1: 10, 8: 3}[held], "around each product, and after each piece"
    (made,) = torch.autograd.grad((losses * factors).sum(), states)
    torch.testing.assert_close(losses, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made, exact, rtol=1e-4, atol=1e-5)
    for handle in handles:
        handle.remove()
    count = len(turns)
    chunked.losses_at(states, wanted, head, Entropy(), room=8 * 300)
    assert len(turns) == count


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
    for objective in (Causal(), Chunked(room=8 * 8000)):  # 16 tokens are scored at a time, and 64 wait
        backward = backward_of(objective.loss)
        backward(made, given, 1.0)
        most[type(objective).__name__] = tuning_runs.allocated(lambda run=backward: run(made, given, 1.0))  # type: ignore[misc]
    scores = 4 * 254 * 8000
    print(most, scores)
    assert most["Causal"] > 3 * scores and most["Chunked"] < 0.6 * scores
