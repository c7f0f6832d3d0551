"""How a job begins, and what it is planned to take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
import torch
import tuning_runs
from tuning_runs import Make, Serve, maker

from llmos.drivers.contract import LoadSettings, TuneJob
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.table import OpTable
from llmos.drivers.tuning import preparing
from llmos.drivers.tuning.job import Running
from llmos.drivers.tuning.objectives.chunked import ROOM, Chunked
from llmos.drivers.tuning.objectives.preference import Preference
from llmos.drivers.tuning.preparing import Prepared, prepare
from llmos.syscalls.errors import BadArgument


def moving(prepared: Prepared) -> dict[str, torch.Tensor]:
    return {name: value for name, value in prepared.module.named_parameters() if value.requires_grad}


def test_it_begins_as_its_seed_says_and_leaves_the_generators_alone(make: Make) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = moving(make(seed=1))
    assert torch.equal(torch.rand(3), expected)
    again, other = moving(make(seed=1)), moving(make(seed=2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_plan_counts_tokens_of_all_steps(make: Make) -> None:
    prepared = make(max_steps=5, packing=False)
    lengths = [len(example) for example in prepared.data.train]
    assert prepared.plan.tokens == sum(lengths) * 5 // 4 and prepared.plan.steps == 5
    (row,) = prepared.plan.rows
    state = sum(4 * value.nbytes for value in moving(prepared).values())
    assert (row.what, row.owner) == ("tuning", "t1") and row.predicted > state, "weights, gradients, two moments"
    assert prepared.plan.facts["method"] == "lora" and prepared.plan.facts["data"]["rows"] == 8


def test_more_rank_is_planned_as_more_bytes(make: Make) -> None:
    small, large = make(rank=2), make(rank=64)
    more = sum(value.nbytes for value in moving(large).values()) - sum(value.nbytes for value in moving(small).values())
    assert large.plan.rows[0].predicted - small.plan.rows[0].predicted > 3 * more


def test_texts_stand_in_one_row_where_they_do_not_see_each_other(make: Make) -> None:
    assert make().batches[0].packed and make().plan.facts["packed"] and make().plan.facts["unpacked"] == ""
    alone = make(packing=False)
    assert not alone.batches[0].packed and not alone.plan.facts["packed"]
    prompt = make(method="prompt", options={"virtual_tokens": 4, "result": "adapter"})
    assert not prompt.batches[0].packed and "before each text" in prompt.plan.facts["unpacked"]


@pytest.mark.parametrize("name", ["opt", "bloom"])
def test_models_that_would_mix_texts_get_one_to_a_row(serve: Serve, tmp_path: Path, name: str) -> None:
    prepared = maker(serve, tmp_path, name)()
    assert not prepared.batches[0].packed and "change each other" in prepared.plan.facts["unpacked"]


def test_scores_of_a_vocabulary_are_never_there_all_at_once(make: Make) -> None:
    assert isinstance(make().objective, Chunked)
    pairs = {"prompt": "a", "chosen": "b", "rejected": "c d"}
    made = make(row=pairs, objective="preference", options={"beta": 0.3}).objective
    assert isinstance(made, Preference) and made.room == ROOM and made.beta == 0.3


def test_a_condition_needs_rows_that_are_held_out(make: Make) -> None:
    with pytest.raises(BadArgument, match="an eval_fraction above 0") as caught:
        make(promote_if="eval_loss < 1")
    assert caught.value.name == "promote_if"
    assert make(promote_if="eval_loss < 1", eval_fraction=0.3).held_out


def test_a_quantized_base_is_planned_like_any_other(serve: Serve, tmp_path: Path) -> None:
    """But for what unpacking takes: numbers, scales and weights in float32, a piece at a time."""
    (tmp_path / "other").mkdir()
    four = {"width": 4, "group": 32, "activations": "model"}
    made = maker(serve, tmp_path)(method="lora"), maker(serve, tmp_path / "other", quant=four)(method="qlora")
    plain, quantized = (each.plan.facts["bytes"] for each in made)
    assert quantized["trainable"] == plain["trainable"] > 0
    scratch = [preparing._scratch(each.module, each.batches.largest(1)) for each in made]
    assert scratch[1] > 2 * scratch[0] > 0
    assert quantized["total"] - scratch[1] == pytest.approx(plain["total"] - scratch[0], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("length", [64, 256])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_on_weights_that_serve_the_plan_is_within_a_tenth(
    ops: OpTable, tmp_path: Path, checkpointing: bool, length: int
) -> None:
    """Layers wide enough that unpacking their weights takes memory of its own."""
    size = {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 6, "vocab_size": 16_000}
    folder = tiny_models.build(tmp_path / "served", "llama", max_position_embeddings=256, **size)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(folder), LoadSettings(dtype="float32"), tiny_models.silent)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.jsonl").write_text("".join(json.dumps({"text": f"{n} words"}) + "\n" for n in range(400)))
    recipe = {
        "method": "lora", "rank": 8, "batch_size": 2, "max_steps": 2, "max_length": length,
        "options": {"gradient_checkpointing": checkpointing},
    }  # fmt: skip
    source = tiny_models.source_of(tmp_path / "data")
    prepared = prepare(TuneJob("t", "m", recipe, source, tmp_path / "out", tmp_path / "keep"), engine.base("m"))
    sizes = prepared.plan.facts["bytes"]
    running = Running(prepared)
    taken = sizes["trainable"] + tuning_runs.allocated(lambda: running.work(lambda: None))
    print(f"{length} {checkpointing}: planned {sizes['total']}, taken {taken}, {sizes['total'] / taken:.3f}")
    assert sizes["total"] == pytest.approx(taken, rel=0.1)
