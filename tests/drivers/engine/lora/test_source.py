"""Adapters from folders: they change their own model's answers and nobody else's; what is wrong is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_folders import Make, base_of, expected, weights_of, without_weights
from safetensors.torch import load_file, save_file
from tiny_models import PROMPT, ask, choice, config_of, finish, random_module, silent, source_of

from llmos.drivers.contract import DoneEvent, LoadSettings, ModelSource
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.lora.source import check, is_adapter, planned_bytes, read
from llmos.syscalls.errors import BadArgument, BadModel, BadState, Busy, Cancelled, LlmosError, NotFound, NotSupported


def answer(engine: Engine, model: str = "m") -> list[int]:
    return list(choice(engine, ask(PROMPT, model=model, max_tokens=12)).tokens)


def load(engine: Engine, folder: Path, id: str = "a", base: str = "m") -> Any:
    return engine.load(id, source_of(folder), LoadSettings(), silent, base)


def test_each_model_answers_for_itself(engine: Engine, llama: Path, make: Make) -> None:
    base = answer(engine)
    one, two = make("one", 1), make("two", 2)
    load(engine, one, "a")
    load(engine, two, "b")
    assert answer(engine, "a") == expected(base_of(llama), one) != base
    assert answer(engine, "b") == expected(base_of(llama), two)
    assert answer(engine) == base
    mixed = finish(engine, *(ask(PROMPT, id, id, max_tokens=12) for id in ("a", "m", "b")))
    last = {id: events[-1] for id, events in mixed.items()}
    assert all(isinstance(event, DoneEvent) for event in last.values())
    assert {id: event.choices[0].tokens for id, event in last.items()} == {  # type: ignore[union-attr]
        "a": expected(base_of(llama), one), "m": base, "b": expected(base_of(llama), two),
    }  # fmt: skip
    assert answer(engine, "b") == expected(base_of(llama), two)
    engine.unload("b")
    assert answer(engine) == base
    assert answer(engine, "a") == expected(base_of(llama), one)


def test_an_adapter_is_a_row_of_its_own_and_leaves_without_a_trace(engine: Engine, make: Make) -> None:
    base = answer(engine)
    loaded = load(engine, make())
    weights = {row.owner: row.allocator for row in engine.memory() if row.what == "weights"}
    assert weights["a"] == 2 * 2 * 4 * (64 + 48) * 4  # layers, A and B of two projections of rank 4, bytes
    assert loaded.rows[0].predicted == loaded.rows[0].allocator == weights["a"]
    assert engine.unload("a") == weights["a"]
    assert {row.owner for row in engine.memory()} == {"m"}
    assert answer(engine) == base
    with pytest.raises(NotFound):
        engine.submit(ask(PROMPT, model="a"))
    assert load(engine, make("again"))


def test_a_base_stays_while_adapters_need_it(engine: Engine, make: Make) -> None:
    load(engine, make())
    with pytest.raises(Busy, match="a"):
        engine.unload("m")
    for change in (engine.sleep, lambda id: engine.wake(id, silent)):
        with pytest.raises(NotSupported, match="adapter"):
            change("a")


def test_adapters_sleep_and_wake_with_their_base(engine: Engine, llama: Path, make: Make) -> None:
    folder = make()
    load(engine, folder)
    engine.sleep("m")
    assert sum(row.allocator for row in engine.memory()) == 0
    with pytest.raises(BadState):
        engine.submit(ask(PROMPT, model="a"))
    engine.wake("m", silent)
    assert answer(engine, "a") == expected(base_of(llama), folder)


def test_a_base_whose_adapter_is_gone_does_not_wake_by_half(engine: Engine, make: Make) -> None:
    folder = make()
    load(engine, folder)
    engine.sleep("m")
    with without_weights(folder), pytest.raises(BadModel):
        engine.wake("m", silent)
    engine.wake("m", silent)
    assert answer(engine, "a")


def test_conversations_of_an_adapter_are_its_own(engine: Engine, make: Make) -> None:
    load(engine, make())
    engine.open_context("c", "a", "", 0)
    assert choice(engine, ask(PROMPT, model="a", context="c", max_tokens=12)).tokens == answer(engine, "a")
    with pytest.raises(BadState, match="belongs to a"):
        engine.submit(ask(PROMPT, context="c"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "IA3"}, {"modules_to_save": ["lm_head"]}, {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 2]]},
    ],
)  # fmt: skip
def test_adapters_that_are_more_than_lora_are_refused(engine: Engine, make: Make, changes: dict[str, Any]) -> None:
    folder = make()
    edit(folder, **changes)
    with pytest.raises(NotSupported) as error:
        load(engine, folder)
    assert error.value.why


def refused(engine: Engine, folder: Path) -> BadModel:
    before = answer(engine)
    with pytest.raises(BadModel) as error:
        load(engine, folder)
    assert answer(engine) == before
    return error.value


def test_damage_is_named_and_the_base_is_as_it_was(engine: Engine, make: Make) -> None:
    folder = make()
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4])
    assert "truncated" in refused(engine, folder).why
    tensors = load_file(make("other") / "adapter_model.safetensors")
    name = sorted(tensors)[0]
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, weights)
    assert "does not fit" in refused(engine, folder).why
    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, weights)
    assert "not finite" in refused(engine, folder).why
    weights.rename(folder / "adapter_model.bin")
    assert (refused(engine, folder).file, "pickled" in refused(engine, folder).why) == ("adapter_model.bin", True)
    (folder / "adapter_model.bin").unlink()
    assert (refused(engine, folder).file, refused(engine, folder).why) == ("adapter_model.safetensors", "missing")


def test_an_adapter_of_another_model_does_not_fit(engine: Engine, make: Make) -> None:
    wide = random_module(config_of("llama", hidden_size=128))
    assert refused(engine, make("wide", base=wide)).file == "adapter_model.safetensors"
    deep = random_module(config_of("llama", num_hidden_layers=3))
    assert refused(engine, make("deep", base=deep)).file == "adapter_model.safetensors"
    other = make("other", base=random_module(config_of("gpt2")), target_modules=["c_attn"], fan_in_fan_out=True)
    assert refused(engine, other).file == "adapter_model.safetensors"


def test_loading_can_be_cancelled_and_leaves_nothing(engine: Engine, make: Make) -> None:
    def cancel(*given: Any, **options: Any) -> None:
        raise Cancelled("enough")

    before = answer(engine)
    with pytest.raises(Cancelled):
        engine.load("a", source_of(make()), LoadSettings(), cancel, "m")
    assert answer(engine) == before
    assert load(engine, make("again"))


@pytest.mark.parametrize(
    ("base", "error"), [("", BadArgument), ("nobody", NotFound), ("a", NotSupported)]
)  # fmt: skip
def test_an_adapter_needs_a_base_that_is_a_model(
    engine: Engine, make: Make, base: str, error: type[LlmosError]
) -> None:
    load(engine, make())
    with pytest.raises(error):
        load(engine, make("other"), "b", base)


def test_an_adapter_is_planned_from_its_files(engine: Engine, make: Make) -> None:
    folder = make()
    source: ModelSource = source_of(folder)
    assert is_adapter(source)
    planned = engine.plan(source, LoadSettings())
    load(engine, make("again"))
    held = {row.owner: row.allocator for row in engine.memory() if row.what == "weights"}["a"]
    assert (planned[0].what, planned[0].predicted) == ("weights", held)
    assert planned_bytes(source, torch.bfloat16) * 2 == planned_bytes(source) == held


def test_a_folder_with_a_model_is_no_adapter(llama: Path, make: Make) -> None:
    assert not is_adapter(source_of(llama))
    folder = make()
    (folder / "config.json").write_text((llama / "config.json").read_text())
    assert not is_adapter(source_of(folder))


def test_what_is_read_is_what_was_saved(make: Make) -> None:
    folder = make(r=3)
    stages = []
    found = read(source_of(folder), lambda done, total, unit="", stage="": stages.append((stage, done, total)))
    saved = weights_of(folder)
    assert found.pairs.keys() == saved.pairs.keys() and found.file == "adapter_model.safetensors"
    for path, pair in saved.pairs.items():
        assert torch.equal(found.pairs[path].a, pair.a) and torch.equal(found.pairs[path].b, pair.b)
        assert found.pairs[path].scale == pair.scale
    assert stages[-1][0] == "build" and stages[-1][1] == stages[-1][2] == check(source_of(folder)).bytes
