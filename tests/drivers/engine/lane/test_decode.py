"""The whole decode step, recorded once and repeated: what it was told when it was recorded must not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from lanes import in_a_lane, lane_engine, last, left_behind, run, runner
from lora_folders import base_of, save_adapter
from recorded_steps import Recording, attended
from slow_cases import slow_but
from tiny_models import PROMPT, ask, build, byte_level, done, random_module, source_of

from torch import Tensor

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.lane.decode import bucket
from llmos.drivers.engine.lane.lane import PLAIN
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.reference_attention import paged_attention
from llmos.drivers.ops.table import OpTable


OTHERS = (PROMPT[:7], PROMPT[3:], PROMPT * 2, PROMPT[::-1])
CHUNKED = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "intermediate_size_mlp": 64, "attention_chunk_size": 32, "no_rope_layers": [1, 0], "num_local_experts": 2,
    "max_position_embeddings": 128,
}  # fmt: skip


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model one of whose layers sees no further than a chunk."""
    folder = tmp_path_factory.mktemp("models") / "chunked"
    random_module(transformers.AutoConfig.for_model("llama4_text", **CHUNKED)).save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blind() -> OpTable:
    """The reference, and attention that does not look at lengths."""
    table = OpTable()
    register_reference(table)
    table.register("paged_attention", "blind", attended, lambda _spec: (True, ""))
    return table


def test_a_step_goes_through_the_next_larger_one() -> None:
    assert [bucket(rows, (1, 2, 4, 8)) for rows in (1, 2, 3, 5, 8, 9)] == [1, 2, 4, 8, 8, 0]


@pytest.mark.parametrize("kind", slow_but(["llama", "gemma2"], ["llama", "qwen3", "gemma2", "mistral", "gpt2", "phi"]))
def test_a_recorded_step_serves_every_later_one(blind: OpTable, tmp_path: Path, kind: str) -> None:
    folder = build(tmp_path / kind, kind)
    engine = Engine(blind)
    engine.load("m", source_of(folder), LoadSettings(), lambda *_: None)
    requests = [ask(prompt, str(at), max_tokens=20, stop_token_ids=[7]) for at, prompt in enumerate(OTHERS)]
    wanted = {request.id: done(engine, request).choices for request in requests}
    capture = Recording()
    in_a_lane(engine, blind, capture)
    found = run(engine, {3 * at: [request] for at, request in enumerate(requests)})
    assert capture.refused == {} and capture.repeats > 20
    assert {id: last(events).choices for id, events in found.items()} == wanted
    assert left_behind(engine) == []


@pytest.mark.slow
def test_drawn_tokens_and_adapters_are_those_of_steps_that_are_not_recorded(
    blind: OpTable, llama: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(base_of(llama), tmp_path / "lora")
    recorded = Recording()
    engines = [lane_engine(llama, blind, recorded), lane_engine(llama, blind, Recording(()), rows=1)]
    for engine in engines:
        engine.load("a", source_of(adapter), LoadSettings(), lambda *_: None, "m")
    requests = [
        ask(prompt, str(at), "ma"[at % 2], max_tokens=16, temperature=0.9, top_p=0.9, seed=at)
        for at, prompt in enumerate(OTHERS)
    ]
    found = run(engines[0], {2 * at: [request] for at, request in enumerate(requests)})
    for request in requests:
        assert last(found[request.id]).choices == last(run(engines[1], {0: [request]})[request.id]).choices
    assert recorded.refused == {} and any("with adapters" in made for made in recorded.made)


def test_another_adapter_has_the_steps_made_again(blind: OpTable, llama: Path, tmp_path: Path) -> None:
    capture = Recording()
    engine = lane_engine(llama, blind, capture)
    answers = []
    for at in range(2):
        folder = save_adapter(base_of(llama), tmp_path / f"lora{at}", seed=at)
        engine.load(f"a{at}", source_of(folder), LoadSettings(), lambda *_: None, "m")
        answers.append(done(engine, ask(PROMPT, model=f"a{at}", max_tokens=8)).choices[0].tokens)
    again = done(engine, ask(PROMPT, model="a0", max_tokens=8)).choices[0].tokens
    assert again == answers[0] != answers[1]
    assert capture.made.count("a decode step of 1 rows with adapters") == 2
    assert len({epoch for _, epoch in runner(engine)._lane._made} - {PLAIN}) == 1, "steps of other adapters are let go"


def test_a_step_that_asks_the_host_runs_as_it_is(llama: Path) -> None:
    def asking(q: Tensor, keys: Tensor, values: Tensor, *rest: Any, **options: Any) -> Tensor:
        assert q.sum().item() < 1e9
        return paged_attention(q, keys, values, *rest, **options)

    ops = OpTable()
    register_reference(ops)
    ops.register("paged_attention", "asking", asking, lambda _spec: (True, ""))
    capture = Recording()
    engine = lane_engine(llama, ops, capture)
    wanted = Engine(ops)
    wanted.load("m", source_of(llama), LoadSettings(), lambda *_: None)
    (reason,) = runner(engine).reasons
    assert all(f"step of {size} rows" in reason for size in (8, 4, 2, 1)) and "waits for the device" in reason
    assert done(engine, ask(PROMPT, max_tokens=12)).choices == done(wanted, ask(PROMPT, max_tokens=12)).choices


def test_chunks_are_cut_on_the_device(blind: OpTable, chunked: Path) -> None:
    engine = Engine(blind)
    engine.load("m", source_of(chunked), LoadSettings(), lambda *_: None)
    wanted = done(engine, ask(PROMPT, max_tokens=60)).choices
    capture = Recording()
    in_a_lane(engine, blind, capture)
    assert done(engine, ask(PROMPT, max_tokens=60)).choices == wanted
