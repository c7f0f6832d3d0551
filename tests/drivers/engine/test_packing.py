"""Encoders without padding: packed batches answer what lines answer alone; what cannot be packed stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_kinds import SENTENCES, load, ops, text_model
from torch import Tensor

from llmos.drivers.engine import packing
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.tasks.text import TextFront
from llmos.drivers.ops.reference_attention import packed_attention
from llmos.drivers.ops.table import OpTable

TEXTS = (*SENTENCES, "the quick brown fox jumps over the lazy dog " * 8)
DISTIL: dict[str, Any] = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
ALBERT: dict[str, Any] = {"embedding_size": 32}


@pytest.fixture
def bert(tmp_path: Path) -> Bundle:
    return load(text_model(tmp_path, "BertModel"))


@torch.inference_mode()
def settled(bundle: Bundle, table: OpTable | None = None) -> TextFront:
    front = TextFront(bundle)
    front.settle(bundle.module)
    front.pack(bundle.module, table or ops())
    return front


@torch.inference_mode()
def states(front: TextFront, module: Any, ids: list[list[int]]) -> list[Tensor]:
    """The states of each line, all in one batch."""
    lines = [front.line(each) for each in ids]
    answer = front.forward(module, front.collate(lines))[0]
    return [row[: line.length] for row, line in zip(answer, lines, strict=True)]


def ids_of(front: TextFront) -> list[list[int]]:
    return [list(front.encode(text).ids) for text in TEXTS]


@pytest.mark.parametrize(
    ("name", "family", "fields"),
    [
        ("BertModel", "Bert", {}), ("RobertaModel", "Roberta", {"type_vocab_size": 1}),
        ("DistilBertModel", "DistilBert", DISTIL), ("ElectraModel", "Electra", {"embedding_size": 16}),
        ("XLMRobertaModel", "XLMRoberta", {}),
        ("ModernBertModel", "ModernBert", {"layer_types": ["full_attention"] * 2, "cls_token_id": 2}),
    ],
)  # fmt: skip
def test_a_ragged_batch_answers_what_each_line_answers_alone(
    tmp_path: Path, name: str, family: str, fields: dict[str, Any]
) -> None:
    folder = text_model(tmp_path, name, family=family, **fields)
    untouched, bundle = load(folder), load(folder)
    front, plain = settled(bundle), TextFront(untouched)
    assert front.unpacked == ""
    ids = ids_of(front)
    for row, line in zip(states(front, bundle.module, ids), ids, strict=True):
        (alone,) = states(plain, untouched.module, [line])
        assert torch.allclose(row, alone, atol=1e-4 * float(alone.abs().max()))


@pytest.mark.parametrize(
    ("name", "family", "fields", "why"),
    [
        ("LlamaModel", "Llama", {}, "causal"), ("FNetModel", "FNet", {}, "batches are equal"),
        ("AlbertModel", "Albert", ALBERT, "not one for each of its layers"),
        ("ModernBertModel", "ModernBert", {"local_attention": 16, "cls_token_id": 2}, "hides more than padding"),
        ("T5EncoderModel", "T5", {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}, ""),
    ],
)  # fmt: skip
def test_what_cannot_be_packed_says_why_and_stays_as_it_was(
    tmp_path: Path, name: str, family: str, fields: dict[str, Any], why: str
) -> None:
    bundle = load(text_model(tmp_path, name, family=family, **fields))
    before = bundle.module.config._attn_implementation
    front = settled(bundle)
    assert front.unpacked and why in front.unpacked
    assert bundle.module.config._attn_implementation == before
    assert not any(packing.ATTRIBUTE in part.__dict__ for part in bundle.module.modules())
    together, alone = states(front, bundle.module, ids_of(front)[:2]), ids_of(front)[:2]
    if front.batching == "padded":
        for row, line in zip(together, alone, strict=True):
            assert torch.allclose(row, states(front, bundle.module, [line])[0], atol=1e-3)


def moved(by: int) -> Callable[..., Tensor]:
    """Attention with every row's begin but the first in the wrong place."""

    def attend(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float) -> Tensor:
        wrong = starts.clone()
        wrong[1:-1] += by
        return packed_attention(q, k, v, wrong, scale)

    return attend


@pytest.mark.parametrize(("by", "stays"), [(0, True), (1, False), (-1, False)])
def test_a_wrong_boundary_is_noticed_when_the_model_is_loaded(bert: Bundle, by: int, stays: bool) -> None:
    table = ops()
    table.register("packed_attention", "moved", moved(by), lambda spec: (True, ""))
    front = settled(bert, table)
    assert front.unpacked == ("" if stays else "it answers differently")
    assert (bert.module.config._attn_implementation == packing.NAME) is stays
    assert not bert.module.encoder.layer[0]._forward_pre_hooks or stays


def test_layers_see_no_padding(bert: Bundle) -> None:
    front, seen = settled(bert), list[torch.Size]()
    bert.module.encoder.layer[1].intermediate.dense.register_forward_pre_hook(
        lambda module, given: seen.append(given[0].shape)
    )
    ids = ids_of(front)
    states(front, bert.module, ids)
    assert seen == [torch.Size((1, sum(map(len, ids)), 32))]


def test_padding_inside_a_line_is_left_to_the_model(tmp_path: Path, bert: Bundle) -> None:
    """Its place has a state all the same, as it has alone and without packing."""
    untouched, ids = load(text_model(tmp_path / "other", "BertModel")), [[2, 40, 0, 41, 3], [2, 50, 3]]
    front, plain = settled(bert), TextFront(untouched)
    for given in (ids, ids_of(front)[:3], ids):
        for row, wanted in zip(states(front, bert.module, given), states(plain, untouched.module, given), strict=True):
            assert torch.allclose(row, wanted, atol=1e-4 * float(wanted.abs().max()))


@torch.inference_mode()
def test_called_in_another_way_the_model_answers_as_before(tmp_path: Path, bert: Bundle) -> None:
    untouched = load(text_model(tmp_path / "other", "BertModel"))
    settled(bert)
    for more in ({}, {"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}):
        ids = torch.tensor([[2, 40, 3], [2, 41, 42]])
        found, wanted = (each.module(input_ids=ids, **more)[0] for each in (bert, untouched))
        assert torch.allclose(found, wanted, atol=1e-5)
