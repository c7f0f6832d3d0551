"""Vectors: pooled states of the model, one for each part, the same in any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_kinds import SENTENCES, answer, ask, forward_runner, load, text_model, together_and_alone
from tiny_models import PROMPT

from llmos.drivers.contract import DoneEvent, EmbedSettings, Prompt
from llmos.drivers.engine.forward import ForwardRunner
from llmos.syscalls.errors import BadArgument, TooLarge

TASK = "feature-extraction"
MODELS: dict[str, dict[str, Any]] = {
    "BertModel": {}, "BertForMaskedLM": {}, "RobertaModel": {"type_vocab_size": 1}, "LlamaModel": {},
    "T5EncoderModel": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}, "FNetModel": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("m"), "BertModel")


@pytest.fixture(scope="module")
def runner(bert: Path) -> ForwardRunner:
    return forward_runner(load(bert))


def rows(event: DoneEvent) -> torch.Tensor:
    assert event.embeddings is not None
    return torch.tensor(event.embeddings)


def states(folder: Path, text: str) -> torch.Tensor:
    """The last states [T, D] of the library's model."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pipe: Any = transformers.pipeline
    return torch.tensor(pipe(TASK, model=str(folder), tokenizer=tokenizer)(text)[0])


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_are_pooled_states_of_the_pipeline(bert: Path, runner: ForwardRunner, pooling: str) -> None:
    for text in SENTENCES[:4]:
        found = rows(answer(runner, text, TASK, pooling=pooling, normalize=False))[0]
        whole = states(bert, text)
        expected = {"mean": whole.mean(dim=0), "cls": whole[0], "last": whole[-1]}[pooling]
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_many_texts_give_the_vectors_of_each_alone(tmp_path: Path, name: str) -> None:
    family = name.partition("For")[0].removesuffix("Model").removesuffix("Encoder")
    runner = forward_runner(load(text_model(tmp_path, name, family=family, **MODELS[name])))
    every = rows(answer(runner, SENTENCES, TASK))
    alone = torch.cat([rows(answer(runner, text, TASK)) for text in SENTENCES])
    assert torch.allclose(every, alone, atol=1e-4)
    assert torch.cdist(every, every).max() > 0.1


def test_requests_share_batches_and_keep_their_own_settings(runner: ForwardRunner) -> None:
    requests = [
        ask(text, TASK, str(at), pooling=("mean", "cls", "last")[at % 3], normalize=at % 2 == 0)
        for at, text in enumerate(SENTENCES)
    ]
    for batched, alone in zip(*together_and_alone(runner, requests), strict=True):
        assert torch.allclose(rows(batched), rows(alone), atol=1e-5)


def test_the_settings_of_embed_are_taken_and_options_go_before_them(runner: ForwardRunner) -> None:
    raw = rows(answer(runner, "fox", TASK, embed=EmbedSettings(pooling="cls", normalize=False)))
    assert torch.equal(raw, rows(answer(runner, "fox", TASK, pooling="cls", normalize=False)))
    both = answer(runner, "fox", TASK, embed=EmbedSettings(pooling="cls", normalize=False), normalize=True)
    assert rows(both).norm() == pytest.approx(1.0, abs=1e-5)


def test_each_truncation_is_reported(runner: ForwardRunner) -> None:
    event = answer(runner, ["fox", "the quick brown fox " * 60], TASK, max_tokens=16)
    assert event.truncated == (False, True) and event.prompt_tokens == 3 + 16
    with pytest.raises(TooLarge):
        runner.submit(ask(["fox", "the quick brown fox " * 60], TASK))


def test_a_chat_is_embedded_through_its_template(tmp_path: Path) -> None:
    folder = text_model(tmp_path, "BertModel")
    bundle = load(folder)
    bundle.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    runner = forward_runner(bundle)
    found = rows(answer(runner, Prompt(messages=[{"role": "user", "content": "the dog"}]), TASK))
    ids = bundle.tokenizer("the dog", add_special_tokens=False)["input_ids"]
    assert torch.allclose(found, rows(answer(runner, ids, TASK)), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "options", "name"),
    [
        ("fox", {"pooling": "max"}, "pooling"), ("fox", {"normalize": 1}, "normalize"),
        ("fox", {"max_tokens": 0}, "max_tokens"), ([], {}, "input"), (Prompt(tensors={}), {}, "input"),
        ([PROMPT[0], 999], {}, "input"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(runner: ForwardRunner, given: Any, options: dict[str, Any], name: str) -> None:
    with pytest.raises(BadArgument) as error:
        runner.submit(ask(given, TASK, **options))
    assert error.value.name == name and not runner.busy
