"""The whole engine on a simulated GPU: everything is made on the device of the weights, and answers are the CPU's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from simulated_cuda import DEVICE, OnGpu, SimulatedCuda, SimulatedPlace, up
from tiny_models import PROMPT, ask, build, choice, done, silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.place import PROCESSOR, Place
from llmos.drivers.ops.table import OpTable


def answered(ops: OpTable, folder: Path, place: Place, rung: str = "") -> tuple[str, tuple[int, ...]]:
    """The rung, and the tokens of a greedy answer."""
    engine = Engine(ops, prefill_tokens=7, place=place)
    loaded = engine.load("m", source_of(folder), LoadSettings(rung=rung), silent)
    assert choice(engine, ask(PROMPT, id="s", max_tokens=4, temperature=0.7, seed=5, top_p=0.9, logprobs=2)).tokens
    tokens = tuple(choice(engine, ask(PROMPT, max_tokens=8, repetition_penalty=1.1)).tokens)
    engine.close()
    return loaded.rung, tokens


@pytest.mark.parametrize(
    ("name", "rung"),
    [
        ("llama", "P"),
        *(
            pytest.param(name, rung, marks=pytest.mark.slow)
            for name, rung in [
                ("llama", "G"),
                ("qwen2", "P"), ("gemma2", "P"), ("gemma3_text", "P"), ("gpt2", "P"), ("mixtral", "P"), ("phi3", "P"),
                ("deepseek_v3", "P"), ("opt", "P"), ("gptj", "P"), ("bloom", "P"), ("falcon", "P"), ("qwen3_next", "H"),
                ("mamba", "H"), ("mistral", "G"), ("rwkv", ""),
            ]
        ),
    ],
)  # fmt: skip
def test_an_answer_is_that_of_the_cpu(ops: OpTable, tmp_path: Path, name: str, rung: str) -> None:
    folder = build(tmp_path / "model", name)
    here = answered(ops, folder, PROCESSOR, rung)
    with SimulatedCuda():
        there = answered(ops, folder, SimulatedPlace(), rung)
    assert there == here and (here[0] == rung or not rung)


def test_an_encoder_answers_as_on_the_cpu(ops: OpTable, bert: Path) -> None:
    def vectors(place: Place) -> list[list[float]]:
        engine = Engine(ops, place=place)
        engine.load("m", source_of(bert), LoadSettings(), silent)
        found = done(engine, ask("the quick brown fox", task="feature-extraction")).embeddings
        engine.close()
        return [list(row) for row in found]

    here = vectors(PROCESSOR)
    with SimulatedCuda():
        there = vectors(SimulatedPlace())
    assert torch.allclose(torch.tensor(here), torch.tensor(there), atol=1e-5)


def test_the_simulation_refuses_what_a_gpu_does() -> None:
    with SimulatedCuda():
        there, here = torch.arange(6.0, device="cuda").view(2, 3), torch.ones(3)
        assert isinstance(there, OnGpu) and there.device == DEVICE and up(here).sum().item() == 3.0
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(RuntimeError, match="same device"):
            torch.nn.functional.linear(here, there)
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device="cuda", generator=torch.Generator())
        there[0] = here
        assert there.cpu().tolist() == [[1.0, 1.0, 1.0], [3.0, 4.0, 5.0]] and (there * 2.0 + 1).device == DEVICE
