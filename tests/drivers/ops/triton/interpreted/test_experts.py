"""Mixtures of experts in Triton: the formula for any choice of experts, and what one kernel hands to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
import triton.language as tl
from expert_routes import ACTS, EXPERTS, check_experts, routes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmos.drivers.engine.experts import fit_experts
from llmos.drivers.engine.lora.store import LoraStore
from llmos.drivers.engine.lora.weights import LoraPair, LoraWeights
from llmos.drivers.ops import reference_experts
from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.experts import cases
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.reference_experts import Gate
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.triton import experts, lora
from llmos.syscalls.errors import BadArgument

CPU = torch.device("cpu")


@settings(max_examples=5)
@given(
    routes(), st.sampled_from(ACTS), st.booleans(), st.booleans(),
    st.sampled_from((torch.float32, torch.bfloat16, torch.float16)),
)  # fmt: skip
def test_each_token_goes_through_its_experts(
    chosen: list[list[int]], gate: Gate, transposed: bool, biases: bool, dtype: torch.dtype
) -> None:
    check_experts(experts.experts, chosen, gate, transposed, biases, dtype)


@settings(max_examples=12)
@given(st.lists(st.integers(-2, EXPERTS + 2), min_size=1, max_size=60), st.sampled_from((16, 32)))
@example([0] * 15, 16)
def test_every_entry_has_one_row_in_a_block_of_its_expert(chosen: list[int], rows: int) -> None:
    """In their order, with what is beside them marked as nobody's; also over several chunks."""
    blocks = experts.blocks_of(len(chosen), EXPERTS, rows)
    order = torch.full((blocks * rows,), -7, dtype=torch.int32)
    owners = torch.full((blocks,), -7, dtype=torch.int32)
    ids = torch.tensor(chosen)
    experts._sort[(EXPERTS,)](ids, order, owners, len(chosen), blocks, EXPERTS, ROWS=rows, BINS=8, SIZE=16)
    taken = owners[owners >= 0].tolist()
    assert taken == sorted(taken) and set(owners[len(taken) :].tolist()) <= {-1}
    for expert in range(EXPERTS):
        own = [at for at, id in enumerate(chosen) if id == expert]
        found = order.view(blocks, rows)[owners == expert].flatten().tolist()
        assert len(found) == -(-len(own) // rows) * rows
        assert found[: len(own)] == own and set(found[len(own) :]) <= {len(chosen)}


def test_rows_that_are_nobodys_are_written_nowhere() -> None:
    """Not behind the parts of all entries either, where somebody else's memory begins."""
    hidden, down, parts = torch.ones(16, 16), torch.ones(1, 16, 16), torch.full((3, 16), 7.0)
    order, owners = torch.tensor([1, 0, *[2] * 14], dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    constants = {"DOT": tl.float32, "ROWS": 16, "COLUMNS": 16, "STEP": 16, "GROUP": 1}
    weights = torch.tensor([0.5, 0.25])
    experts._down[(1,)](
        hidden, down, None, weights, parts, order, owners, 2, 1, 16, 16, *down.stride(), 16, **constants
    )  # fmt: skip
    assert parts[:, 0].tolist() == [8.0, 4.0, 7.0]


def test_blocks_suffice_and_are_not_too_many() -> None:
    assert experts.blocks_of(8, 128, 16) == 8
    assert experts.blocks_of(4096, 8, 64) == 8 + (4096 - 8) // 64
    for entries in range(1, 70):
        most = max(
            sum(-(-part // 16) for part in (entries - rest, *[1] * rest)) for rest in range(min(entries, 3))
        )
        assert experts.blocks_of(entries, 3, 16) >= most


@pytest.mark.slow
def test_many_entries_take_larger_blocks() -> None:
    """Blocks in groups: the same numbers."""
    configs = [experts.select_config(entries, 4) for entries in (8, 200, 4000)]
    assert [(config.rows, config.group) for config in configs] == [(16, 1), (32, 4), (64, 8)]
    assert experts.select_config(4000, 4, 4).rows == 32
    chosen = [[at % 3] for at in range(150)]
    check_experts(experts.experts, chosen, Gate(), False, False, torch.float32)


def test_tiles_of_a_last_group_of_blocks_that_is_smaller_are_all_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "select_config", lambda *given: experts.Config(16, 16, 32, 4))
    for case in (case for case in cases(tiny=True) if case.name in ("more experts than tokens", "wider than a step")):
        found = check(case, experts.experts, reference_experts.experts, CPU, "float32")
        assert found.ok, (case.name, found)


def test_a_wrong_weight_or_expert_would_be_seen() -> None:
    """What the cases are worth."""

    def reweighted(*given: Any) -> Any:
        x, gate_up, down, chosen, weights, *rest = given
        return experts.experts(x, gate_up, down, chosen, weights.flip(1) * 1.05, *rest)

    def astray(*given: Any) -> Any:
        x, gate_up, down, chosen, *rest = given
        return experts.experts(x, gate_up, down, torch.where(chosen < down.shape[0], chosen - 1, chosen), *rest)

    def ungated(*given: Any) -> Any:
        *tensors, gate, first, second = given
        return experts.experts(*tensors, replace(gate, shift=gate.shift + 0.05), first, second)

    for wrong in (reweighted, astray, ungated):
        for case in (case for case in cases(tiny=True) if case.name in ("one token", "experts elsewhere", "gpt-oss")):
            assert not check(case, wrong, reference_experts.experts, CPU, "float32").ok, (wrong.__name__, case.name)


def test_tensors_that_do_not_fit_are_refused() -> None:
    x, gate_up, down = torch.randn(2, 8), torch.randn(3, 12, 8), torch.randn(3, 8, 6)
    chosen, weights = torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1)
    for wrong in (
        (x[:1], gate_up, down, chosen, weights), (x, gate_up[:, :10], down, chosen, weights),
        (x, gate_up, down, chosen, weights[:, :0]), (x.half(), gate_up, down, chosen, weights),
        (x, gate_up, down, chosen, weights, torch.ones(3, 11)),
        (x.t().contiguous().t(), gate_up, down, chosen, weights),
    ):  # fmt: skip
        with pytest.raises(BadArgument):
            experts.experts(*wrong[:5], Gate(), *wrong[5:])


def test_no_tokens_are_no_launch() -> None:
    chosen, weights = torch.zeros(0, 2, dtype=torch.int64), torch.ones(0, 2)
    found = experts.experts(torch.randn(0, 8), torch.randn(3, 12, 8), torch.randn(3, 8, 6), chosen, weights, Gate())
    assert found.shape == (0, 8)


def test_a_model_with_adapters_answers_through_the_kernels_as_by_itself() -> None:
    """Its experts by the library's interface, its adapters by slots on the device."""
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=24, num_local_experts=4, num_experts_per_tok=2, layer_types=["full_attention"],
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    table, ids = OpTable(), torch.arange(3, 9)[None]
    register_reference(table)
    wanted = _answers(model, table, ids)
    for module in (experts, lora):
        module.register(table)
    assert fit_experts(model, table) == 1
    found = _answers(model, table, ids)
    assert not torch.equal(found, wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def _answers(model: Any, table: OpTable, ids: torch.Tensor) -> torch.Tensor:
    """Logits with two adapters, and none, in turn."""
    store = LoraStore(model)
    for number in (1, 2):
        generator = torch.Generator().manual_seed(number)
        a, b = (torch.randn(shape, generator=generator) for shape in ((2, 32), (32, 2)))
        pairs = {f"model.layers.0.self_attn.{name}": LoraPair(a, b) for name in ("q_proj", "o_proj")}
        store.add(str(number), LoraWeights(pairs, "adapter"), table, "adapter")
    store.use_slots(torch.tensor([0, 1, -1, 1, 0, -1], dtype=torch.int32))
    with torch.inference_mode():
        answer: torch.Tensor = model(input_ids=ids).logits
    for number in (1, 2):
        store.drop(str(number))
    return answer
