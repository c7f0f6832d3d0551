"""How products of quantized weights are computed: what is planned fits a device, and what was measured comes first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("triton")

from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.ops.triton import quantized_choice as choices
from llmos.drivers.ops.triton.quantized_choice import WHOLE, Choice, Layer

LAYERS = st.builds(
    lambda outs, blocks, width, group, inputs: Layer(outs, blocks * 16 * width, width, group, inputs),
    st.integers(1, 160_000), st.integers(1, 250), st.sampled_from([4, 8]), st.sampled_from([0, 32, 64, 128]),
    st.sampled_from(["model", "int8"]),
)  # fmt: skip


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    choices.measured.cache_clear()
    choices.choose.cache_clear()


@given(LAYERS, st.sampled_from(choices.BUCKETS))
def test_what_is_tried_is_what_kernels_can_do(layer: Layer, tokens: int) -> None:
    tried = list(choices.candidates(layer, tokens))
    assert tried[0] == choices.planned(layer, tokens) and len(set(tried)) == len(tried)
    assert (WHOLE in tried) == (layer.inputs == "model")
    for choice in tried:
        if choice == WHOLE:
            continue
        assert choice.outs & (choice.outs - 1) == choice.tokens & (choice.tokens - 1) == 0 < choice.outs
        assert 1 <= choice.parts <= max(1, layer.row // 64)
        if choice.way == "gemv":
            assert choice.step % 16 == 0 and tokens <= choice.tokens <= 4
        else:
            inputs = choice.step  # of one half, where numbers have 4 bits
            assert choice.outs >= 16 <= choice.tokens and (not layer.group or layer.group % inputs == 0)
            assert layer.row % choice.step == 0


def test_few_tokens_go_through_kernels_and_many_through_the_library() -> None:
    layer = Layer(14336, 2048, 4, 128)
    every = (1, 2, 16, 17, 64, 65, 512, 5000)
    ways = {tokens: choices.choose(layer, choices.bucket(tokens), "none") for tokens in every}
    assert [ways[tokens].way for tokens in ways] == ["gemv", *["gemm"] * 4, *["whole"] * 3]
    assert (ways[16].tokens, ways[17].tokens, ways[64].tokens) == (16, 32, 64)


def test_whole_numbers_on_both_sides_always_go_through_their_kernel() -> None:
    layer = Layer(14336, 4096, 8, 128, "int8")
    ways = [choices.choose(layer, choices.bucket(tokens), "none") for tokens in (1, 64, 512, 5000)]
    assert [way.way for way in ways] == ["gemm"] * 4 and [way.tokens for way in ways] == [16, 64, 64, 64]
    assert layer.key != Layer(14336, 4096, 8, 128).key


def test_narrow_layers_are_cut_so_that_a_device_is_busy() -> None:
    wide, narrow = Layer(14336, 2048, 4, 128), Layer(1024, 7168, 4, 128)
    assert choices.planned(wide, 16).parts == 1
    cut = choices.planned(narrow, 16)
    assert cut.parts > 1 and 1024 // cut.outs * cut.parts >= 64
    assert choices.planned(Layer(64, 64, 4, 0), 16).parts == 1  # nothing is left to cut


def test_what_was_measured_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, best = Layer(4096, 2048, 4, 128), Choice("gemm", 32, 16, 64, 2, 2, 5)
    many = Choice("gemm", 128, 128, 64, 1, 8, 3)
    table = tmp_path / "choices.json"
    old = {"way": "gemm", "columns": 32}
    found = {"8": choices.told(best), "32": old, "512": choices.told(many)}
    table.write_text(json.dumps({"Some GPU": {layer.key: found}}))
    monkeypatch.setattr(choices, "TABLE", table)
    assert choices.choose(layer, 8, "Some GPU") == best
    assert choices.choose(layer, choices.bucket(500), "Some GPU") == many
    for tokens in (16, 32):  # which nobody measured, or a program whose choices said other things
        assert choices.choose(layer, tokens, "Some GPU") == choices.planned(layer, tokens)
    assert choices.choose(layer, 8, "Another") == choices.planned(layer, 8)
