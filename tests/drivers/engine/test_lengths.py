"""How many tokens a model takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import transformers
from torch import nn

from llmos.drivers.engine.lengths import UNBOUNDED, context_of, usable_context
from llmos.syscalls.errors import BadArgument


def test_a_model_takes_what_its_configuration_says_or_what_is_asked_for() -> None:
    for config in (transformers.LlamaConfig(max_position_embeddings=128), transformers.GPT2Config(n_positions=128)):
        assert context_of(config, None) == context_of(config, 128) == 128
        assert context_of(config, 50) == 50
        for wrong in (0, 129):
            with pytest.raises(BadArgument, match="1 to 128") as error:
                context_of(config, wrong)
            assert (error.value.name, error.value.got) == ("max_context", str(wrong))


def test_a_model_without_a_limit_takes_what_is_asked_for() -> None:
    config = transformers.MambaConfig()
    assert (context_of(config, None), context_of(config, 10**6)) == (UNBOUNDED, 10**6)
    with pytest.raises(BadArgument, match="at least 1"):
        context_of(config, 0)


def test_positions_that_are_counted_from_behind_the_padding_are_fewer() -> None:
    tokenizer = SimpleNamespace(model_max_length=10**30)
    roberta, bert = (nn.ModuleDict({"position_embeddings": nn.Embedding(514, 4, index)}) for index in (1, None))
    assert usable_context(roberta, tokenizer, 514) == 512
    assert usable_context(bert, tokenizer, 514) == 514
    assert usable_context(roberta, SimpleNamespace(model_max_length=128), 514) == 128
