"""LoRA with fewer passes answers and learns as PEFT's does."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora.layer import Linear
from tuning_runs import llama, lora

from llmos.drivers.tuning.low_rank import LowRank, lighten

IDS = torch.arange(3, 15).view(2, 6)


def both(dtype: torch.dtype = torch.float32, **more: Any) -> tuple[Any, Any]:
    """A model as PEFT makes it, and the same one with fewer passes."""
    made = []
    for light in (False, True):
        adapted = lora(llama().to(dtype), init_lora_weights=False, **more)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if light:
            lighten(adapted)
        made.append(adapted)
    return made[0], made[1]


def learned(module: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(3)
    answer = module(input_ids=IDS, labels=IDS, use_cache=False)
    answer.loss.backward()
    return answer.logits, [each.grad for each in module.parameters() if each.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("more", [{}, {"dropout": 0.5}, {"use_rslora": True}], ids=["plain", "dropout", "rslora"])
def test_answers_and_gradients_are_those_of_peft(dtype: torch.dtype, more: dict[str, Any]) -> None:
    plain, light = both(dtype, **more)
    assert sum(isinstance(part, LowRank) for part in light.modules()) == 4
    bound = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 5e-2, "atol": 5e-2}
    (mine, slopes), (wanted, theirs) = learned(light), learned(plain)
    assert mine.dtype == wanted.dtype and len(slopes) == len(theirs) == 8
    torch.testing.assert_close(mine, wanted, **bound)
    for one, other in zip(slopes, theirs, strict=True):
        torch.testing.assert_close(one, other, **bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_are_kept_once_and_as_they_are(dtype: torch.dtype) -> None:
    """Of PEFT's layers each keeps a copy in float32."""
    for light, module in zip((False, True), both(dtype), strict=True):
        layers = [part for part in module.modules() if isinstance(part, Linear)][:2]
        x, kept = torch.randn(2, 6, 16).to(dtype).requires_grad_(), []

        def pack(tensor: torch.Tensor, into: list[torch.Tensor] = kept) -> torch.Tensor:
            into.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            answers = [layer(x) for layer in layers]
        copies = {each.data_ptr() for each in kept if each.numel() == x.numel() and each.data_ptr() != x.data_ptr()}
        assert len(answers) == 2 and len(copies) == (2 if dtype == torch.bfloat16 and not light else 0)


def test_in_mixed_precision_it_is_peft_s() -> None:
    plain, light = both()
    with torch.autocast("cpu", torch.bfloat16):
        (mine, slopes), (wanted, theirs) = learned(light), learned(plain)
    torch.testing.assert_close(mine, wanted, rtol=5e-2, atol=5e-2)
    for one, other in zip(slopes, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=5e-2, atol=5e-2)


def test_without_its_adapter_it_is_the_base() -> None:
    plain, light = both()
    with light.disable_adapter(), torch.no_grad():
        found = light(input_ids=IDS, use_cache=False).logits
    with plain.disable_adapter(), torch.no_grad():
        assert torch.equal(found, plain(input_ids=IDS, use_cache=False).logits)


def test_what_is_saved_and_merged_is_peft_s() -> None:
    plain, light = both()
    mine, theirs = (peft.get_peft_model_state_dict(each) for each in (light, plain))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    whole = light.merge_and_unload()
    with torch.no_grad():
        wanted = plain(input_ids=IDS, use_cache=False).logits
        torch.testing.assert_close(whole(input_ids=IDS, use_cache=False).logits, wanted)


def test_other_kinds_stay_as_they_are() -> None:
    _, light = both(use_dora=True)
    assert {type(part) for part in light.modules() if isinstance(part, Linear)} == {Linear}
