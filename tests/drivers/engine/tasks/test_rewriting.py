"""Text to text: what `generate` of the plain model writes, one by one or in shared flights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_kinds import (
    SENTENCES, answer, ask, build, generate_runner, load, pair_tokenizer, save, together_and_alone,
)  # fmt: skip

from llmos.drivers.contract import DoneEvent
from llmos.drivers.engine.loader import Bundle
from llmos.syscalls.errors import BadArgument, TooLarge

TASK = "text2text-generation"
MODELS: dict[str, dict[str, Any]] = {
    "T5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    "Bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 2,
             "forced_bos_token_id": None, "forced_eos_token_id": None},
}  # fmt: skip


def writer(folder: Path, family: str, **fields: Any) -> Path:
    """The first random model that writes different texts without repeating itself."""
    fields = {"eos_token_id": 3, "bos_token_id": 2, **MODELS[family], **fields}
    for seed in range(60):
        size = {"vocab_size": 320, "pad_token_id": 0, "tie_word_embeddings": False}
        config = getattr(transformers, f"{family}Config")(**size, **fields)
        module = build(config, f"{family}ForConditionalGeneration", seed, 40.0 if family == "T5" else 4.0)
        save(folder, module, pair_tokenizer())
        texts = {tuple(plain(folder, text, max_new_tokens=12)) for text in SENTENCES[:4]}
        if len(texts) >= 3 and max(len(set(text)) for text in texts) >= 4:
            return folder
    raise AssertionError("the model repeats itself")


def plain(folder: Path, text: str, **options: Any) -> list[int]:
    """What the library itself writes: new tokens, with the end token if there is one."""
    module: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    made = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        options = {"num_beams": 1, "do_sample": False, **options}
        made = module.generate(made["input_ids"], attention_mask=made["attention_mask"], **options)
    return [int(token) for token in made[0, 1:] if int(token) != 0]


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writer(tmp_path_factory.mktemp("m"), request.param)


def tokens(event: DoneEvent) -> list[int]:
    return [token for token in event.choices[0].tokens if token != 0]


def test_texts_are_those_of_generate(folder: Path) -> None:
    runner = generate_runner(load(folder))
    requests = [ask(text, TASK, text, sampling={"max_tokens": 12}) for text in SENTENCES]
    seen = set()
    for text, *events in zip(SENTENCES, *together_and_alone(runner, requests), strict=True):
        expected = plain(folder, text, max_new_tokens=12)
        for event in events:
            assert tokens(event) == expected
            assert event.choices[0].reason == ("stop" if expected[-1] == 3 else "length")
            assert event.new_tokens == len(event.choices[0].tokens) and event.device_ns > 0
        seen.add(tuple(expected))
    assert len(seen) >= 3


@pytest.mark.parametrize("options", [{}, {"length_penalty": 3.0}, {"min_new_tokens": 8}, {"no_repeat_ngram_size": 1}])
def test_beams_and_settings_of_the_generation_are_those_of_generate(folder: Path, options: dict[str, Any]) -> None:
    runner = generate_runner(load(folder))
    requests = [
        ask(text, TASK, text, sampling={"max_tokens": 10, "beams": 3}, **options) for text in SENTENCES[:4]
    ]
    for text, *events in zip(SENTENCES, *together_and_alone(runner, requests), strict=False):
        expected = plain(folder, text, max_new_tokens=10, num_beams=3, **options)
        assert [tokens(event) for event in events] == [expected] * 2


def heat(bundle: Bundle) -> float:
    """A temperature at which the model says different things."""
    return 60.0 if bundle.about.config.model_type == "t5" else 1.0


def test_sampling_gives_the_same_tokens_in_any_flight(folder: Path) -> None:
    bundle = load(folder)
    runner = generate_runner(bundle)
    draw = {"max_tokens": 8, "temperature": heat(bundle), "ignore_eos": True}
    requests = [ask(text, TASK, text, sampling={**draw, "seed": at}) for at, text in enumerate(SENTENCES)]
    together, alone = together_and_alone(runner, requests)
    assert [tokens(event) for event in together] == [tokens(event) for event in alone]
    again = answer(runner, SENTENCES[0], TASK, sampling={**draw, "seed": 99})
    assert tokens(again) != tokens(alone[0])


def test_several_answers_and_log_probabilities(folder: Path) -> None:
    bundle = load(folder)
    runner = generate_runner(bundle)
    asked = {"max_tokens": 6, "temperature": heat(bundle), "seed": 1, "n": 3, "logprobs": 2, "ignore_eos": True}
    event = answer(runner, SENTENCES[0], TASK, sampling=asked)
    assert [choice.index for choice in event.choices] == [0, 1, 2]
    assert len({tuple(choice.tokens) for choice in event.choices}) >= 2
    for choice in event.choices:
        assert choice.logprobs is not None and len(choice.logprobs) == 6
        assert all(each.token == token for each, token in zip(choice.logprobs, choice.tokens, strict=True))


def test_summaries_and_translations_have_the_prefix_of_the_model(tmp_path: Path) -> None:
    params = {"summarization": {"prefix": "the text: "}, "translation_en_to_de": {"prefix": "fox: "}}
    folder = writer(tmp_path, "T5", task_specific_params=params)
    runner, sampling = generate_runner(load(folder)), {"max_tokens": 8}
    differ = 0
    for text in SENTENCES[:6]:
        found = answer(runner, text, "summarization", sampling=sampling)
        assert tokens(found) == plain(folder, "the text: " + text, max_new_tokens=8)
        differ += tokens(found) != plain(folder, text, max_new_tokens=8)
    assert differ
    languages = {"source_language": "en", "target_language": "de"}
    found = answer(runner, SENTENCES[2], "translation", sampling=sampling, **languages)
    assert tokens(found) == plain(folder, "fox: " + SENTENCES[2], max_new_tokens=8)


def test_languages_are_marked_for_models_of_several(tmp_path: Path) -> None:
    bundle = load(writer(tmp_path, "Bart"))
    tokenizer = bundle.tokenizer
    tokenizer.add_tokens(["xx_A", "yy_B"])  # ids beyond the model are not asked for
    known = {"xx_A": 60, "yy_B": 70}
    tokenizer.lang_code_to_id, tokenizer.src_lang = known, "xx_A"
    runner = generate_runner(bundle)
    found = answer(runner, "fox", "translation", target_language="yy_B", sampling={"max_tokens": 5, "ignore_eos": True})
    assert found.choices[0].tokens[0] == 70
    seen = []
    original = runner._task._front.encode  # type: ignore[attr-defined]
    runner._task._front.encode = lambda *given, **more: (seen.append(tokenizer.src_lang), original(*given, **more))[1]  # type: ignore[attr-defined]
    answer(runner, "fox", "translation", source_language="yy_B", sampling={"max_tokens": 1})
    assert seen == ["yy_B"] and tokenizer.src_lang == "xx_A"
    with pytest.raises(BadArgument, match="target_language"):
        runner.submit(ask("fox", "translation", target_language="zz"))
    with pytest.raises(BadArgument, match="source_language"):
        runner.submit(ask("fox", "translation", source_language="zz"))
    assert tokenizer.src_lang == "xx_A"


@pytest.mark.parametrize(
    ("given", "options", "error"),
    [
        (["a", "b"], {}, BadArgument), ("fox", {"top_k": 1}, BadArgument),
        ("fox", {"length_penalty": "x"}, BadArgument), ("the quick fox " * 80, {}, TooLarge),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(folder: Path, given: Any, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        generate_runner(load(folder)).submit(ask(given, TASK, **options))


def test_token_ids_are_taken_as_they_are(folder: Path) -> None:
    runner = generate_runner(load(folder))
    ids = transformers.AutoTokenizer.from_pretrained(folder)(SENTENCES[0])["input_ids"]
    one, other = (answer(runner, given, TASK, sampling={"max_tokens": 8}) for given in (ids, SENTENCES[0]))
    assert one.choices == other.choices and one.prompt_tokens == len(ids)
