"""Loaded tiny models that tests of the engine share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tiny_models import build, byte_level, silent, source_of, word_piece

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import loader
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

transformers.utils.logging.disable_progress_bar()
Copy = Callable[..., Path]


@pytest.fixture(scope="session")
def ops() -> OpTable:
    table = OpTable()
    register_reference(table)
    return table


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama with a chat template and a beginning-of-text token."""
    return build(tmp_path_factory.mktemp("models") / "llama", tokenizer=byte_level(chat=True, bos=True))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    config = transformers.BertConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=80, pad_token_id=0,
    )  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    word_piece().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(llama: Path) -> Bundle:
    return loader.load(source_of(llama), LoadSettings(), silent)


@pytest.fixture(scope="session")
def plain(bundle: Bundle) -> Bundle:
    """The same model without a chat template."""
    tokenizer: Any = copy.copy(bundle.tokenizer)
    tokenizer.chat_template = None
    return Bundle(bundle.module, tokenizer, bundle.about, bundle.eos, bundle.vocabulary)


@pytest.fixture(params=["P", "G"])
def rung(request: pytest.FixtureRequest) -> str:
    """The rungs that generate; what a request gets is the same on each."""
    return str(request.param)


@pytest.fixture
def engine(ops: OpTable, llama: Path, rung: str) -> Engine:
    """An engine with a llama called `m`."""
    made = Engine(ops)
    made.load("m", source_of(llama), LoadSettings(rung=rung), silent)
    return made


@pytest.fixture
def copied(llama: Path, tmp_path: Path) -> Copy:
    """A copy of the llama's folder to damage; `without` names files to leave out."""

    def copy_folder(*without: str) -> Path:
        folder = tmp_path / "copy"
        folder.mkdir()
        for path in llama.iterdir():
            if path.name not in without:
                (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copy_folder
