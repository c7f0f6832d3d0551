"""Functions of tensors whose ops are asked for once and then repeated with other addresses.

Asking for an op from Python takes some ten microseconds, and a decoding step has hundreds of them, so that a small step
would spend a fourth of its time asking. A replay notes the packed problems of one call. What was made on the way is
moved to memory that all replays share; where the addresses of inputs and of the answer stand in the problems is
remembered, and a call with inputs of the same shapes puts the new ones there: a CUDA graph of one function, as it were.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..replay import Inputs, Variant
from .native import Native, Together

MOST_ROWS = 512
"""Larger calls are not noted: they take so long that asking for their ops is nothing."""
KEPT = 64
"""Calls of different shapes that one function remembers."""
_ALIGNED = 64

Key = tuple[Hashable, ...]


class Range(NamedTuple):
    """Memory of one tensor: where it begins and ends, and what it is: an input's number, or a place in the arena."""

    start: int
    end: int
    what: int


@dataclass(frozen=True)
class Recording:
    """A program as words, where addresses stand in it, and what must live as long as it does."""

    words: memoryview
    inputs: tuple[tuple[int, int, int], ...]
    """Of each address of an input: the word, the number of the input, the offset."""
    answers: tuple[tuple[int, int], ...]
    """Of each address of the answer: the word and the offset."""
    address: int
    bytes: int
    holds: tuple[Any, ...]


class NativeReplay:
    """See `Replay` of the table."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._epoch = 0
        self._recordings: dict[Key, Recording] = {}

    def __call__(self, x: Tensor, inputs: Inputs, variant: Variant | None, run: Callable[[], Tensor]) -> Tensor:
        if variant is None or x.shape[-2] > MOST_ROWS:
            with Together(self._native):
                return run()
        if variant.epoch != self._epoch:
            self._recordings.clear()
            self._epoch = variant.epoch
        key = (variant.state, x.shape, x.stride(), inputs.shapes)
        found = self._recordings.get(key)
        if found is None:
            return self._record(key, (x, *inputs.tensors), run)
        answer = x.new_empty(x.shape)
        words = found.words
        addresses = [x.data_ptr(), *inputs.addresses]
        for word, number, offset in found.inputs:
            words[word] = addresses[number] + offset
        address = answer.data_ptr()
        for word, offset in found.answers:
            words[word] = address + offset
        self._native.run.llmos_program(found.address, found.bytes, torch.get_num_threads())
        return answer

    def _record(self, key: Key, inputs: Sequence[Tensor], run: Callable[[], Tensor]) -> Tensor:
        with Together(self._native) as block:
            answer = run()
        if len(self._recordings) >= KEPT:
            del self._recordings[next(iter(self._recordings))]
        self._recordings[key] = _moved(self._native, block, inputs, answer)
        return answer


def _moved(native: Native, block: Together, inputs: Sequence[Tensor], answer: Tensor) -> Recording:
    """The program of a block with what it made in the arena."""
    given = _Ranges(_range(tensor, number) for number, tensor in enumerate(inputs))
    answered = _Ranges([_range(answer, 0)])
    made, size = [], 0
    for tensor in block.made:
        if answered.find(tensor.data_ptr()) is None:
            made.append(_range(tensor, size))
            size += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    arena = native.arena(size)
    moved = _Ranges(made)
    program = bytearray(b"".join(block.program))
    words = memoryview(program).cast("q")
    of_inputs, of_answers = [], []
    for at, word in enumerate(words):
        if (inside := given.find(word)) is not None:
            of_inputs.append((at, inside.what, word - inside.start))
        elif (inside := answered.find(word)) is not None:
            of_answers.append((at, word - inside.start))
        elif (inside := moved.find(word)) is not None:
            words[at] = arena.data_ptr() + inside.what + word - inside.start
    address = torch.frombuffer(program, dtype=torch.uint8).data_ptr()
    kept = (program, arena, tuple(block.used))
    return Recording(words, tuple(of_inputs), tuple(of_answers), address, len(program), kept)


def _range(tensor: Tensor, what: int) -> Range:
    """The memory that a view reaches."""
    reach = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return Range(start, start + max(1, reach) * tensor.element_size(), what)


class _Ranges:
    """Ranges to be found by an address within; of those that begin alike the first."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._sorted = sorted(ranges)
        self._starts = [each.start for each in self._sorted]

    def find(self, address: int) -> Range | None:
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._sorted[at].end:
            return None
        return self._sorted[at]
