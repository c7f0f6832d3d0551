"""Layers of quantized weights as they are loaded: they answer as the weights that their numbers mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llmos.drivers.engine.quantized.stored import StoredEmbedding, StoredLinear, empty
from llmos.drivers.ops.quantized import Scheme, round_to_nearest
from llmos.drivers.ops.quantized_linear import rounded_inputs

SCHEME = Scheme(4, 32, shift=True)


@pytest.fixture
def layer() -> StoredLinear:
    torch.manual_seed(0)
    plain = nn.Linear(70, 24)
    return StoredLinear(round_to_nearest(plain.weight.detach(), SCHEME), plain.bias, torch.float32)


def test_it_answers_as_its_dequantized_weights(layer: StoredLinear) -> None:
    x = torch.randn(2, 3, 70)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    layer.activations = "int8"
    rounded = rounded_inputs(x, SCHEME.group, "int8")
    torch.testing.assert_close(layer(x), nn.functional.linear(rounded, layer.weight, layer.bias))


def test_it_is_stored_by_the_names_of_its_parts(layer: StoredLinear) -> None:
    assert set(layer.state_dict()) == {"numbers", "scale", "shift", "bias"}
    other = empty(SCHEME, nn.Linear(70, 24, device="meta"), torch.float16)
    assert {name: part.shape for name, part in other.state_dict().items()} == {
        name: part.shape for name, part in layer.state_dict().items()
    }
    assert all(part.is_meta for part in other.state_dict().values())


def test_on_the_meta_device_it_answers_with_shapes() -> None:
    layer = empty(SCHEME, nn.Linear(70, 24, device="meta", dtype=torch.bfloat16), torch.float16)
    found = layer(torch.empty(2, 70, device="meta", dtype=torch.bfloat16))
    assert found.is_meta and found.shape == (2, 24) and found.dtype == torch.bfloat16
    embedding = StoredEmbedding(layer, nn.Embedding(24, 70, device="meta"))
    assert embedding(torch.zeros(3, 2, dtype=torch.long, device="meta")).shape == (3, 2, 70)


def test_an_embedding_reads_the_rows_of_its_head(layer: StoredLinear) -> None:
    embedding = StoredEmbedding(layer, nn.Embedding(24, 70))
    ids = torch.tensor([[3, 0], [23, 3]])
    assert torch.equal(embedding(ids), layer.weight[ids]) and torch.equal(embedding.weight, layer.weight)
    embedding.embed_scale = 8.0
    assert torch.equal(embedding(ids), layer.weight[ids] * 8)
    assert list(embedding.parameters()) == [] and list(embedding.buffers()) == []
