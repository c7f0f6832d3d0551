"""Adapters come and go beside one module, which answers as if each was merged into its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_folders import TARGETS, Make, base_of, live, merged, save_adapter, weights_of
from slow_cases import slow_but
from tiny_models import PROMPT, config_of, random_module

from llmos.drivers.engine.lora import layout, store
from llmos.drivers.engine.lora.layout import BANK_SLOTS, Group, Layout
from llmos.drivers.engine.lora.store import LoraStore, widths_of
from llmos.drivers.engine.lora.weights import LoraPair, LoraWeights
from llmos.drivers.engine.surgery.operate import operate
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadModel, LlmosError, NotSupported

CLOSE = {"rtol": 1e-3, "atol": 2e-3}
IDS = torch.tensor([PROMPT])


def logits(module: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = module(input_ids=ids).logits
    return answer


class Served:
    """A base with a store, and the folders of its adapters."""

    def __init__(self, base: Any, ops: OpTable, folders: Sequence[Path], fused: bool) -> None:
        self.base, self.folders = base, list(folders)
        self.module = copy.deepcopy(base)
        if fused:
            operate(self.module, ops)
        self.store = LoraStore(self.module)
        for folder in folders:
            self.store.add(folder.name, weights_of(folder), ops, folder.name)

    def alone(self, number: int) -> torch.Tensor:
        self.store.step.set_whole(self.store.slot(self.folders[number].name))
        return logits(self.module)


@pytest.fixture(params=[False, True], ids=["plain", "fused"])
def served(request: pytest.FixtureRequest, ops: OpTable, tmp_path: Path) -> Callable[[str], Served]:
    def make_served(name: str) -> Served:
        base = random_module(config_of(name))
        folders = [
            save_adapter(base, tmp_path / "one", 1, 0.05, **TARGETS[name]),
            save_adapter(base, tmp_path / "two", 2, 0.05, **{**TARGETS[name], "r": 3, "use_rslora": True}),
            save_adapter(base, tmp_path / "three", 3, 0.05, **{**TARGETS[name], "layers_to_transform": [1]}),
        ]
        return Served(base, ops, folders, bool(request.param))

    return make_served


@pytest.mark.parametrize("name", slow_but(["llama", "qwen3_next"], sorted(TARGETS)))
def test_live_adapters_answer_as_merged_ones_and_as_peft(served: Callable[[str], Served], name: str) -> None:
    here = served(name)
    plain = logits(here.base)
    for number, folder in enumerate(here.folders):
        answer = here.alone(number)
        torch.testing.assert_close(answer, logits(merged(here.base, folder)), **CLOSE)
        torch.testing.assert_close(answer, logits(live(here.base, folder)), **CLOSE)
        assert (answer - plain).abs().max() > 20 * CLOSE["atol"]
    here.store.step.clear()
    torch.testing.assert_close(logits(here.module), plain, **CLOSE)


def test_tokens_of_several_adapters_go_through_one_step(served: Callable[[str], Served]) -> None:
    """The products of a layer, token by token: base, then three adapters in their slots' order."""
    here = served("llama")
    path = "model.layers.1.mlp.down_proj"
    x = torch.randn(1, 12, 128)
    groups = sorted(
        (Group(here.store.slot(folder.name), 0, 0) for folder in here.folders), key=lambda group: group.slot
    )
    parts = [group._replace(start=3 * at + 3, end=3 * at + 6) for at, group in enumerate(groups)]
    here.store.step.set_layouts(Layout(12, tuple(parts)), Layout(0))
    with torch.inference_mode():
        together = here.module.get_submodule(path)(x)
        torch.testing.assert_close(together[:, :3], here.base.get_submodule(path)(x)[:, :3], **CLOSE)
        by_slot = {here.store.slot(folder.name): folder for folder in here.folders}
        for slot, start, end in parts:
            wanted = merged(here.base, by_slot[slot]).get_submodule(path)(x)
            torch.testing.assert_close(together[:, start:end], wanted[:, start:end], **CLOSE)


def test_slots_of_tokens_answer_as_groups_do(served: Callable[[str], Served]) -> None:
    """Rows of adapters of two ranks, and of the base, in any order."""
    here = served("llama")
    slots = [here.store.slot(folder.name) for folder in here.folders]
    ids = torch.tensor([slots[at % 3] if at % 4 else layout.BASE for at in range(len(PROMPT))], dtype=torch.int32)
    path, x = "model.layers.1.mlp.gate_proj", torch.randn(1, len(PROMPT), 64)
    with torch.inference_mode():
        here.store.use_slots(ids)
        epoch = here.store.variant
        together = here.module.get_submodule(path)(x)
        for at, slot in enumerate(ids.tolist()):
            if slot == layout.BASE:
                here.store.step.clear()
            else:
                here.store.step.set_whole(slot)
            alone = here.module.get_submodule(path)(x)
            torch.testing.assert_close(together[:, at], alone[:, at], **CLOSE)
        here.store.use_slots(ids.flip(0))
        assert here.store.variant == epoch
        here.store.drop(here.folders[0].name)
        here.store.use_slots(ids)
        assert here.store.variant.epoch != epoch.epoch


def test_a_forgotten_scale_or_a_wrong_range_would_be_seen(
    served: Callable[[str], Served], ops: OpTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = served("llama")
    wanted = logits(merged(here.base, here.folders[0]))
    weights = weights_of(here.folders[0])
    unscaled = {path: LoraPair(pair.a, pair.b) for path, pair in weights.pairs.items()}
    here.store.add("unscaled", replace(weights, pairs=unscaled), ops, "unscaled")
    here.store.step.set_whole(here.store.slot("unscaled"))
    assert (logits(here.module) - wanted).abs().max() > 20 * CLOSE["atol"]
    slot, count = here.store.slot("one"), len(PROMPT)
    here.store.step.set_layouts(Layout(count, (Group(slot, 0, count),)), Layout(0))
    torch.testing.assert_close(logits(here.module), wanted, **CLOSE)
    here.store.step.set_layouts(Layout(count, (Group(slot, 1, count),)), Layout(0))
    assert (logits(here.module) - wanted).abs().max() > 20 * CLOSE["atol"]


def paths(module: Any) -> dict[str, type]:
    return {path: type(part) for path, part in module.named_modules()}


def test_the_last_adapter_leaves_no_trace(served: Callable[[str], Served]) -> None:
    here = served("llama")
    for folder in here.folders:
        assert here.store.bytes(folder.name) > 0
        here.store.drop(folder.name)
    fresh = copy.deepcopy(here.base)
    if any("packed" in path for path in paths(here.module)):
        assert not any("base" in path.split(".") for path in paths(here.module))
    else:
        assert paths(here.module) == paths(fresh)
    assert here.store.spare_bytes() == 0
    torch.testing.assert_close(logits(here.module), logits(here.base), **CLOSE)


def test_others_are_as_they_were_when_one_leaves_and_its_slot_is_used_again(
    served: Callable[[str], Served], ops: OpTable
) -> None:
    here = served("llama")
    before = [here.alone(number) for number in (0, 2)]
    slot = here.store.slot("two")
    here.store.drop("two")
    for number, answer in zip((0, 2), before, strict=True):
        torch.testing.assert_close(here.alone(number), answer)
    here.store.add("again", weights_of(here.folders[1]), ops, "again")
    assert here.store.slot("again") == slot
    with pytest.raises(KeyError):
        here.store.slot("two")


@pytest.fixture
def alone(llama: Path) -> LoraStore:
    return LoraStore(base_of(llama))


def test_a_bank_has_one_rank_and_a_slot_for_each(alone: LoraStore, make: Make, ops: OpTable) -> None:
    four, eight = weights_of(make("four", r=3)), weights_of(make("eight", r=8))
    for at in range(BANK_SLOTS + 1):
        alone.add(f"four{at}", four, ops, "four")
    alone.add("eight", eight, ops, "eight")
    slots = [alone.slot(f"four{at}") for at in range(BANK_SLOTS + 1)]
    assert slots == [*range(BANK_SLOTS), BANK_SLOTS] and alone.slot("eight") == 2 * BANK_SLOTS
    for at in range(BANK_SLOTS):
        alone.drop(f"four{at}")
    alone.add("eight2", eight, ops, "eight")
    assert alone.slot("eight2") == 2 * BANK_SLOTS + 1
    alone.add("sixteen", weights_of(make("sixteen", r=16)), ops, "sixteen")
    assert alone.slot("sixteen") == 0


def test_every_byte_of_the_stacks_is_somebodys(alone: LoraStore, make: Make, ops: OpTable) -> None:
    weights = weights_of(make(r=3))
    exact = weights.elements * 4
    alone.add("a", weights, ops, "a")
    assert (alone.bytes("a"), alone.spare_bytes()) == (exact, exact // 3)  # rank 3 in a bank of rank 4
    alone.add("b", weights, ops, "b")
    alone.drop("a")
    assert (alone.bytes("b"), alone.spare_bytes()) == (exact, exact // 3 + exact * 4 // 3)
    alone.retire("b")
    assert alone.spare_bytes() == 2 * exact * 4 // 3
    alone.drop("b")
    assert alone.spare_bytes() == 0


def test_what_an_adapter_is_can_be_taken_and_put_back(served: Callable[[str], Served], ops: OpTable) -> None:
    here = served("llama")
    before, taken = here.alone(1), here.store.weights("two")
    here.store.drop("two")
    here.store.add("two", taken, ops, "two")
    torch.testing.assert_close(here.alone(1), before)


def test_a_head_and_paths_of_the_bare_model_are_found(llama: Path, tmp_path: Path, ops: OpTable) -> None:
    base = base_of(llama)
    folder = save_adapter(base, tmp_path / "a", target_modules=["lm_head", "q_proj"])
    weights = weights_of(folder)
    bare = {path.removeprefix("model."): pair for path, pair in weights.pairs.items()}
    here = LoraStore(copy.deepcopy(base))
    here.add("bare", replace(weights, pairs=bare), ops, "bare")
    here.step.set_whole(here.slot("bare"))
    torch.testing.assert_close(logits(here._module), logits(merged(base, folder)), **CLOSE)


def test_a_base_in_half_precision_has_its_adapters_in_it(llama: Path, make: Make, ops: OpTable) -> None:
    folder = make(spread=0.05)
    here = LoraStore(base_of(llama).bfloat16())
    here.add("a", weights_of(folder), ops, "a")
    assert here.bytes("a") == weights_of(folder).elements * 2
    here.step.set_whole(here.slot("a"))
    answer, wanted = logits(here._module).float(), logits(merged(base_of(llama), folder))
    assert (answer - wanted).abs().mean() < 0.05 * wanted.abs().mean()


def changed(weights: LoraWeights, path: str, **pairs: torch.Tensor) -> LoraWeights:
    return replace(weights, pairs={**weights.pairs, path: replace(weights.pairs[path], **pairs)})


def test_what_does_not_fit_is_named_and_changes_nothing(alone: LoraStore, make: Make, ops: OpTable) -> None:
    weights, before = weights_of(make()), paths(alone._module)
    path = "model.layers.0.self_attn.q_proj"
    a, b = weights.pairs[path].a, weights.pairs[path].b
    without = {key: pair for key, pair in weights.pairs.items() if key != path}
    cases: list[tuple[LoraWeights, type[LlmosError], str]] = [
        (changed(weights, path, a=a[:, :-1]), BadModel, f"lora_A of {path} has the shape"),
        (changed(weights, path, b=b[:-1]), BadModel, f"lora_B of {path} has the shape"),
        (changed(weights, path, b=b * torch.inf), BadModel, f"lora_B of {path} has values that are not finite"),
        (replace(weights, pairs={**weights.pairs, "model.x": weights.pairs[path]}), BadModel, "no layer model.x"),
        (replace(weights, pairs=without), BadModel, f"lora_A and lora_B of {path} are missing"),
        (replace(weights, pairs={**weights.pairs, "model.norm": weights.pairs[path]}), NotSupported, "LlamaRMSNorm"),
        (replace(weights, pairs={**weights.pairs, path[6:]: weights.pairs[path]}), BadModel, "twice"),
        (replace(weights, copies={"lm_head": torch.zeros(320, 64)}), NotSupported, "whole weight of lm_head"),
    ]
    for given, error, said in cases:
        with pytest.raises(error, match=said.replace(".", r"\.")):
            alone.add("a", given, ops, "a")
        assert paths(alone._module) == before and alone.spare_bytes() == 0
    same = alone._module.lm_head.weight.detach().clone()
    alone.add("a", replace(weights, copies={"lm_head": same}), ops, "a")


def test_widths_are_those_of_linear_layers_of_any_kind(llama: Path) -> None:
    module, other = base_of(llama), random_module(config_of("gpt2"))
    assert widths_of(module.model.layers[0].mlp.down_proj) == (128, 64)
    assert widths_of(other.transformer.h[0].attn.c_attn) == (64, 192)
    assert widths_of(module.model.norm) is None and widths_of(module.model.embed_tokens) is None
    assert (store.BANK_SLOTS, layout.BASE) == (8, -1)
