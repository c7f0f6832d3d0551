"""The CPU device end to end: for every architecture it answers what transformers' own `generate` answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from slow_cases import slow_but
from tiny_models import (
    ARCHITECTURES, ATTENTION, CONTEXT, POSITIONS, PROMPT, ask, build, byte_level, choice, done, finish, greedy, silent,
    source_of,
)  # fmt: skip

from llmos.drivers.contract import DoneEvent, EmbedSettings, LoadSettings
from llmos.drivers.devices.cpu import CpuDevice
from llmos.syscalls.errors import BadArgument, BadModel, BadState, NotFound, NotSupported, TooLarge

COUNT = 32
KINDS = ("llama", "gemma3_text", "falcon", "deepseek_v3", "mamba2", "qwen3_next")
"""One of each kind of attention and state."""
Built = Callable[..., Path]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Model folders by architecture, each made once."""
    root = tmp_path_factory.mktemp("models")

    def make(name: str, **changes: Any) -> Path:
        folder = root / (name + "".join(f"-{key}{value}" for key, value in changes.items()))
        return folder if folder.exists() else build(folder, name, **changes)

    return make


@pytest.fixture
def device() -> Iterator[CpuDevice]:
    device = CpuDevice()
    device.start("cpu0", 1, {"prefill_tokens": 512})
    yield device
    device.stop()


@pytest.fixture
def llama(device: CpuDevice, built: Built) -> CpuDevice:
    """A device with a llama called `m`."""
    device.load("m", source_of(built("llama")), LoadSettings(), silent)
    return device


def module_of(device: CpuDevice, model: str = "m") -> Any:
    """The module behind a model, to put mistakes into it."""
    return device._running()._entries[model].awake().bundle.module


def reference(folder: Path, prompt: tuple[int, ...] = PROMPT) -> tuple[list[int], torch.Tensor]:
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return greedy(module, prompt, COUNT)


@pytest.mark.parametrize("name", slow_but([*KINDS, "gpt2", "bloom", "mixtral", "rwkv"], ARCHITECTURES))
def test_greedy_answer_is_that_of_generate(device: CpuDevice, built: Built, name: str) -> None:
    folder = built(name)
    tokens, logits = reference(folder)
    assert len(set(tokens)) >= 8, "the model repeats itself: the comparison would prove nothing"
    loaded = device.load("m", source_of(folder), LoadSettings(), silent)
    answer = choice(device, ask(PROMPT, max_tokens=COUNT, logprobs=3))
    assert answer.tokens == tokens
    assert answer.reason == "length"
    assert loaded.context == CONTEXT or name in ("bloom", "mamba", "mamba2")
    expected = torch.log_softmax(logits, dim=-1)
    assert answer.logprobs is not None
    for at, (token, scored) in enumerate(zip(tokens, answer.logprobs, strict=True)):
        assert scored.token == token == scored.top[0][0]
        assert scored.logprob == pytest.approx(float(expected[at, token]), abs=2e-4)
        for other, _, logprob in scored.top:
            assert logprob == pytest.approx(float(expected[at, other]), abs=2e-4)


@pytest.mark.parametrize("name", slow_but(KINDS, ARCHITECTURES))
def test_a_prompt_in_parts_gives_the_same_answer(built: Built, name: str) -> None:
    """Architectures whose layers cannot take a prompt in parts must not be given it so."""
    folder = built(name)
    device = CpuDevice()
    device.start("cpu0", 1, {"prefill_tokens": 5})
    device.load("m", source_of(folder), LoadSettings(), silent)
    assert choice(device, ask(PROMPT, max_tokens=COUNT)).tokens == reference(folder)[0]
    device.stop()


def shift_positions(inputs: dict[str, Any]) -> None:
    inputs["position_ids"] = inputs["position_ids"] + 1


def hide_last_token(inputs: dict[str, Any]) -> None:
    seen = inputs["past_key_values"].get_seq_length()
    inputs["attention_mask"] = torch.ones(1, seen + 1, dtype=torch.long)
    inputs["attention_mask"][0, seen - 1] = 0


MISTAKES: Mapping[Callable[[dict[str, Any]], None], tuple[str, ...]] = {
    shift_positions: POSITIONS,
    hide_last_token: ATTENTION,
}


NOTICED = [(mistake, name) for mistake in MISTAKES for name in MISTAKES[mistake]]


@pytest.mark.parametrize(("mistake", "name"), slow_but([each for each in NOTICED if each[1] in KINDS[:2]], NOTICED))
def test_the_comparison_notices_a_mistake_by_one(
    device: CpuDevice, built: Built, mistake: Callable[[dict[str, Any]], None], name: str
) -> None:
    folder = built(name)
    device.load("m", source_of(folder), LoadSettings(rung="G"), silent)
    module = module_of(device)
    prepare = module.prepare_inputs_for_generation

    def wrong(*given: Any, **options: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = prepare(*given, **options)
        if not options["is_first_iteration"]:
            mistake(inputs)
        return inputs

    module.prepare_inputs_for_generation = wrong
    assert choice(device, ask(PROMPT, max_tokens=COUNT)).tokens != reference(folder)[0]


def test_models_take_turns_step_by_step(llama: CpuDevice, built: Built) -> None:
    folder = built("qwen2")
    llama.load("n", source_of(folder), LoadSettings(), silent)
    requests = ask(PROMPT, "a", max_tokens=8, stream=True), ask(PROMPT, "b", "n", max_tokens=8, stream=True)
    for request in requests:
        llama.submit(request)
    steps = []
    while len(steps) < 16:
        steps.append({event.request for event in llama.step()})
    assert all(len(requests) <= 1 for requests in steps), "one step serves one model"
    served = [*set.union(*steps)]
    assert sorted(served) == ["a", "b"], "turns are by time, so that none waits for the other to end"
    ends = {id: max(at for at, each in enumerate(steps) if id in each) for id in served}
    assert min(ends.values()) > max(min(at for at, each in enumerate(steps) if id in each) for id in served)


def test_text_is_streamed_in_whole_characters_and_adds_up(llama: CpuDevice) -> None:
    request = ask("the quick", max_tokens=40, temperature=1.5, seed=3, stream=True, logprobs=0, ignore_eos=True)
    *chunks, last = finish(llama, request)["r"]
    assert isinstance(last, DoneEvent)
    answer = last.choices[0]
    assert "".join(chunk.text for chunk in chunks) == answer.text  # type: ignore[union-attr]
    assert [token for chunk in chunks for token in chunk.tokens] == answer.tokens  # type: ignore[union-attr]
    assert [each for chunk in chunks for each in chunk.logprobs] == answer.logprobs  # type: ignore[union-attr]
    assert (last.new_tokens, last.cached_tokens) == (40, 0) and last.device_ns > 0


def test_same_seed_gives_the_same_tokens_whatever_else_runs(llama: CpuDevice) -> None:
    draw: dict[str, Any] = {"max_tokens": 12, "temperature": 1.0, "top_k": 50, "top_p": 0.95, "min_p": 0.01}
    alone = choice(llama, ask(PROMPT, seed=7, **draw)).tokens
    both = finish(llama, ask(PROMPT, "a", seed=7, **draw), ask(PROMPT, "b", seed=8, **draw))
    tokens = {id: events[-1].choices[0].tokens for id, events in both.items()}  # type: ignore[union-attr]
    assert tokens["a"] == alone != tokens["b"]


def test_cancel_ends_within_one_step_with_what_there_is(llama: CpuDevice) -> None:
    llama.submit(ask(PROMPT, max_tokens=50))
    for _ in range(3):
        llama.step()
    llama.cancel("r")
    llama.cancel("unknown")
    (event,) = llama.step()
    assert isinstance(event, DoneEvent)
    assert (event.choices[0].reason, len(event.choices[0].tokens)) == ("cancelled", 3)
    assert llama.step() == []


def test_embeddings_are_the_mean_of_hidden_states(llama: CpuDevice, built: Built) -> None:
    folder = built("llama")
    event = done(llama, ask(PROMPT, embed=EmbedSettings(normalize=False)))
    module = transformers.AutoModelForCausalLM.from_pretrained(folder).base_model
    with torch.inference_mode():
        expected = module(torch.tensor([PROMPT])).last_hidden_state.mean(dim=1)
    assert event.embeddings is not None
    assert torch.allclose(torch.tensor(event.embeddings), expected, atol=1e-5)


@pytest.mark.parametrize("rung", ["P", "G"])
def test_memory_rows_tell_what_is_held(device: CpuDevice, built: Built, rung: str) -> None:
    folder = built("llama")
    planned = device.plan(source_of(folder), LoadSettings(rung=rung))
    device.load("m", source_of(folder), LoadSettings(rung=rung), silent)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    rows = {(row.what, row.owner): row for row in device.memory()}
    held = rows["weights", "m"]
    assert held.predicted == planned[0].predicted and abs(held.allocator - held.predicted) < PADDING
    assert abs(held.allocator - weights) < PADDING
    assert rows["runtime", "cpu0"].driver >= 0
    device.open_context("c", "m", "", 0)
    done(device, ask(PROMPT, context="c", max_tokens=4))
    rows = {(row.what, row.owner): row for row in device.memory()}
    per_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, width, bytes
    pages = rows["kv", "m"].allocator
    usage = device.cache_usage()
    assert 0 < usage["m"] <= 1 if rung == "P" else usage == {}
    if rung == "P":
        assert pages == rows["kv", "m"].predicted == planned[1].predicted >= 8 * CONTEXT * per_token
        assert ("kv", "c") not in rows and device.drop_context("c") == 0
    else:
        assert rows["kv", "c"].predicted == CONTEXT * per_token
        assert rows["kv", "c"].allocator == (len(PROMPT) + 3) * per_token
        assert device.drop_context("c") == (len(PROMPT) + 3) * per_token
    assert device.unload("m") == held.allocator + (pages if rung == "P" else 0)
    assert [row.owner for row in device.memory()] == ["cpu0"]


def test_sleep_frees_the_weights_and_wake_answers_as_before(llama: CpuDevice) -> None:
    before = choice(llama, ask(PROMPT, max_tokens=8)).tokens
    asleep = llama.sleep("m")
    assert [row.allocator for row in asleep.rows] == [0, 0, 0]
    with pytest.raises(BadState):
        llama.submit(ask(PROMPT))
    with pytest.raises(BadState):
        llama.sleep("m")
    assert llama.wake("m", silent).rows[0].allocator > 0
    with pytest.raises(BadState):
        llama.wake("m", silent)
    assert choice(llama, ask(PROMPT, max_tokens=8)).tokens == before


def test_bad_input_is_refused_with_the_value_and_loses_nothing(llama: CpuDevice, built: Built, tmp_path: Path) -> None:
    source = source_of(built("llama"))
    with pytest.raises(BadArgument, match="int3"):
        llama.load("x", source, LoadSettings(dtype="int3"), silent)
    with pytest.raises(TooLarge) as error:
        llama.submit(ask([5] * (CONTEXT + 1)))
    assert (error.value.limit, error.value.got) == (CONTEXT, CONTEXT + 1)
    with pytest.raises(BadArgument, match="320"):
        llama.submit(ask([320]))
    with pytest.raises(NotFound, match="nobody"):
        llama.submit(ask(PROMPT, model="nobody"))
    missing = source_of(built("llama"), names={"config.json", "tokenizer.json", "tokenizer_config.json"})
    with pytest.raises(BadModel) as bad:
        llama.load("x", missing, LoadSettings(), silent)
    assert bad.value.file == "model.safetensors"
    assert choice(llama, ask(PROMPT, max_tokens=1)).tokens


def test_a_chat_goes_through_the_template(device: CpuDevice, tmp_path: Path) -> None:
    build(tmp_path / "chat", tokenizer=byte_level(chat=True))
    loaded = device.load("m", source_of(tmp_path / "chat"), LoadSettings(), silent)
    assert loaded.chat
    messages = [{"role": "user", "content": "hello"}]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "chat")
    rendered = tokenizer("<|user|>hello<|end|><|assistant|>")["input_ids"]
    assert choice(device, ask(messages, max_tokens=6)) == choice(device, ask(rendered, max_tokens=6))


def test_settings_are_checked_and_nothing_works_before_start() -> None:
    device = CpuDevice()
    with pytest.raises(BadState):
        device.step()
    with pytest.raises(BadArgument, match="prefill_tokens"):
        device.start("cpu0", 1, {"prefill_tokens": 0})


PADDING = 40_000
"""Bytes that packed layers of so tiny a model take beside their weights."""

OPS = """
from llmos.drivers.hookspecs import hookimpl

def sevens(states, mask, how):
    return states.new_full((states.shape[0], states.shape[2]), 7.0)

@hookimpl
def register_ops(register):
    register("pool_states", "seven", sevens, lambda spec: (spec["device"] == "cpu", "CPU only"))
    register("pool_states", "torch", sevens, lambda spec: (True, ""))
"""


def test_ops_of_other_packages_are_used_and_bad_ones_reported(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sevenops.py").write_text(OPS)
    info = tmp_path / "sevenops-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sevenops\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmos.ops]\nseven = sevenops\nbroken = nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    device = CpuDevice()
    device.start("cpu0", 1, {})
    device.load("m", source_of(built("llama")), LoadSettings(), silent)
    embedded = done(device, ask(PROMPT, embed=EmbedSettings(normalize=False)))
    assert embedded.embeddings is not None and set(embedded.embeddings[0]) == {7.0}
    said = capsys.readouterr().err
    assert "nowhere_to_be_found" in said and "already has an implementation called torch" in said
    device.stop()


def test_facts_are_those_of_the_machine(device: CpuDevice) -> None:
    facts = device.facts()
    assert (facts.name, facts.kind) == ("cpu0", "cpu")
    assert 0 <= facts.foreign_bytes < facts.memory_bytes
    assert (facts.pool, facts.unit) == ("host", "cpu")
    assert facts.features["threads"] == 1


def test_it_tells_what_serves_each_op(device: CpuDevice) -> None:
    told = device.inspect("ops")
    assert told["pool_states"]["float32"] == {"serves": "torch", "others": [], "refused": {}}
    assert set(told) >= {"paged_attention", "linear", "rms_norm"}
    with pytest.raises(NotSupported, match="weather"):
        device.inspect("weather")


def test_finding_the_driver_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'peft'}"
    script = f"import sys, llmos.drivers.devices.cpu; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
