"""One call of `generate`: the answers of its requests, and what of the model's own settings it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_kinds import answer, ask, build, generate_runner, load, pair_tokenizer, save

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.flight import Pending, bytes_per_token
from llmos.drivers.engine.loader import Bundle

TASK = "text2text-generation"
FIELDS: dict[str, Any] = {
    "vocab_size": 320, "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2, "d_model": 32, "encoder_layers": 1,
    "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "decoder_start_token_id": 2, "forced_eos_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip


def bart(folder: Path, **settings: Any) -> Bundle:
    """A model with settings of its own for generation."""
    module = build(transformers.BartConfig(**FIELDS), "BartForConditionalGeneration", 1)
    for name, value in {"_from_model_config": False, **settings}.items():
        setattr(module.generation_config, name, value)
    return load(save(folder, module, pair_tokenizer()))


def tokens(bundle: Bundle, **sampling: Any) -> list[int]:
    asked = {"max_tokens": 8, "ignore_eos": True, **sampling}
    return list(answer(generate_runner(bundle), "the quick fox", TASK, sampling=asked).choices[0].tokens)


def test_what_sampling_says_goes_before_the_models_settings(tmp_path: Path) -> None:
    plain = tokens(bart(tmp_path / "plain"))
    own = bart(tmp_path / "own", num_beams=4, do_sample=True, repetition_penalty=9.0, max_length=3)
    assert tokens(own) == plain and len(plain) == 8


def test_end_tokens_are_ignored_when_asked(tmp_path: Path) -> None:
    plain = tokens(bart(tmp_path / "plain"))
    ends = bart(tmp_path / "ends", eos_token_id=plain[2])
    assert tokens(ends) == plain
    assert tokens(ends, ignore_eos=False) == plain[: plain.index(plain[2]) + 1]


def test_what_sampling_cannot_say_stays_the_models(tmp_path: Path) -> None:
    forced = bart(tmp_path / "forced", forced_bos_token_id=77)
    assert tokens(forced)[0] == 77
    banned = tokens(bart(tmp_path / "plain"))[1]
    kept = tokens(bart(tmp_path / "banned", suppress_tokens=[banned]))
    assert banned not in kept
    longer = bart(tmp_path / "longer", min_length=100)
    assert len(tokens(longer)) == 8  # what cannot be reached is no longer asked for


def test_repetition_is_penalised_by_the_request(tmp_path: Path) -> None:
    bundle = bart(tmp_path)
    once = tokens(bundle, repetition_penalty=1e6)
    assert len(set(once)) == len(once)


def test_a_request_can_be_begun_anew(tmp_path: Path) -> None:
    runner = generate_runner(bart(tmp_path))
    draft = runner._task.prepare(ask("fox", TASK, sampling={"seed": 3}))
    pending = Pending(draft, runner._bundle, runner._vocabulary, runner._grammars, "")
    pending.answers[0].take(50)
    again = pending.anew()
    assert (again.answers[0].tokens, again.draft) == ([], draft) and not again.ended
    assert pending.done().choices[0].tokens == [50]


def test_room_is_planned_for_keys_and_values(tmp_path: Path) -> None:
    assert bytes_per_token(bart(tmp_path)) == 2 * 2 * 32 * 4  # both, layers, width, bytes


@pytest.mark.parametrize("count", [2, 3])
def test_the_best_of_several_are_given(tmp_path: Path, count: int) -> None:
    runner = generate_runner(bart(tmp_path))
    asked = {"max_tokens": 5, "temperature": 3.0, "seed": 1, "best_of": 4, "n": count, "ignore_eos": True}
    assert SamplingParams(**asked).n == count
    with torch.inference_mode():
        event = answer(runner, "fox", TASK, sampling=asked)
    assert len(event.choices) == count and event.new_tokens == 20
