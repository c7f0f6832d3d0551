"""Texts to lines of token ids, and lines to padded batches.

Padding must not change what a model answers. Whether that holds is tried once for each model: lines of different
lengths share a batch only where a padded batch answers what each line answers alone. Where it can be, the padding is
then left out of the model's layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument, TooLarge

from ...contract import Prompt
from ...ops.table import OpTable
from .. import packing, tokens
from ..loader import FAILURES, Bundle
from ..packing import Packing
from ..reach import Refused
from .base import Line
from .options import Options

TRIALS = ("a", "a b c d e f g")
PACKED_TRIALS = (7, 150, 1, 33)
"""Tokens of the lines with which packing is tried."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}
"""Of the largest value: what another shape of the same product may change."""


@dataclass(frozen=True)
class Encoded:
    """A text, or a pair, as ids; `encoding` is what a fast tokenizer knows beside, in the order of the ids."""

    line: Line
    ids: Sequence[int]
    truncated: bool = False
    encoding: Any = None

    @property
    def offsets(self) -> Sequence[tuple[int, int]]:
        """The characters of each token; ids that are not of a text have none."""
        return [(0, 0)] * len(self.ids) if self.encoding is None else list(self.encoding.offsets)

    @property
    def parts(self) -> Sequence[int | None]:
        """The part of each token, 0 or 1; None for special ones."""
        return () if self.encoding is None else list(self.encoding.sequence_ids)

    @property
    def words(self) -> Sequence[int | None]:
        """The word of each token."""
        return () if self.encoding is None else list(self.encoding.word_ids)

    def characters(self, first: int, last: int, *, whole_words: bool) -> tuple[int, int]:
        """Where the text of some tokens of one part stands."""
        here = list(zip(self.parts, self.words, strict=True))
        while whole_words and here[first - 1] == here[first] and first > 0:
            first -= 1
        while whole_words and last + 1 < len(here) and here[last + 1] == here[last]:
            last += 1
        return self.offsets[first][0], self.offsets[last][1]


class TextFront:
    """The tokenizer of one model, and how its lines may be batched."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.tokenizer = bundle.tokenizer
        self.limit = bundle.about.context
        self.batching = "padded"
        """padded, equal (only lines of one length) or single."""
        self.unpacked = "it was not tried"
        """Why layers are given padding; empty when they are not."""
        self._packing: Packing | None = None
        pad, config = self.tokenizer.pad_token_id, bundle.module.config
        if getattr(config, "pad_token_id", None) is None and pad is not None:
            config.pad_token_id = pad  # by which causal models find a line's last token
        self._padding = {"input_ids": 0 if pad is None else pad, "token_type_ids": self.tokenizer.pad_token_type_id}

    def settle(self, module: Any) -> None:
        """Find out how lines may be batched, with a few tokens."""
        short, long = (self.encode(text).line for text in TRIALS)
        cut = replace(long, inputs={name: value[: short.length] for name, value in long.inputs.items()})
        self.batching = "single"
        for batching, pair in (("padded", (short, long)), ("equal", (short, replace(cut, length=short.length)))):
            if self._agree(module, pair):
                self.batching = batching
                break

    def pack(self, module: Any, ops: OpTable) -> None:
        """Leave padding out of the layers of a model where that answers the same; else it stays as it is."""
        generator, pad = torch.Generator().manual_seed(0), self._padding["input_ids"]
        ids = torch.randint(self.bundle.vocabulary - 1, (self.limit,), generator=generator)
        lines = [self.line((ids[:count] + (ids[:count] >= pad)).tolist()) for count in PACKED_TRIALS]
        try:
            self.unpacked = self._packed(module, lines, ops)
        except FAILURES as error:
            self.unpacked = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        if self.unpacked and self._packing is not None:
            packing.unpack(module, self._packing)
            self._packing = None

    def texts(self, prompt: Prompt, what: str, least: int = 1, most: int | None = None) -> list[str]:
        """The texts of a prompt, one or several parts. Raises BadArgument for anything else."""
        given = [prompt.text] if prompt.text is not None else prompt.parts
        got = len(given) if given is not None else 0
        if given is None or got < least or (most is not None and got > most):
            raise BadArgument(f"the input must be {what}", name="input", got=f"{got} texts", want=what)
        texts = [each for each in given if isinstance(each, str)]
        if len(texts) < got:
            raise BadArgument(f"the input must be {what}, without other parts", name="input", got="parts", want=what)
        return texts

    def encode(
        self, text: str, pair: str | None = None, most: int | None = None, cut: str = "longest_first"
    ) -> Encoded:
        """A text or a pair as a line; with `most`, cut to so many tokens. Raises TooLarge, BadArgument."""
        limit = self._limit(most, pair is not None)
        shortened, given = False, [each for each in (text, pair) if each is not None]
        if sum(map(len, given)) > limit * tokens.CHARACTERS_PER_TOKEN:
            self._check(most is not None, sum(map(len, given)) // tokens.CHARACTERS_PER_TOKEN)
            given = [each[: limit * tokens.CHARACTERS_PER_TOKEN] for each in given]
            shortened = True
        options: dict[str, Any] = {} if most is None else {"truncation": cut, "max_length": limit}
        made = self.tokenizer(*given, verbose=False, **options)
        ids = made["input_ids"]
        self._check(len(ids) <= limit, len(ids))
        if not self.tokenizer.is_fast:
            return Encoded(self.line(ids, made), ids, truncated=shortened or len(ids) == most)
        encoding = made.encodings[0]
        return Encoded(self.line(ids, made), ids, shortened or bool(encoding.overflowing), encoding)

    def windows(self, texts: Sequence[str], size: int, stride: int | None, cut: str) -> list[Encoded]:
        """A text, or the second of a pair, in windows of `size` tokens that share `stride`. Needs a fast tokenizer.

        By default they share 128 tokens, or half of what a window has room for.

        Raises TooLarge when a question leaves no room in a window, BadArgument for a stride that does not fit.
        """
        pair = len(texts) == 2
        head = self.tokenizer(texts[0], add_special_tokens=False, verbose=False)["input_ids"] if pair else []
        room = size - self.tokenizer.num_special_tokens_to_add(pair=pair) - len(head)
        if room < 1:
            said = f"the question has {len(head)} tokens and leaves no room in a window of {size}"
            raise TooLarge(said, limit=size, got=len(head))
        if stride is None:
            stride = min(128, room // 2)
        if stride >= room:
            want = f"less than {room}"
            raise BadArgument(f"stride is {stride}, not {want}", name="stride", got=str(stride), want=want)
        made = self.tokenizer(
            *texts, truncation=cut, max_length=size, stride=stride, return_overflowing_tokens=True, verbose=False,
        )  # fmt: skip
        found = []
        for at, (ids, encoding) in enumerate(zip(made["input_ids"], made.encodings, strict=True)):
            found.append(Encoded(self.line(ids, {name: made[name][at] for name in made}), ids, encoding=encoding))
        if not any(part == len(texts) - 1 for each in found for part in each.parts):
            raise BadArgument("the text has no tokens", name="input", got="no tokens", want="at least one token")
        return found

    def line(self, ids: Sequence[int], more: Any = None) -> Line:
        """A line of ids. What the tokenizer said beside them is taken along; padding inside them does not count."""
        inputs = {"input_ids": torch.tensor(ids)}
        for name in self.tokenizer.model_input_names:
            if name != "input_ids":
                filler = [int(name == "attention_mask")] * len(ids)
                inputs[name] = torch.tensor(more[name] if more is not None and name in more else filler)
        if more is None and "attention_mask" in inputs and self.tokenizer.pad_token_id is not None:
            inputs["attention_mask"] = inputs["input_ids"].ne(self.tokenizer.pad_token_id).long()
        shape = {"padded": None, "equal": len(ids), "single": object()}[self.batching]
        return Line(inputs, len(ids), shape)

    def one(self, prompt: Prompt, most: int | None = None) -> tuple[str, Encoded]:
        """One text, or token ids as they are (with an empty text), as a line; with `most`, cut.

        Raises BadArgument, TooLarge.
        """
        if prompt.ids is None and prompt.messages is None:
            (text,) = self.texts(prompt, "one text or token ids", most=1)
            return text, self.encode(text, most=most)
        ids, truncated = tokens.truncated(self.bundle, prompt, most)
        return "", Encoded(self.line(ids), ids, truncated)

    def collate(self, lines: Sequence[Line]) -> dict[str, Tensor]:
        """The lines as one batch [lines, longest], padded at the right."""
        size = max(line.length for line in lines)
        batch = {name: torch.full((len(lines), size), self._padding.get(name, 0)) for name in lines[0].inputs}
        for number, line in enumerate(lines):
            for name, value in line.inputs.items():
                batch[name][number, : line.length] = value
        return batch

    def forward(self, module: Any, batch: Mapping[str, Tensor]) -> Any:
        """What a module answers to a batch, given what it accepts of it."""
        accepted = inspect.signature(module.forward).parameters
        given = {name: value.to(module.device) for name, value in batch.items() if name in accepted}
        options = {"use_cache": False} if "use_cache" in accepted else {}
        mask, whole = batch.get("attention_mask"), self._packing
        if whole is None or mask is None or not packing.fits(mask):
            return module(**given, **options, return_dict=True)
        with whole.batch(mask.to(module.device)):
            return module(**given, **options, return_dict=True)

    def _packed(self, module: Any, lines: Sequence[Line], ops: OpTable) -> str:
        """Pack a model and try it; why it is not to stay so."""
        if self.batching != "padded" or "attention_mask" not in lines[0].inputs:
            return f"its batches are {self.batching}, without a mask that it obeys"
        alone = [self.forward(module, self.collate([line]))[0][0] for line in lines]
        batch = self.collate(lines)
        try:
            self._packing = packing.pack(module, self.limit, ops, lambda: self.forward(module, batch))
            together = self.forward(module, batch)[0]
        except Refused as error:
            return str(error)
        return "" if self._same(together, alone, lines) else "it answers differently"

    def _agree(self, module: Any, pair: Sequence[Line]) -> bool:
        """Whether two lines answer in one batch what each answers alone."""
        try:
            together = self.forward(module, self.collate(pair))[0]
            alone = [self.forward(module, self.collate([line]))[0][0] for line in pair]
        except ValueError:
            return False
        return self._same(together, alone, pair)

    @staticmethod
    def _same(together: Tensor, alone: Sequence[Tensor], lines: Sequence[Line]) -> bool:
        """Whether what lines answer in one batch is what each answers alone."""
        per_token = all(len(single) == line.length for single, line in zip(alone, lines, strict=True))
        cut = [row[: line.length] if per_token else row for row, line in zip(together, lines, strict=True)]
        return all(close(row, single) for row, single in zip(cut, alone, strict=True))

    def _limit(self, most: int | None, pair: bool) -> int:
        special = self.tokenizer.num_special_tokens_to_add(pair=pair)
        if most is not None and most <= special:
            want = f"more than the {special} special tokens of this model"
            raise BadArgument(f"max_tokens is {most}, not {want}", name="max_tokens", got=str(most), want=want)
        return self.limit if most is None else min(most, self.limit)

    def _check(self, fits: bool, got: int) -> None:
        if not fits:
            said = f"the input has {got} tokens, the model takes {self.limit}; set max_tokens to truncate it"
            raise TooLarge(said, limit=self.limit, got=got)
        if not got:
            raise BadArgument("the input has no tokens", name="input", got="no tokens", want="at least one token")


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two answers of a model to the same are the same but for rounding."""
    scale = float(other.abs().max())
    return bool((one - other).abs().max() <= TOLERANCE[other.dtype] * max(scale, 1e-6))


CUT = {"max_tokens": "cut longer input to so many tokens; by default it is refused"}
"""An option that most tasks take."""


def most_tokens(options: Options) -> int | None:
    """The option `max_tokens`."""
    return options.whole("max_tokens", 0, 1) if "max_tokens" in options else None
