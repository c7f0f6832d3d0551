"""Each example of a row by itself is what a mask over the whole row says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from tuning_runs import llama

from llmos.drivers.tuning.attention import NAME, attention
from llmos.drivers.tuning.data.packing import mask_of, positions_of

DOCUMENTS = torch.tensor([[0] * 5 + [1] * 1 + [2] * 6, [0] * 8 + [-1] * 4])


def given(rows: int = 2, tokens: int = 12, heads: int = 4, groups: int = 2) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(rows, many, tokens, 8, requires_grad=True) for many in (heads, groups, groups)]


MODULE = cast(nn.Module, SimpleNamespace(num_key_value_groups=2, is_causal=True))


def reference(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True).transpose(1, 2)


def calls_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each call of torch's attention."""
    seen: list[int] = []
    plain = functional.scaled_dot_product_attention

    def counted(query: Tensor, *args: Any, **more: Any) -> Tensor:
        seen.append(query.shape[2])
        return plain(query, *args, **more)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    return seen


def test_answers_and_gradients_are_those_under_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, mask = given(), mask_of(DOCUMENTS)
    wanted = reference(*parts, mask)
    seen = calls_of(monkeypatch)
    found, nothing = attention(MODULE, *parts, mask)  # type: ignore[arg-type]
    assert nothing is None and seen == [5, 1, 6, 8, 4]
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(each.square().sum(), parts) for each in (found, wanted)]
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, theirs)


def windowed(documents: Tensor, width: int) -> Tensor:
    ones = torch.ones(documents.shape[1], documents.shape[1], dtype=torch.bool)
    return mask_of(documents) & ~ones.tril(-width)


@pytest.mark.parametrize(
    "mask",
    [
        mask_of(torch.zeros(2, 12, dtype=torch.long)), mask_of(DOCUMENTS, causal=False), windowed(DOCUMENTS, 3),
        mask_of(DOCUMENTS) | (torch.arange(12) == 0), mask_of(DOCUMENTS).float().log(),
    ],
    ids=["one example", "both ways", "a window", "the first token for all", "numbers"],
)  # fmt: skip
def test_other_masks_are_taken_as_they_are(mask: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = given()
    wanted, seen = reference(*parts, mask), calls_of(monkeypatch)
    torch.testing.assert_close(attention(MODULE, *parts, mask)[0], wanted)  # type: ignore[arg-type]
    assert seen == [12]


def test_dropout_is_drawn_for_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls_of(monkeypatch)
    attention(MODULE, *given(), mask_of(DOCUMENTS), dropout=0.5)  # type: ignore[arg-type]
    assert seen == [12]


def test_the_library_calls_it_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    ids = torch.arange(3, 15)[None].repeat(2, 1)
    wanted = model(input_ids=ids, position_ids=positions_of(DOCUMENTS), use_cache=False).logits
    model.set_attn_implementation(NAME)
    seen = calls_of(monkeypatch)
    found = model(input_ids=ids, position_ids=positions_of(DOCUMENTS), use_cache=False).logits
    torch.testing.assert_close(found, wanted)
    assert seen == [5, 1, 6, 8, 4] * 2, "in both layers"
