"""The tokens of a `tokenizer.json` as GGUF keeps them.

Two kinds are known: byte-level BPE (`gpt2`), whose way of cutting words has a name there, and SentencePiece's BPE with
bytes to fall back on (`llama`), which merges by scores: those follow the order of merges here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import NotSupported

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS: Mapping[str, str] = {LLAMA_3: "llama-bpe", LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}"): "qwen2", "": "gpt-2"}
"""What llama.cpp calls the patterns that words are cut by; none is that of GPT-2."""
UNKNOWN_CUT = "words are cut by a rule that GGUF has no name for: others split texts into other tokens"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids, and how texts become tokens. `note` tells what was not to be said in GGUF."""

    model: str
    pre: str
    tokens: list[str]
    kinds: list[int]
    scores: list[float]
    merges: list[str]
    prefix: bool
    note: str = ""

    def add_to(self, writer: Any) -> None:
        """Write it into a `gguf.GGUFWriter`."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        if self.scores:
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.prefix)
        if self.merges:
            writer.add_token_merges(self.merges)


def read(text: str, size: int) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`, filled up to `size` tokens. Raises NotSupported for other kinds."""
    told = json.loads(text)
    model = told["model"]
    fallback = bool(model.get("byte_fallback"))
    steps = _steps(told)
    if model.get("type") != "BPE" or not (fallback or any(step["type"] == "ByteLevel" for step in steps)):
        why = f"a tokenizer of the kind {model.get('type')}: byte-level BPE and SentencePiece's BPE are exported"
        raise NotSupported(why, why=why)
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    tokens, kinds = _tokens(told, max(size, len(model["vocab"])), model.get("unk_token"))
    if fallback:
        ranks = {"".join(each.split(" ")): rank for rank, each in reversed([*enumerate(merges)])}
        scores = [-float(ranks.get(token, len(merges))) for token in tokens]
        return Vocabulary("llama", "default", tokens, kinds, scores, [], _prefixed(told, steps))
    cut = next((step["pattern"].get("Regex", "?") for step in steps if step["type"] == "Split"), "")
    note = "" if cut in CUTS else UNKNOWN_CUT
    return Vocabulary("gpt2", CUTS.get(cut, "default"), tokens, kinds, [], merges, False, note)


def _tokens(told: Mapping[str, Any], size: int, unknown: str | None) -> tuple[list[str], list[int]]:
    from gguf import TokenType

    tokens = [f"[PAD{at}]" for at in range(size)]
    kinds = [int(TokenType.UNUSED)] * size
    for token, at in told["model"]["vocab"].items():
        byte = token.startswith("<0x") and len(token) == 6 and token.endswith(">")
        tokens[at] = token
        kinds[at] = int(TokenType.BYTE if byte else TokenType.NORMAL)
    for each in told.get("added_tokens", ()):
        if each["id"] < size:
            tokens[each["id"]] = each["content"]
            kinds[each["id"]] = int(TokenType.CONTROL if each["special"] else TokenType.USER_DEFINED)
    if unknown in told["model"]["vocab"]:
        kinds[told["model"]["vocab"][unknown]] = int(TokenType.UNKNOWN)
    return tokens, kinds


def _steps(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What cuts texts into words, one after the other."""
    first = told.get("pre_tokenizer")
    return [] if first is None else list(first.get("pretokenizers", [first]))


def _prefixed(told: Mapping[str, Any], steps: list[Mapping[str, Any]]) -> bool:
    """Whether texts get a space before them."""
    first = told.get("normalizer")
    parts = [] if first is None else first.get("normalizers", [first])
    prepends = any(part["type"] == "Prepend" for part in parts)
    return prepends or any(step["type"] == "Metaspace" and step.get("prepend_scheme") != "never" for step in steps)
