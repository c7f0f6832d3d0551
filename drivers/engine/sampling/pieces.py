"""The bytes that each token of a tokenizer stands for, which is how a grammar sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmos.syscalls.errors import NotSupported

from ..detokenizer import Vocabulary

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
MARK = "\u2581"
"""What sentencepiece writes for a space."""

TRIALS = 256
TRIAL_TOKENS = 3
UNKNOWN = "\ufffd"

Rule = Callable[[int], bytes]


@dataclass(frozen=True)
class Pieces:
    """`bytes_of[id]` is empty for an id that is no token; `special` tokens have their name there instead of a text."""

    bytes_of: Sequence[bytes]
    special: frozenset[int]


def pieces(tokenizer: Any, vocabulary: Vocabulary) -> Pieces:
    """The bytes of every token.

    Byte-level, byte-fallback and metaspace tokenizers have them, those written in Python too. Whatever is proposed is
    verified: the bytes of some tokens one after the other must be the text that the tokenizer decodes them to. Raises
    NotSupported, with the reason, for a tokenizer whose tokens read differently depending on their neighbours.
    """
    names = {id: str(name) for name, id in tokenizer.get_vocab().items()}
    size = max(names, default=-1) + 1
    special = vocabulary.special & names.keys()
    why = "its tokens have no bytes of their own"
    for rule in _rules(tokenizer, vocabulary):
        found = [b"" if id in special or id not in names else rule(id) for id in range(size)]
        wrong = _difference(tokenizer, found)
        if wrong is None:
            named = [names[id].encode() if id in special else piece for id, piece in enumerate(found)]
            return Pieces(named, frozenset(special))
        why = wrong
    kind = type(tokenizer).__name__
    raise NotSupported(f"structured output does not work with this model's tokenizer ({kind}): {why}", why=why)


def _rules(tokenizer: Any, vocabulary: Vocabulary) -> Iterator[Rule]:
    """Ways to turn a token into bytes that may fit the tokenizer."""
    to_piece = tokenizer.convert_ids_to_tokens
    yield vocabulary.bytes_of
    table = getattr(tokenizer, "byte_decoder", None)
    if isinstance(table, dict):
        yield partial(_from_table, to_piece, table)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield partial(_marked, to_piece, MARK)
    elif backend.decoder is not None:
        decoder = json.loads(backend.decoder.__getstate__())
        steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
        for step in steps:
            if step["type"] == "Metaspace":
                yield partial(_marked, to_piece, step["replacement"])


def _from_table(to_piece: Callable[[int], str], table: Mapping[str, int], id: int) -> bytes:
    """Stand-ins for bytes, as in GPT-2."""
    piece = to_piece(id)
    if all(character in table for character in piece):
        return bytes(table[character] for character in piece)
    return piece.encode()


def _marked(to_piece: Callable[[int], str | bytes], mark: str, id: int) -> bytes:
    """Marks for spaces, as in sentencepiece; a piece of bytes (tiktoken) is what it is."""
    piece = to_piece(id)
    if isinstance(piece, bytes):
        return piece
    byte = BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte is not None else piece.replace(mark, " ").encode()


def _difference(tokenizer: Any, found: Sequence[bytes]) -> str | None:
    """Where the text of some tokens in a row is not their bytes; leading spaces may be lost at the start of a text."""
    tokens = [id for id, piece in enumerate(found) if piece]
    if not tokens:
        return "its tokens have no bytes of their own"
    step = max(1, len(tokens) // TRIALS)
    for start in range(0, len(tokens), step):
        row = [tokens[(start * (turn + 1) + turn) % len(tokens)] for turn in range(TRIAL_TOKENS)]
        text = str(tokenizer.decode(row, clean_up_tokenization_spaces=False))
        ours = b"".join(found[id] for id in row).decode("utf-8", "replace")
        if UNKNOWN not in ours and UNKNOWN not in text and ours.lstrip(" ") != text.lstrip(" "):
            return f"the tokens {row} read {text!r}, one by one {ours!r}"
    return None
