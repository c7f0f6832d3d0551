"""What taking out layers and heads does to names, tensors and configurations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmos.drivers.transform import structure
from llmos.drivers.transform.structure import Heads
from llmos.syscalls.errors import BadArgument, NotSupported

SHAPES = {f"model.layers.{n}.self_attn.{part}_proj.weight": (8 if part in "qo" else 4, 8) for n in (0, 1)
          for part in "qkvo"}  # fmt: skip
CONFIG: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 8}


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("model.layers.2.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"),
        ("model.layers.1.mlp.up_proj.weight", None), ("model.norm.weight", "model.norm.weight"),
        ("h.2.attn.c_attn.bias", "h.1.attn.c_attn.bias"),
        ("encoder.layer.0.x.layer.1.weight", "encoder.layer.0.x.layer.1.weight"),
    ],
)  # fmt: skip
def test_layers_behind_move_up(name: str, new: str | None) -> None:
    assert structure.moved(name, [0, 2]) == new


def test_layers_are_known_by_their_paths() -> None:
    assert structure.layer_of("model.layers.12.mlp.up_proj.weight") == 12
    assert structure.layer_of("lm_head.weight") is None
    assert structure.is_layer("model.layers.3") and structure.is_layer("transformer.h.0")
    assert not structure.is_layer("model.layers.3.mlp") and not structure.is_layer("model.layers")


def test_the_configuration_follows() -> None:
    config = {"num_hidden_layers": 3, "layer_types": ["a", "b", "c"], "eos_token_id": [1, 2, 3, 4], "hidden_size": 8}
    assert structure.with_layers(config, [0, 2], "m") == {
        **config, "num_hidden_layers": 2, "layer_types": ["a", "c"]
    }  # fmt: skip
    nested = {"model_type": "x", "text_config": {"num_hidden_layers": 3}, "vision_config": {"num_hidden_layers": 3}}
    assert structure.with_layers(nested, [1], "m") == {
        "model_type": "x", "text_config": {"num_hidden_layers": 1}, "vision_config": {"num_hidden_layers": 3}
    }  # fmt: skip
    with pytest.raises(NotSupported, match="num_hidden_layers"):
        structure.with_layers({"hidden_size": 8}, [0], "m")


def test_layers_that_are_none_and_all_of_them_cannot_go() -> None:
    assert structure.left(4, [1, 3, 3], "m") == [0, 2]
    for gone in ([4], [-1], [0, 1, 2, 3]):
        with pytest.raises(BadArgument, match="from 0 to 3, and not all"):
            structure.left(4, gone, "m")


def test_heads_are_read_from_shapes_and_configuration() -> None:
    assert structure.heads_of(CONFIG, SHAPES, "m") == Heads(2, 2, 2)
    without = {name: shape for name, shape in SHAPES.items() if "v_proj" not in name}
    odd = {**SHAPES, "model.layers.1.self_attn.q_proj.weight": (16, 8)}
    narrow = {**SHAPES, "model.layers.1.self_attn.k_proj.weight": (2, 8)}
    for config, shapes, said in (
        (CONFIG, without, "no v_proj"), (CONFIG, odd, "different sizes"), (CONFIG, narrow, "4|2 rows"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, SHAPES, "3 heads and 2"), ({}, SHAPES, "None heads"),
    ):  # fmt: skip
        with pytest.raises(NotSupported, match=said):
            structure.heads_of(config, shapes, "m")


def test_tensors_lose_the_rows_of_their_heads() -> None:
    heads = Heads(groups=3, each=2, depth=2)
    queries, values = torch.arange(12.0)[:, None], torch.arange(6.0)[:, None]

    def cut(part: str, tensor: torch.Tensor, kind: str = "weight") -> list[Any]:
        name = f"l.layers.0.self_attn.{part}.{kind}"
        found: list[Any] = structure.without_groups(name, tensor, [0, 2], heads).tolist()
        return found

    assert cut("q_proj", queries) == [[0], [1], [2], [3], [8], [9], [10], [11]]
    assert cut("v_proj", values) == cut("k_proj", values) == [[0], [1], [4], [5]]
    assert cut("o_proj", queries.T) == [[0, 1, 2, 3, 8, 9, 10, 11]]
    assert cut("k_proj", values[:, 0], "bias") == [0, 1, 4, 5]
    assert cut("o_proj", queries[:, 0], "bias") == queries[:, 0].tolist()
    assert cut("q_norm", values[:2]) == [[0], [1]]
