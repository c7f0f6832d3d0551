"""Which rung serves a model, and the reasons that are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from tiny_models import PROMPT, ask, build, choice, silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import attention, ladder, loader
from llmos.drivers.engine.attention import Refused
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.gathered import Gathering
from llmos.drivers.engine.shared import SharedModule
from llmos.drivers.engine.verify import Trial
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import NotSupported

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SLIDING: dict[str, Any] = {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}


def module(kind: str, **changed: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, **SIZES | changed)
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    made.set_attn_implementation(attention.NAME)
    return made


def test_a_decoder_is_served_on_pages_and_an_encoder_in_one_pass(ops: OpTable, llama: Path, bert: Path) -> None:
    engine = Engine(ops)
    one = engine.load("a", source_of(llama), LoadSettings(), silent)
    two = engine.load("b", source_of(bert), LoadSettings(), silent)
    assert (one.rung, list(one.rung_reasons), one.slots) == ("P", [], ladder.ROWS)
    assert two.rung == "F" and two.rung_reasons


def test_another_rung_can_be_asked_for_where_it_serves(ops: OpTable, llama: Path) -> None:
    engine = Engine(ops)
    loaded = engine.load("a", source_of(llama), LoadSettings(rung="G"), silent)
    assert (loaded.rung, list(loaded.rung_reasons)) == ("G", ["P: another rung was asked for"])
    for rung in ("H", "S", "F"):
        with pytest.raises(NotSupported, match=f"rung {rung}"):
            engine.load("b", source_of(llama), LoadSettings(rung=rung), silent)


def test_a_recurrent_model_keeps_states_beside_pages_with_the_reason(ops: OpTable, tmp_path: Path) -> None:
    engine = Engine(ops)
    folder = build(tmp_path / "m", "mamba")
    loaded = engine.load("a", source_of(folder), LoadSettings(), silent)
    assert (loaded.rung, list(loaded.rung_reasons)) == ("H", ["P: it keeps a recurrent state"])
    assert loaded.slots == ladder.ROWS
    assert engine.load("g", source_of(folder), LoadSettings(rung="G"), silent).rung == "G"
    with pytest.raises(NotSupported, match="recurrent"):
        engine.load("b", source_of(folder), LoadSettings(rung="P"), silent)


def test_a_model_with_states_of_its_own_is_served_below_with_the_reasons(ops: OpTable, tmp_path: Path) -> None:
    engine = Engine(ops)
    folder = build(tmp_path / "m", "rwkv")
    loaded = engine.load("a", source_of(folder), LoadSettings(), silent)
    assert loaded.rung == "G" and "keeps no state" in loaded.rung_reasons[1]
    for rung, why in (("P", "recurrent"), ("H", "keeps no state"), ("S", "no slots")):
        with pytest.raises(NotSupported, match=why):
            engine.load("b", source_of(folder), LoadSettings(rung=rung), silent)


def test_a_model_that_falls_from_pages_when_they_are_tried_takes_no_bytes_of_them(
    ops: OpTable, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan sees no weights: that answers on pages are others than the library's shows only in the trial."""

    def others(*_: Any) -> Any:
        raise Refused("answers on pages are not those of the library")

    monkeypatch.setattr(Trial, "fit_pages", others)
    asked, fallen = (Engine(ops), LoadSettings(rung="G")), (Engine(ops), LoadSettings())
    one, two = (engine.load("a", source_of(llama), settings, silent) for engine, settings in (asked, fallen))
    assert (one.rung, two.rung) == ("G", "G") and list(two.rows) == list(one.rows)
    paged = Engine(ops).plan(source_of(llama), LoadSettings())
    assert {row.what: row.predicted for row in paged}["kv"] > {row.what: row.predicted for row in two.rows}["kv"] > 0
    for engine, _ in (asked, fallen):
        engine.open_context("c", "a", "", 16)
    own, also = ([row for row in engine.memory() if row.owner == "c"] for engine, _ in (asked, fallen))
    assert own == also and own[0].predicted > 0, "conversations have states of their own then"


def test_layers_are_found_with_what_they_ask_for() -> None:
    found = ladder.paged_layers(module("gemma2", sliding_window=9, head_dim=8), 100)
    assert [meaning.reach.window for meaning in found.meanings] == [9, 0]
    assert all(meaning.softcap for meaning in found.meanings)


@pytest.mark.parametrize(
    ("kind", "changed", "why"),
    [
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rotary"),
        ("openai-gpt", {}, "keeps no state"),
    ],
)
def test_what_pages_do_not_serve_is_refused(kind: str, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        ladder.paged_layers(module(kind, **changed), 100)


def test_a_window_as_wide_as_the_context_is_none() -> None:
    moe = module("qwen2_moe", sliding_window=100, **SLIDING)
    found = ladder.paged_layers(moe, 100)
    assert [meaning.reach.window for meaning in found.meanings] == [0, 0]


def test_what_is_kept_is_told_for_each_way_through_pages() -> None:
    assert len(ladder.paged_layers(module("llama"), 100).shapes) == 2
    assert len(ladder.paged_layers(module("gptj", n_embd=32, n_head=4, n_layer=2, rotary_dim=4), 100).shapes) == 4
    mamba = ladder.paged_layers(module("mamba"), 100)
    assert isinstance(mamba, Gathering) and mamba.states and not mamba.shapes


def test_chunks_that_are_no_whole_pages_are_gathered() -> None:
    changed = {"intermediate_size_mlp": 32, "head_dim": 8, "num_local_experts": 2}
    whole = ladder.paged_layers(module("llama4_text", attention_chunk_size=32, **changed), 100)
    assert {meaning.reach.chunk for meaning in whole.meanings} == {32}
    assert isinstance(ladder.paged_layers(module("llama4_text", attention_chunk_size=12, **changed), 100), Gathering)


def test_attention_of_a_models_own_is_served_on_pages_with_the_reason(ops: OpTable, tmp_path: Path) -> None:
    engine = Engine(ops)
    loaded = engine.load("a", source_of(build(tmp_path / "m", "gptj")), LoadSettings(), silent)
    assert loaded.rung == "P" and loaded.rung_reasons[0].startswith("P: keys and values are gathered")


@pytest.mark.parametrize("kind", ["qwen2_moe", "phimoe"])
def test_a_window_that_only_a_mask_says_is_measured(kind: str) -> None:
    found = ladder.paged_layers(module(kind, sliding_window=70, **SLIDING), 100)
    assert all(found.found.measured) and found.meanings[0].reach.window == 70


def test_bounds_of_a_step_follow_the_size_of_parts() -> None:
    wide, narrow = ladder.limits(512), ladder.limits(2)
    assert (wide.chunk, wide.tokens, wide.rows) == (512, 512 + ladder.ROWS, ladder.ROWS)
    assert (narrow.chunk, narrow.least) == (2, 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "padded"), [("gptj", True), ("bloom", True), ("mamba2", True), ("mamba", False)])
def test_rows_are_padded_to_a_batch_only_where_that_is_right(
    ops: OpTable, tmp_path: Path, kind: str, padded: bool, dtype: str
) -> None:
    source = source_of(build(tmp_path / "m", kind))
    bundle = loader.load(source, LoadSettings(dtype=dtype), silent)
    rung = ladder.choose(bundle, SharedModule(bundle.module), Trial(bundle), ops, "", "m")
    assert isinstance(rung.layers, Gathering) and rung.layers.padded is padded


@pytest.mark.parametrize("kept", ["int8", "fp8"])
def test_keys_and_values_of_8_bits_are_kept_in_pages(ops: OpTable, llama: Path, kept: str) -> None:
    """The ledger has their bytes to the last one: those of the numbers and of four for the scale of each head."""
    kv = {}
    for dtype in ("auto", kept):
        engine = Engine(ops)
        settings = LoadSettings(dtype="float32", kv_dtype=dtype)
        planned = {row.what: row for row in engine.plan(source_of(llama), settings)}
        loaded = engine.load("m", source_of(llama), settings, silent)
        assert (loaded.rung, list(loaded.rung_reasons)) == ("P", [])
        held = {row.what: row for row in loaded.rows}
        assert planned["kv"].predicted == held["kv"].predicted == held["kv"].allocator
        said = choice(engine, ask(PROMPT, max_tokens=12, temperature=0.0, ignore_eos=True))
        kv[dtype] = held["kv"].predicted, said.tokens
    config = json.loads((llama / "config.json").read_text())
    width = config["hidden_size"] // config["num_attention_heads"]
    assert kv["auto"][0] * (width + 4) == kv[kept][0] * 4 * width
    assert len(kv[kept][1]) == 12
    if kept == "int8":
        assert kv[kept][1][:6] == kv["auto"][1][:6]


def test_what_is_not_read_from_pages_as_it_is_keeps_its_dtype(
    ops: OpTable, llama: Path, bert: Path, tmp_path: Path
) -> None:
    engine = Engine(ops)
    narrow = LoadSettings(kv_dtype="int8")
    for folder, settings in (
        (llama, replace(narrow, rung="G")), (bert, narrow), (build(tmp_path / "m", "mamba"), narrow),
    ):  # fmt: skip
        with pytest.raises(NotSupported, match="kv_dtype=auto"):
            engine.plan(source_of(folder), settings)
        with pytest.raises(NotSupported, match="kv_dtype=auto"):
            engine.load("m", source_of(folder), settings, silent)
