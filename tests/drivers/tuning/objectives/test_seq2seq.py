"""A text into another: the loss is that of the library's own models."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers
import tuning_runs

from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.objectives.seq2seq import Seq2seq

COMMON: dict[str, Any] = {"vocab_size": tuning_runs.VOCABULARY, "pad_token_id": 0, "decoder_start_token_id": 0}
MODELS = {
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0, **COMMON
    )),
    "bart": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(
        d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64, dropout=0.0, **COMMON,
    )),
}  # fmt: skip


def batch() -> Batch:
    read, written = (collate([[each] for each in tuning_runs.sentences(4, seed)]) for seed in (1, 2))
    labels = torch.where(written.attention_mask.bool(), written.input_ids, -100)
    return dataclasses.replace(read, others=(dataclasses.replace(written, labels=labels),))


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_the_librarys(name: str) -> None:
    given = batch()
    torch.manual_seed(1)
    tuning_runs.same_as_the_librarys(Seq2seq(), MODELS[name](), given, labels=given.others[0].labels)


def test_it_is_the_mean_over_what_is_written() -> None:
    given = batch()
    assert Seq2seq().weight(given) == float(given.others[0].attention_mask.sum())
