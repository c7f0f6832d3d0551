"""Models divided by their own plans answer as whole ones, whatever the family, and what cannot be divided says why."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import transformers
from llmos.drivers.engine.memory import tensors_of
from llmos.drivers.engine.parallel.split import divide
from llmos.drivers.engine.parallel.team import Planned
from llmos.syscalls.errors import NotSupported
from rank_threads import ThreadTeam, together
from tiny_models import PROMPT, config_of, random_module

FAMILIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("llama", {}),
    ("llama", {"num_key_value_heads": 1, "attention_bias": True}),
    ("llama", {"tie_word_embeddings": True, "mlp_bias": True}),
    ("qwen2", {}),
    ("qwen3", {}),
    ("gemma2", {}),
    ("gemma3_text", {}),
    ("mixtral", {}),
    ("phi3", {}),
    ("olmo2", {}),
    ("deepseek_v3", {}),
    ("cohere", {}),
    ("starcoder2", {}),
)


def logits_of(module: Any) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = module(input_ids=torch.tensor([PROMPT]), use_cache=False).logits
    return answer


@pytest.mark.parametrize(("name", "changes"), FAMILIES)
def test_a_divided_model_answers_as_the_whole_one(name: str, changes: dict[str, Any]) -> None:
    module = random_module(config_of(name, **changes))
    wanted = logits_of(module)

    def work(team: ThreadTeam) -> torch.Tensor:
        mine = copy.deepcopy(module)
        divide(mine, team, name)
        return logits_of(mine)

    for found in together(2, work):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_four_ranks_share_two_heads_of_keys() -> None:
    module = random_module(config_of("llama"))
    wanted = logits_of(module)

    def work(team: ThreadTeam) -> tuple[torch.Tensor, int]:
        mine = copy.deepcopy(module)
        divide(mine, team, "m")
        return logits_of(mine), mine.model.layers[0].self_attn.k_proj.out_features

    for found, width in together(4, work):
        assert width == 16
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_a_share_is_about_so_much_of_the_whole_and_copies_nothing() -> None:
    module = random_module(config_of("llama"))
    whole = {part.untyped_storage().data_ptr() for part in tensors_of(module)}
    embeddings = module.get_input_embeddings().weight.numel()
    before = sum(part.numel() for part in module.parameters()) - embeddings
    divide(module, Planned(2), "m")
    after = sum(part.numel() for part in module.parameters()) - embeddings
    assert math.isclose(after, before / 2, rel_tol=0.01)
    assert {part.untyped_storage().data_ptr() for part in tensors_of(module)} <= whole


@pytest.mark.parametrize(
    ("name", "changes", "ranks", "why"),
    [
        ("gpt2", {}, 2, "no tensor-parallel plan"),
        ("llama", {}, 3, "4 attention heads over 2 of keys and values"),
        ("llama", {"intermediate_size": 129}, 2, "the 129 columns of"),
    ],
)
def test_what_cannot_be_divided_says_why(name: str, changes: dict[str, Any], ranks: int, why: str) -> None:
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config_of(name, **changes))
    with pytest.raises(NotSupported, match=why):
        divide(module, Planned(ranks), "m")
