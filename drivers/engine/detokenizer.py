"""Token ids to text, piece by piece: whole characters only, and the pieces together are the text.

Byte-level BPE and byte-fallback tokenizers are decoded exactly, byte for byte; bytes that can never become a character
turn into U+FFFD, a character that is still incomplete when the answer ends is left out. Any other tokenizer is asked to
decode a short window, and what it adds to the window before is the piece. Special tokens have no text. The clean-up of
spaces before punctuation that some tokenizers ask for is not done: it would change text that has already been sent.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

PRIMING_TOKENS = 8
"""Tokens of a prompt that decide how its continuation reads: spaces between words, a character cut in two."""

WINDOW_TOKENS = 4
HELD_TOKENS = 8
"""A character has at most four bytes; a tokenizer that still shows U+FFFD after this many tokens means it."""

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Detokenizer(Protocol):
    """The text of one answer as it grows."""

    def feed(self, token: int) -> str:
        """The text that this token completes; may be empty."""


class Vocabulary:
    """What a tokenizer's tokens stand for; built once for each model."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, bytes] = {}
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special = frozenset(tokenizer.all_special_ids) | {id for id, token in added.items() if token.special}
        self._to_bytes, self._strip = _byte_rule(tokenizer)

    def detokenizer(self, prompt: Sequence[int] = ()) -> Detokenizer:
        """A decoder of what follows `prompt`; with an empty one, of a text of its own."""
        decoder = (
            _WindowDetokenizer(self._decode, self._is_silent)
            if self._to_bytes is None
            else _ByteDetokenizer(self.bytes_of, self._strip)
        )
        for token in prompt[-PRIMING_TOKENS:]:
            decoder.feed(token)
        return decoder

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token of a byte-level or byte-fallback tokenizer; empty for special and unknown ones."""
        known = self._pieces.get(token)
        if known is None:
            piece = None if token in self.special else self._tokenizer.convert_ids_to_tokens(token)
            known = b"" if piece is None or self._to_bytes is None else self._to_bytes(piece)
            self._pieces[token] = known
        return known

    def text_of(self, token: int) -> str:
        """A token alone, for people to read: special tokens by name, parts of characters as U+FFFD."""
        if token in self.special or self._to_bytes is None:
            return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return self.bytes_of(token).decode("utf-8", "replace")

    def _is_silent(self, token: int) -> bool:
        return token in self.special or self._tokenizer.convert_ids_to_tokens(token) is None

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False))


class _ByteDetokenizer:
    """Feeds the bytes of tokens through an incremental UTF-8 decoder."""

    def __init__(self, bytes_of: Callable[[int], bytes], strip: int) -> None:
        self._bytes_of = bytes_of
        self._strip = strip
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        text = self._utf8.decode(self._bytes_of(token))
        while self._strip and text:
            if not text.startswith(" "):
                self._strip = 0
                break
            text, self._strip = text[1:], self._strip - 1
        return text


class _WindowDetokenizer:
    """Decodes the last tokens again with each new one; holds back while the end may still change."""

    def __init__(self, decode: Callable[[Sequence[int]], str], is_silent: Callable[[int], bool]) -> None:
        self._decode = decode
        self._is_silent = is_silent
        self._before: list[int] = []
        self._held: list[int] = []

    def feed(self, token: int) -> str:
        if self._is_silent(token):
            return ""
        self._held.append(token)
        text = self._decode(self._before + self._held)
        if text.endswith(("\ufffd", "@@")) and len(self._held) < HELD_TOKENS:
            return ""
        before = self._decode(self._before) if self._before else ""
        piece = text[len(before) :] if text.startswith(before) else self._decode(self._held)
        self._before = (self._before + self._held)[-WINDOW_TOKENS:]
        self._held = []
        return piece


def _byte_rule(tokenizer: Any) -> tuple[Callable[[str], bytes] | None, int]:
    """How to turn a piece into bytes, and how many spaces a text loses at its start; (None, 0) for other tokenizers."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return None, 0
    rule = json.loads(backend.decoder.__getstate__())
    steps = rule["decoders"] if rule["type"] == "Sequence" else [rule]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _byte_level(), 0
    if "ByteFallback" not in kinds or not set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip"}:
        return None, 0
    replaced = [(step["pattern"].get("String"), step["content"]) for step in steps if step["type"] == "Replace"]
    strips = [step for step in steps if step["type"] == "Strip"]
    if any(old is None for old, _ in replaced) or any(step["content"] != " " or step["stop"] for step in strips):
        return None, 0
    return _byte_fallback(replaced), sum(step["start"] for step in strips)


def _byte_level() -> Callable[[str], bytes]:
    """GPT-2's printable stand-ins for bytes; a piece with any other character stands for itself (an added token)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}

    def to_bytes(piece: str) -> bytes:
        if all(character in table for character in piece):
            return bytes(table[character] for character in piece)
        return piece.encode()

    return to_bytes


def _byte_fallback(replaced: Sequence[tuple[str, str]]) -> Callable[[str], bytes]:
    """`<0x41>` is a byte, anything else is text after the replacements."""

    def to_bytes(piece: str) -> bytes:
        byte = BYTE_TOKEN.fullmatch(piece)
        if byte is not None:
            return bytes([int(byte[1], 16)])
        for old, new in replaced:
            piece = piece.replace(old, new)
        return piece.encode()

    return to_bytes
