"""What an adapter's tensors and settings mean is what peft takes them to mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lora_folders import base_of, config_of, live, save_adapter, tensors_of, weights_of

from llmos.drivers.engine.lora.weights import VARIANTS, check_config, interpret, scale_of
from llmos.syscalls.errors import BadModel, LlmosError, NotSupported

PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
A, B = torch.ones(2, 6), torch.ones(8, 2)


@pytest.mark.parametrize("rslora", (False, True))
def test_ranks_and_scales_are_those_of_peft(llama: Path, tmp_path: Path, rslora: bool) -> None:
    base = base_of(llama)
    folder = save_adapter(
        base, tmp_path / "a", r=8, lora_alpha=12, use_rslora=rslora, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"layers.0.self_attn.q_proj": 2, "down_proj": 5}, alpha_pattern={r".*\.1\..*v_proj": 3},
    )  # fmt: skip
    mine = weights_of(folder).pairs
    theirs = {
        path.removeprefix("base_model.model."): module
        for path, module in live(base, folder).named_modules()
        if hasattr(module, "lora_A")
    }
    assert set(mine) == set(theirs) and len(mine) == 6
    for path, module in theirs.items():
        assert mine[path].scale == pytest.approx(module.scaling["default"])
        assert torch.equal(mine[path].a, module.lora_A["default"].weight)
        assert torch.equal(mine[path].b, module.lora_B["default"].weight)
    assert {pair.a.shape[0] for pair in mine.values()} == {2, 5, 8}


def keys(target: str, wrapper: str = "base_model.model.", name: str = "") -> dict[str, torch.Tensor]:
    return {f"{wrapper}{target}.lora_A{name}.weight": A, f"{wrapper}{target}.lora_B{name}.weight": B}


@pytest.mark.parametrize(("wrapper", "name"), [("", ""), ("base_model.model.", ""), ("base_model.model.", ".default")])
def test_names_may_be_wrapped_and_may_name_the_adapter(wrapper: str, name: str) -> None:
    found = interpret(keys("model.x.q", wrapper, name), PLAIN, "a", "f")
    assert list(found.pairs) == ["model.x.q"]
    assert (found.pairs["model.x.q"].scale, found.elements, found.bytes) == (2.0, 28, 112)


def test_whole_weights_beside_it_are_kept_for_a_comparison() -> None:
    tied = {"base_model.model.lm_head.base_layer.weight": A, "base_model.model.embed.weight": B}
    found = interpret({**keys("q"), **tied}, PLAIN, "a", "f")
    assert set(found.copies) == {"lm_head", "embed"}


@pytest.mark.parametrize("key", sorted(VARIANTS))
def test_each_kind_that_is_more_than_a_sum_is_refused_with_why(key: str) -> None:
    with pytest.raises(NotSupported) as error:
        check_config({**PLAIN, key: [1]}, "a")
    assert error.value.why == VARIANTS[key] and str(error.value).startswith("a: ")
    check_config({**PLAIN, key: None}, "a")


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"peft_type": "IA3"}, "IA3"), ({"init_lora_weights": "pissa_niter_4"}, "pissa_nit"), ({"bias": "all"}, "bias")],
)  # fmt: skip
def test_other_kinds_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(NotSupported, match=why):
        check_config({**PLAIN, **changes}, "a")


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 0}, {"r": "8"}, {"r": 2.5}, {"lora_alpha": None}, {"lora_alpha": float("nan")}, {"rank_pattern": [1]},
        {"alpha_pattern": {"(": 3}},
    ],
)  # fmt: skip
def test_settings_of_a_wrong_kind_are_told(changes: dict[str, Any]) -> None:
    with pytest.raises(BadModel) as error:
        scale_of("x", {**PLAIN, **changes}, "a")
    assert error.value.file == "adapter_config.json"


@pytest.mark.parametrize(
    ("tensors", "error", "said"),
    [
        ({}, BadModel, "holds no adapter"),
        ({"x.lora_A.weight": A}, BadModel, "lora_B of x is missing"),
        ({"x.lora_B.weight": B}, BadModel, "lora_A of x is missing"),
        ({"x.lora_A.weight": A[:1], "x.lora_B.weight": B}, BadModel, "lora_A of x has the shape"),
        ({"x.lora_A.weight": A, "x.lora_B.weight": B[None]}, BadModel, "lora_B of x has the shape"),
        ({**keys("x"), "e.lora_embedding_A": A}, NotSupported, "e.lora_embedding_A"),
        ({**keys("x"), "x.lora_magnitude_vector": A}, NotSupported, "lora_magnitude_vector"),
        ({**keys("x"), "x.bias": A}, NotSupported, "x.bias"),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_named(tensors: dict[str, torch.Tensor], error: type[LlmosError], said: str) -> None:
    with pytest.raises(error, match=said):
        interpret(tensors, PLAIN, "a", "f")


def test_targets_are_known_to_be_complete_only_when_nothing_narrows_them(llama: Path, tmp_path: Path) -> None:
    folder = save_adapter(base_of(llama), tmp_path / "a")
    config, tensors = config_of(folder), tensors_of(folder)
    assert set(interpret(tensors, config, "a", "f").complete) == {"q_proj", "v_proj"}
    for changes in ({"layers_to_transform": [0]}, {"exclude_modules": ["k"]}, {"target_modules": ".*q_proj"}):
        assert interpret(tensors, {**config, **changes}, "a", "f").complete == ()
