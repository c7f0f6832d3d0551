"""llama.cpp through llama-cpp-python: its batches of several sequences, filled step by step as its own server does."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from .gguf_file import write
from .peer import Continuous, Job, Room, Step

FILE = "model-f16.gguf"
KINDS = {16: ("f16", 0), 8: ("q8_0", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0), 4: ("q4_0", llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0)}
"""What weights of so many bits are called, and their number there."""
STEP_TOKENS = 2048
"""Tokens of a step at most; llama.cpp computes 512 of them at a time (its defaults)."""


class Slot:
    """A job under way in one of the sequences of the cache."""

    def __init__(self, number: int, job: Job, place: int) -> None:
        self.number, self.place, self.left = number, place, job.new_tokens
        self.tokens = list(job.prompt)
        self.computed = 0


class LlamaCpp(Continuous):
    """Keys and values of each sequence by themselves (`kv_unified` off) and in 16 bits; weights in 16, or as its own
    tool makes them of those."""

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        path = folder.parent / FILE
        if not path.exists():
            part = path.with_suffix(".part")
            write(folder, part)
            part.rename(path)
        llama_cpp.llama_backend_init()
        path = _quantized(path, room)
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = room.requests * room.context, room.requests
        settings.n_batch, settings.n_ubatch = STEP_TOKENS, 512
        settings.n_threads = settings.n_threads_batch = room.threads
        settings.kv_unified = False
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            raise RuntimeError("llama.cpp made no context")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(STEP_TOKENS, 0, 1)
        self._free = list(range(room.requests))
        self._running: list[Slot] = []
        self._waiting: list[tuple[int, Job]] = []
        return {
            "llama-cpp-python": importlib.metadata.version("llama-cpp-python"), "step": STEP_TOKENS,
            "weights": path.name, "bytes": path.stat().st_size, "system": llama_cpp.llama_print_system_info().decode(),
        }  # fmt: skip

    def submit(self, number: int, job: Job) -> None:
        self._waiting.append((number, job))

    def step(self) -> Step:
        while self._waiting and self._free:
            self._running.append(Slot(*self._waiting.pop(0), self._free.pop()))
        taken = self._fill()
        failed = llama_cpp.llama_decode(self._context, self._batch)
        if failed:
            raise RuntimeError(f"llama_decode answered {failed}")
        return [self._next(sequence, at) for sequence, at in taken]

    def cancel(self, numbers: Sequence[int]) -> None:
        self._waiting = [(number, job) for number, job in self._waiting if number not in numbers]
        for sequence in [each for each in self._running if each.number in numbers]:
            self._end(sequence)

    def _fill(self) -> list[tuple[Slot, int]]:
        """A token of each sequence that generates, then prompts as far as there is room; whose logits are where."""
        batch, taken, at = self._batch, [], 0
        for sequence in sorted(self._running, key=lambda each: len(each.tokens) - each.computed > 1):
            count = min(len(sequence.tokens) - sequence.computed, STEP_TOKENS - at)
            for position in range(sequence.computed, sequence.computed + count):
                batch.token[at], batch.pos[at] = sequence.tokens[position], position
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence.place
                batch.logits[at] = position == len(sequence.tokens) - 1
                at += 1
            sequence.computed += count
            if count and sequence.computed == len(sequence.tokens):
                taken.append((sequence, at - 1))
        batch.n_tokens = at
        return taken

    def _next(self, sequence: Slot, at: int) -> tuple[int, Sequence[int]]:
        logits = llama_cpp.llama_get_logits_ith(self._context, at)
        token = int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())
        sequence.tokens.append(token)
        sequence.left -= 1
        if not sequence.left:
            self._end(sequence)
        return sequence.number, [token]

    def _end(self, sequence: Slot) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, sequence.place, -1, -1)
        self._free.append(sequence.place)
        self._running.remove(sequence)


def _quantized(path: Path, room: Room) -> Path:
    """The file with weights of as many bits as are asked for, made once beside it."""
    name, kind = KINDS[room.bits]
    target = path.with_name(f"model-{name}.gguf")
    if not target.exists():
        part = target.with_suffix(".part")
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype, settings.nthread = kind, room.threads
        if llama_cpp.llama_model_quantize(str(path).encode(), str(part).encode(), settings):
            raise RuntimeError(f"llama.cpp could not make {name} of {path.name}")
        part.rename(target)
    return target
