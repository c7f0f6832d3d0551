"""Held-out prompts are answered before and after training, as the library itself answers them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
from slow_cases import slow_but
import tiny_kinds
import tiny_models
import torch
import transformers
from tuning_runs import Make, Serve, allocated, maker

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.table import OpTable
from llmos.drivers.tuning import generating, methods
from llmos.drivers.tuning.assembling import looks
from llmos.drivers.tuning.data.example import IGNORED, Example
from llmos.drivers.tuning.generating import Answers, Question
from llmos.drivers.tuning.job import Running
from llmos.drivers.tuning.metrics.texts import written
from llmos.drivers.tuning.optimizing import trainable
from llmos.drivers.tuning.preparing import Prepared
from llmos.drivers.tuning.slices import Stopped
from llmos.syscalls.errors import BadArgument

WORDS = ("quick", "brown", "fox", "lazy", "dog", "tokens", "pieces", "text")
ROWS = [
    {"prompt": " ".join(WORDS[(n + k) % 8] for k in range(1 + n % 3)) + ":", "completion": f" {WORDS[n % 8]} {n}"}
    for n in range(32)
]


def recipe(**more: Any) -> dict[str, Any]:
    options = {"generate": {"tokens": 6, "rows": 5}, **more.pop("options", {})}
    return {
        "files": {"rows.jsonl": ROWS}, "eval_fraction": 0.4, "max_steps": 4, "checkpoint_every": 2,
        "learning_rate": 0.05, "max_length": 64, "options": options, **more,
    }  # fmt: skip


def ran(prepared: Prepared) -> tuple[Running, dict[str, Any]]:
    running = Running(prepared)
    running.work(lambda: None)
    [told] = [each.facts["report"] for each in running.told() if "report" in each.facts]
    return running, told


def answers_of(prepared: Prepared) -> Answers:
    found = looks(prepared)[generating.TEXTS]
    assert isinstance(found, Answers)
    return found


def moved(prepared: Prepared) -> None:
    """Give what moves other values, so that it shows in what is written."""
    generator = torch.Generator().manual_seed(0)
    for value in trainable(prepared.module).values():
        value.data += 0.3 * torch.randn(value.shape, generator=generator)


METHODS = ("lora", "dora", "adalora", "ia3", "full", "bottleneck", "prompt", "prefix")


@pytest.mark.parametrize("method", slow_but(["lora", "prefix"], METHODS))
def test_answers_are_those_of_the_library(serve: Serve, tmp_path: Path, method: str) -> None:
    prepared = maker(serve, tmp_path)(**recipe(method=method, options={"virtual_tokens": 3}, max_length=None))
    moved(prepared)
    answers = answers_of(prepared)
    prompts = [each.prompt for each in answers.questions]
    module = prepared.module.eval()
    calls: list[None] = []
    said = answers.writer.answers(module, prompts, lambda: calls.append(None))
    assert len(calls) >= answers.writer.tokens and len({tuple(each) for each in said}) > 1
    for prompt, answer in zip(prompts, said, strict=True):  # one token after the other, without a cache
        ids = list(prompt)
        with torch.no_grad():
            for token in answer:
                scores = module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
                assert scores.argmax() == token
                ids.append(token)


def test_answers_are_those_of_peft_and_the_library(serve: Serve, tmp_path: Path) -> None:
    resident, folder = serve("llama", dtype="float32")
    prepared = maker(lambda *_, **__: (resident, folder), tmp_path)(**recipe())
    moved(prepared)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    methods.export(prepared.module, tmp_path)
    other: Any = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
    answers = answers_of(prepared)
    prompts = [each.prompt for each in answers.questions]
    said = answers.writer.answers(prepared.module.eval(), prompts, lambda: None)
    for prompt, answer in zip(prompts, said, strict=True):
        ids = torch.tensor([prompt])
        wanted = other.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6)
        assert [*prompt, *answer] == wanted[0, : len(prompt) + len(answer)].tolist()
        assert len(answer) == 6 or int(wanted[0, len(prompt) + len(answer)]) in answers.writer.ends


def test_the_report_has_figures_and_the_worst_answers(make: Make) -> None:
    prepared = make(**recipe())
    running, told = ran(prepared)
    answers, module = answers_of(prepared), prepared.module.eval()
    said = [
        answers.decode(each).strip()
        for each in answers.writer.answers(module, [each.prompt for each in answers.questions], lambda: None)
    ]
    wanted = [answers.decode(each.wanted).strip() for each in answers.questions]
    held_out = {each["completion"].strip() for each in ROWS}
    assert set(wanted) <= held_out
    figures = written(said, wanted)
    for name, value in figures.items():
        assert running.values[f"eval_{name}"] == pytest.approx(value, abs=1e-6)
        assert told["figures"][name]["after"][0] == pytest.approx(value, abs=1e-5)
        assert told["figures"][name]["drawn"] == "rows" and len(told["figures"][name]["difference"]) == 3
        assert f"eval_{name}_before" in running.values
    texts = told["texts"]
    assert (texts["rows"], texts["tokens"], len(texts["examples"])) == (5, 6, 5)
    first = texts["examples"][0]
    place = wanted.index(first["wanted"])
    assert len(first["after"]) == len(" ".join(said[place].split())) and first["prompt"].endswith(":")
    worst = [written([one], [other])["rougel"] for one, other in zip(said, wanted, strict=True)]
    assert worst[place] == min(worst)
    assert len(json.dumps(told)) < 48 * 1024
    assert all(text.isprintable() for each in texts["examples"] for text in each.values())
    loud = replace(answers, decode=lambda tokens: "\x1b[2J" + "long " * 99)
    tensors = loud.look(module, lambda: None).tensors
    shown = loud.compared(tensors, tensors, lambda: None)["texts"]["examples"][0]
    assert shown["after"].startswith("�[2J") and shown["prompt"].startswith("…") and len(shown["prompt"]) <= 200


def test_a_run_that_was_interrupted_ends_with_the_same_report(make: Make) -> None:
    whole = make(**recipe())
    _, told = ran(whole)
    shutil.rmtree(whole.job.keep)
    interrupted = Running(make(**recipe()))

    def stop() -> None:
        if any(each.stage == "checkpoint" for each in interrupted.told()):
            raise Stopped

    with pytest.raises(Stopped):
        interrupted.work(stop)
    assert ran(make(**recipe()))[1] == told


def test_answers_change_nothing_about_what_is_trained(make: Make) -> None:
    with_them, without = make(**recipe()), make(**recipe(options={"generate": False}))
    for each in (with_them, without):
        shutil.rmtree(each.job.keep, ignore_errors=True)
        ran(each)
    others = trainable(without.module)
    assert all(torch.equal(value, others[name]) for name, value in trainable(with_them.module).items())


LONG: Mapping[str, Any] = {
    "files": {"rows.jsonl": [{"prompt": f"{'quick brown ' * 6}{n}:", "completion": " dog"} for n in range(20)]},
    "options": {"generate": {"tokens": 24, "rows": 4}}, "max_length": 100, "batch_size": 4,
}  # fmt: skip


@pytest.mark.parametrize(("method", "near"), [("lora", 0.1), ("prompt", 0.15)])  # the second is far below training
def test_memory_of_answers_is_planned(serve: Serve, tmp_path: Path, method: str, near: float) -> None:
    prepared = maker(serve, tmp_path)(**recipe(method=method, **LONG))
    answers, module = answers_of(prepared), prepared.module.eval()
    prompts, endless = [each.prompt for each in answers.questions], replace(answers.writer, ends=())
    taken = allocated(lambda: endless.answers(module, prompts, lambda: None))
    assert prepared.plan.facts["bytes"]["writing"] == pytest.approx(taken, rel=near)


def test_of_a_conversation_the_last_answer_is_wanted() -> None:
    labels = [IGNORED, 2, 3, IGNORED, IGNORED, 6, 7]
    talk, bare, nothing = Example(range(1, 8), labels), Example([1, 2], [1, 2]), Example([1, 2], [IGNORED] * 2)
    assert generating.questions([bare, nothing, talk, talk], 1) == [Question(range(1, 6), range(6, 8))]
    pair = Example([1, 2], [IGNORED] * 2, others=(Example([3], [3], aligned=True),), aligned=True)
    assert generating.questions([pair], 9) == [Question([1, 2], [3])]


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"eval_fraction": 0}, "generate", "generate goes with figures of held-out rows"),
        ({"files": {"rows.jsonl": [{"text": f"{n} a b"} for n in range(20)]}}, "generate", "a prompt and an answer"),
        ({"options": {"generate": {"tokens": 4000}}}, "tokens", "the longest prompt takes .* it is at most"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_any_work(
    make: Make, changes: dict[str, Any], name: str, said: str
) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        make(**{**recipe(), **changes})
    assert caught.value.name == name and caught.value.want


SMALL: Mapping[str, Any] = {"vocab_size": tiny_models.VOCABULARY, "pad_token_id": 2, "eos_token_id": 1}
WRITERS: Mapping[str, Callable[[], Any]] = {
    "T5": lambda: transformers.T5Config(
        d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=2, **SMALL
    ),
    "Bart": lambda: transformers.BartConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=160, decoder_start_token_id=1,
        forced_eos_token_id=None, **SMALL,
    ),
}  # fmt: skip


@pytest.fixture
def make_writer(ops: OpTable, tmp_path: Path) -> Callable[[str], Make]:
    """Prepares jobs of a model with encoder and decoder, by its family."""

    def made(family: str) -> Make:
        module = tiny_kinds.build(WRITERS[family](), f"{family}ForConditionalGeneration")
        tiny_kinds.save(tmp_path / "served", module, tiny_models.byte_level())
        engine = Engine(ops)
        engine.load("m", tiny_models.source_of(tmp_path / "served"), LoadSettings(dtype="float32"), tiny_models.silent)
        return maker(lambda *_, **__: (engine.base("m"), tmp_path), tmp_path)

    return made


@pytest.mark.slow
@pytest.mark.parametrize("family", WRITERS)
def test_a_decoder_answers_what_an_encoder_has_read(make_writer: Callable[[str], Make], family: str) -> None:
    prepared = make_writer(family)(**recipe(objective="seq2seq"))
    moved(prepared)
    answers, module = answers_of(prepared), prepared.module.eval()
    prompts = [each.prompt for each in answers.questions]
    said = answers.writer.answers(module, prompts, lambda: None)
    assert any(said)
    for prompt, answer in zip(prompts, said, strict=True):
        ids = [module.config.decoder_start_token_id]
        with torch.no_grad():
            for token in answer:
                given = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.tensor([ids])}
                assert module(**given, use_cache=False).logits[0, -1].argmax() == token
                ids.append(token)
    _, told = ran(prepared)
    assert told["texts"]["rows"] == 5 and "bleu" in told["figures"]


@pytest.mark.slow
@pytest.mark.parametrize("family", WRITERS)
def test_memory_of_a_decoder_is_planned(make_writer: Callable[[str], Make], family: str) -> None:
    prepared = make_writer(family)(**recipe(objective="seq2seq", **LONG))
    answers, module = answers_of(prepared), prepared.module.eval()
    prompts, endless = [each.prompt for each in answers.questions], replace(answers.writer, ends=())
    taken = allocated(lambda: endless.answers(module, prompts, lambda: None))
    assert prepared.plan.facts["bytes"]["writing"] == pytest.approx(taken, rel=0.1)
