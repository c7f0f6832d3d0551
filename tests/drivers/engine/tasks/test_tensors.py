"""Named tensors through models without a front: a CNN and an RNN of a package, and the library's time series models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from tiny_kinds import answer, answers, ask, build, forward_runner, save, together_and_alone
from tiny_models import finish, silent, source_of
from torch import nn

from llmos.drivers.contract import DoneEvent, FailedEvent, LoadSettings, Prompt, TensorView
from llmos.drivers.engine import loader
from llmos.drivers.engine.forward import ForwardRunner
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.plugged import Architecture
from llmos.drivers.engine.tasks.tensors import _named, _view
from llmos.syscalls.errors import BadArgument

TASK = "tensors"


class Cnn(nn.Module):
    """Pictures to logits, as a mapping."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, config["width"], 3)
        self.last = nn.Linear(config["width"], config["classes"])

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.first(pixels)).mean(dim=(2, 3))
        logits = self.last(features)
        return {"features": features, "logits": logits, "best": logits.argmax(dim=-1)}


class Rnn(nn.Module):
    """Series to their next values, with time before the batch as recurrent layers have it, as a tuple."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.cell = nn.GRU(2, config["width"])
        self.head = nn.Linear(config["width"], 2)

    def forward(self, series: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        states, last = self.cell(series, state)
        return self.head(states[-1]), last


OWN = {"Cnn": Architecture("Cnn", Cnn, batched=True), "Rnn": Architecture("Rnn", Rnn)}


def own_model(folder: Path, name: str) -> tuple[nn.Module, Bundle]:
    config = {"architectures": [name], "width": 8, "classes": 5}
    torch.manual_seed(0)
    module = OWN[name].build(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3.0)
    save_file(module.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return module.eval(), loader.load(source_of(folder), LoadSettings(), silent, OWN)


def view(value: torch.Tensor) -> TensorView:
    return _view(value)


def back(given: TensorView) -> torch.Tensor:
    dtype = {"float32": torch.float32, "int64": torch.int64}[given.dtype]
    return torch.frombuffer(bytearray(given.data), dtype=dtype).reshape(tuple(given.shape))


def named(**values: torch.Tensor) -> Prompt:
    return Prompt(tensors={name: view(value) for name, value in values.items()})


def tensors(event: DoneEvent) -> dict[str, torch.Tensor]:
    assert event.tensors is not None
    return {name: back(each) for name, each in event.tensors.items()}


@pytest.fixture
def cnn(tmp_path: Path) -> tuple[nn.Module, ForwardRunner]:
    module, bundle = own_model(tmp_path, "Cnn")
    return module, forward_runner(bundle)


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_cnn_answers_what_its_class_answers_in_any_batch(cnn: tuple[nn.Module, ForwardRunner]) -> None:
    module, runner = cnn
    shift = torch.tensor([2.0, -2.0, 0.5])[:, None, None]
    given = [pixels(count, count) + (count - 2) * shift for count in (1, 3, 2)]
    requests = [ask(named(pixels=each), TASK, str(at)) for at, each in enumerate(given)]
    best = set()
    for each, *events in zip(given, *together_and_alone(runner, requests), strict=True):
        with torch.inference_mode():
            expected = module(each)
        for event in events:
            found = tensors(event)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                assert torch.allclose(found[name].float(), value.float(), atol=1e-5)
        best |= set(expected["best"].tolist())
    assert len(best) >= 2


def test_requests_share_a_batch_where_the_class_says_so(
    cnn: tuple[nn.Module, ForwardRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, runner = cnn
    task, sizes = runner._tasks[TASK], []
    run = task.run
    monkeypatch.setattr(task, "run", lambda module, lines: (sizes.append(len(lines)), run(module, lines))[1])
    answers(runner, [ask(named(pixels=pixels(2)), TASK, str(at)) for at in range(5)])
    assert sizes == [5]


def test_an_rnn_is_run_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, bundle = own_model(tmp_path, "Rnn")
    runner, sizes = forward_runner(bundle), []
    run = runner._tasks[TASK].run
    noted = lambda module, lines: (sizes.append(len(lines)), run(module, lines))[1]  # noqa: E731
    monkeypatch.setattr(runner._tasks[TASK], "run", noted)
    given = [torch.randn(9, 1, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    events = answers(runner, [ask(named(series=each), TASK, str(at)) for at, each in enumerate(given)])
    for each, event in zip(given, events, strict=True):
        with torch.inference_mode():
            first, last = module(each)
        assert torch.allclose(tensors(event)["output.0"], first) and torch.allclose(tensors(event)["output.1"], last)
    assert sizes == [1, 1, 1, 1]
    state = torch.ones(1, 1, 8)
    with torch.inference_mode():
        expected = module(given[0], state)[0]
    assert torch.allclose(tensors(answer(runner, named(series=given[0], state=state), TASK))["output.0"], expected)


def test_a_time_series_model_of_the_library(tmp_path: Path) -> None:
    config = transformers.PatchTSTConfig(
        d_model=32, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32, context_length=32, patch_length=4,
        prediction_length=4, num_input_channels=2,
    )  # fmt: skip
    module = build(config, "PatchTSTForPrediction", scale=1.0)
    bundle = loader.load(source_of(save(tmp_path, module)), LoadSettings(), silent)
    runner = forward_runner(bundle)
    time = torch.arange(32).float()
    given = [torch.stack([(time * (at + 1) / 5).sin(), time / (at + 5)], dim=-1)[None] for at in range(4)]
    requests = [ask(named(past_values=each), TASK, str(at)) for at, each in enumerate(given)]
    seen = []
    for each, *events in zip(given, *together_and_alone(runner, requests), strict=True):
        with torch.inference_mode():
            expected = module(past_values=each).prediction_outputs
        for event in events:
            assert torch.allclose(tensors(event)["prediction_outputs"], expected, atol=1e-4)
        seen.append(expected)
    assert not torch.allclose(seen[0], seen[1], atol=1e-2)


@pytest.mark.parametrize(
    "prompt",
    [Prompt(text="x"), Prompt(tensors={}), named(image=torch.zeros(1, 3, 8, 8)), Prompt(parts=["x"])],
    ids=["text", "nothing", "another name", "parts"],
)
def test_what_the_model_cannot_take_is_refused_at_once(
    cnn: tuple[nn.Module, ForwardRunner], prompt: Prompt
) -> None:
    with pytest.raises(BadArgument, match="pixels"):
        cnn[1].submit(ask(prompt, TASK))


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 2, 2), torch.zeros(3), torch.zeros(0, 3, 8, 8), torch.tensor(1.0)],
)
def test_tensors_that_do_not_fit_end_only_their_request(
    cnn: tuple[nn.Module, ForwardRunner], wrong: torch.Tensor
) -> None:
    _, runner = cnn
    requests = [ask(named(pixels=pixels(1)), TASK, "good"), ask(named(pixels=wrong), TASK, "bad")]
    with torch.inference_mode():
        events = finish(runner, *requests)
    assert isinstance(events["good"][0], DoneEvent)
    (bad,) = events["bad"]
    empty = isinstance(bad, DoneEvent) and wrong.shape[:1] == (0,)
    assert empty or (isinstance(bad, FailedEvent) and isinstance(bad.error, BadArgument))


def test_an_unknown_option_is_refused(cnn: tuple[nn.Module, ForwardRunner]) -> None:
    with pytest.raises(BadArgument, match="top_k"):
        cnn[1].submit(ask(named(pixels=pixels(1)), TASK, top_k=1))


def test_answers_of_any_shape_have_names() -> None:
    one, two, three = torch.zeros(1), torch.ones(2), torch.ones(3)
    found = dict(_named({"a": one, "b": (two, {"c": three}), "d": "text", "e": None}))
    assert found.keys() == {"a", "b.0", "c"} and found["c"] is three
    assert dict(_named(one)) == {"output": one}


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.float64, "float32"), (torch.int16, "int64"), (torch.bfloat16, "bfloat16"), (torch.bool, "bool")],
)
def test_numbers_of_any_precision_get_out(dtype: torch.dtype, name: str) -> None:
    made = _view(torch.tensor([[0, 1], [1, 0]]).to(dtype).T)
    assert (made.dtype, made.shape) == (name, (2, 2))
    assert len(made.data) == 4 * {"float32": 4, "int64": 8, "bfloat16": 2, "bool": 1}[name]
    assert np.frombuffer(made.data, np.uint8).any()
