"""Models from a GGUF file as safetensors, in the architectures that are tested, with the package `gguf` of the extra
`formats`. Quantized layers keep their numbers where those are ours too; all else becomes 16 bits.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmos.drivers.contract import ModelSource
from llmos.syscalls.errors import NotSupported

from ..scan import bad
from .job import Filled, Wanted

ENDING = ".gguf"
ARCHITECTURES = ("llama", "qwen2", "qwen3")
MAGIC = b"GGUF"
_TOKENS = "tokenizer.ggml.tokens"
_SPACE = "\u2581"
"""How SentencePiece writes a space."""


def fill(wanted: Wanted, folder: Path) -> Filled:
    """Convert the model of a file.

    Raises:
        NotSupported: the `gguf` package is missing, or the architecture is none that is tested.
        BadModel: it is no GGUF file, or a damaged one.
    """
    source = wanted.source
    assert isinstance(source, ModelSource)
    file = source.files[0]
    if importlib.util.find_spec("gguf") is None:
        raise NotSupported(
            f"{file.name} cannot be read: install llmos[formats] where the kernel runs", why="no package gguf"
        )
    with file.path.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise bad(file.name, "is no GGUF file: it does not begin with GGUF")
    wanted.progress(0, file.bytes, "bytes", "read")
    facts = _facts(file.path, file.name)
    architecture = str(facts.get("general.architecture", ""))
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        why = f"architectures that are converted: {known}"
        raise NotSupported(f"{file.name} is of the architecture {architecture!r}; converted are {known}", why=why)
    kept = _convert(wanted, file.path, file.name, folder, facts)
    licence = facts.get("general.license")
    manifest: dict[str, Any] = {"origin": f"gguf {file.name} ({_quant(facts)})"}
    if kept:
        manifest["quant"] = _quant(facts).lower()
    if isinstance(licence, str) and licence:
        manifest["licence"] = licence
    return Filled(manifest, {})


def _facts(path: Path, name: str) -> dict[str, Any]:
    """The texts and numbers of the file's head; of lists only how long they are."""
    from gguf import GGUFReader
    from gguf.constants import GGUFValueType

    try:
        fields = GGUFReader(path).fields
        return {
            key: len(field.data) if field.types[0] is GGUFValueType.ARRAY else field.contents()
            for key, field in fields.items()
        }
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise bad(name, f"is damaged: {error}; copy the file again") from None


def _quant(facts: dict[str, Any]) -> str:
    from gguf.constants import LlamaFileType

    try:
        return LlamaFileType(int(facts.get("general.file_type", -1))).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return "unknown"


def _convert(wanted: Wanted, path: Path, name: str, folder: Path, facts: Mapping[str, Any]) -> bool:
    """Whether layers keep their numbers."""
    from . import gguf_weights

    keep = not wanted.options.get("dequantize", False)
    architecture = str(facts["general.architecture"])
    try:
        written = gguf_weights.write(path, name, folder, architecture, keep, wanted.progress)
        if _TOKENS in facts:
            _tokenizer(path, facts).save_pretrained(folder)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise bad(name, f"cannot be converted: {str(error)[:300]}") from None
    return bool(written.modules)


def _tokenizer(path: Path, facts: Mapping[str, Any]) -> Any:
    """The tokenizer of a file, as one that is whatever its `tokenizer.json` says.

    What the library's classes add of their own is left out: tokens that the model has no row for; and the rule of its
    Llama that a text which begins with a space gets none before it, where SentencePiece and llama.cpp always put one.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    made: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    whole = json.loads(made.backend_tokenizer.to_str())
    whole["added_tokens"] = [each for each in whole["added_tokens"] if each["id"] < facts[_TOKENS]]
    if facts.get("tokenizer.ggml.model") == "llama" and facts.get("tokenizer.ggml.add_space_prefix", True):
        marks = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        whole["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, marks]}
        whole["pre_tokenizer"] = None
    tokenizer = type(made.backend_tokenizer).from_str(json.dumps(whole))
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    named = {
        name: getattr(made, name) for name in names if tokenizer.token_to_id(getattr(made, name) or "") is not None
    }
    plain: Any = PreTrainedTokenizerFast
    return plain(tokenizer_object=tokenizer, chat_template=made.chat_template, **named)
