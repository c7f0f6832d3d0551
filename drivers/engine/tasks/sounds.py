"""Tasks on sounds in one pass: labels, and speech recognised frame by frame (CTC, Graves et al. 2006)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument

from ...contract import MediaPart, Prompt, Request, TranscriptResult
from .. import media
from ..loader import Bundle
from .base import Job, Line, Outcome
from .labels import OPTIONS, LabelChooser
from .options import Options
from .text import close

CHUNK_SECONDS = 30
"""Longer speech is read in chunks of this length, which share a sixth at each side."""

FRAMES_PER_SECOND = 50
"""What most speech models make of a second; a measure of work."""

BATCH_SECONDS = 120
Samples = np.ndarray[Any, np.dtype[np.float32]]


class SoundFront:
    """The feature extractor of one model's sounds, and how its lines may be batched."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.rate = int(bundle.processor.sampling_rate)
        self._padded = False
        self._frames = getattr(bundle.module, "_get_feat_extract_output_lengths", None)
        self._masks = "attention_mask" in inspect.signature(bundle.module.forward).parameters

    def settle(self, module: Any) -> None:
        """Find out whether sounds of different lengths may share a batch, with two short noises."""
        noise = (np.random.default_rng(0).standard_normal(self.rate // 2) / 10).astype(np.float32)
        lines = [self.line(noise[: self.rate // 4]), self.line(noise)]
        alone = [self._logits(module, [line])[0] for line in lines]
        by_frame = alone[0].ndim == 2
        if by_frame and any(self.frames(line) != len(one) for line, one in zip(lines, alone, strict=True)):
            self._frames = None
        if (self._frames is not None or not by_frame) and _alike(lines):
            both = self._logits(module, lines)
            self._padded = all(close(row[: len(one)], one) for row, one in zip(both, alone, strict=True))

    def samples(self, prompt: Prompt) -> Samples:
        """The one sound of a prompt. Raises BadArgument, TooLarge."""
        parts, want = prompt.parts or (), "one sound"
        if len(parts) != 1 or not isinstance(parts[0], MediaPart) or parts[0].kind != "audio":
            raise BadArgument(f"the input must be {want}", name="input", got=media.kinds_of(parts), want=want)
        return media.sound(parts[0].data, self.rate)

    def line(self, samples: Samples) -> Line:
        """Samples as features. Raises BadArgument for a sound too short for a single frame."""
        made = self.bundle.processor(
            samples, sampling_rate=self.rate, return_tensors="pt", return_attention_mask=self._masks
        )
        dtype = self.bundle.about.dtype
        inputs = {name: value[0].to(dtype) if value.is_floating_point() else value[0] for name, value in made.items()}
        shape = tuple((name, value.shape[int(self._padded) :]) for name, value in inputs.items())
        line = Line(inputs, max(1, len(samples) * FRAMES_PER_SECOND // self.rate), shape)
        if self.frames(line) == 0:
            got = f"{len(samples)} samples"
            said = f"the sound has {got}, too few for this model"
            raise BadArgument(said, name="input", got=got, want="a longer sound")
        return line

    def frames(self, line: Line) -> int | None:
        """How many frames the model makes of a line, where it tells."""
        if self._frames is None:
            return None
        first = next(iter(line.inputs.values()))
        return max(0, int(self._frames(torch.tensor(len(first)))))

    def forward(self, module: Any, lines: Sequence[Line]) -> list[Tensor]:
        """The logits of each line, of its own frames only where there are frames."""
        logits = self._logits(module, lines)
        if logits.ndim < 3:
            return list(logits)
        return [row[: self.frames(line)] for row, line in zip(logits, lines, strict=True)]

    def _logits(self, module: Any, lines: Sequence[Line]) -> Tensor:
        """Of lines in one batch, padded along their time."""
        value = float(getattr(self.bundle.processor, "padding_value", 0.0))
        batch = {}
        for name in lines[0].inputs:
            every = [line.inputs[name] for line in lines]
            filler = 0.0 if "mask" in name else value
            batch[name] = torch.nn.utils.rnn.pad_sequence(every, True, filler).to(module.device)
        logits: Tensor = module(**batch).logits.float().cpu()
        return logits


def _alike(lines: Sequence[Line]) -> bool:
    """Whether lines differ in nothing but their time, so that they can be padded."""
    return len({tuple(value.shape[1:] for value in line.inputs.values()) for line in lines}) == 1


class _Sounds:
    batch_tokens = BATCH_SECONDS * FRAMES_PER_SECOND

    def __init__(self, front: SoundFront) -> None:
        self._front = front
        self._config = front.bundle.module.config

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[Tensor]:
        return self._front.forward(module, lines)


class AudioClassification(_Sounds):
    """Labels for one sound."""

    name: ClassVar[str] = "audio-classification"
    options: ClassVar[Mapping[str, str]] = OPTIONS

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        chooser = LabelChooser(self._config, options, one_is_sigmoid=False)
        line = self._front.line(self._front.samples(request.prompt))
        return Job([line], line.length, lambda outputs: Outcome(chooser.choose(outputs[0])))


@dataclass(frozen=True)
class _Chunk:
    """A stretch of a sound; `left` and `right` samples are heard but belong to its neighbours."""

    samples: Samples
    left: int
    right: int

    def own(self, frames: Tensor, samples_per_frame: int) -> Tensor:
        """Of the frames of the chunk those that are its own."""
        count = round(len(self.samples) / samples_per_frame)
        left, right = (round(side / len(self.samples) * count) for side in (self.left, self.right))
        return frames[left : count - right] if self.left or self.right else frames


class FrameRecognition(_Sounds):
    """What is said, from the likeliest letter of each frame."""

    name: ClassVar[str] = "automatic-speech-recognition"
    options: ClassVar[Mapping[str, str]] = {
        "timestamps": "none (default), or what the segments are: word or char",
        "chunk_seconds": f"length of the chunks that a longer sound is read in; {CHUNK_SECONDS} by default, 0 for none",
    }

    def __init__(self, front: SoundFront) -> None:
        super().__init__(front)
        self._tokenizer = front.bundle.tokenizer
        self._step = int(getattr(self._config, "inputs_to_logits_ratio", 1))
        """Samples for each frame."""

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        times = options.choice("timestamps", "none", ("none", "word", "char"))
        seconds = options.whole("chunk_seconds", CHUNK_SECONDS)
        samples = self._front.samples(request.prompt)
        chunks = list(self._chunks(samples, seconds))
        lines = [self._front.line(chunk.samples) for chunk in chunks]

        def answer(outputs: Sequence[Tensor]) -> Outcome:
            best = [each.argmax(dim=-1) for each in outputs]
            own = [chunk.own(frames, self._step) for chunk, frames in zip(chunks, best, strict=True)]
            return Outcome(self._transcript(torch.cat(own).tolist(), times))

        return Job(lines, sum(line.length for line in lines), answer)

    def _chunks(self, samples: Samples, seconds: int) -> Iterator[_Chunk]:
        size, side = self._aligned(seconds), self._aligned(seconds / 6)
        if not size or len(samples) <= size:
            yield _Chunk(samples, 0, 0)
            return
        starts = [*range(0, max(1, len(samples) - 2 * side), size - 2 * side), len(samples)]
        for start, after in pairwise(starts):
            right = 0 if after == len(samples) else side
            yield _Chunk(samples[start : start + size], side if start else 0, right)

    def _aligned(self, seconds: float) -> int:
        """Samples of a time, a whole number of frames."""
        return round(seconds * self._front.rate / self._step) * self._step

    def _transcript(self, ids: list[int], times: str) -> TranscriptResult:
        if times == "none":
            return TranscriptResult(self._tokenizer.decode(ids))
        made = self._tokenizer.decode(ids, **{f"output_{times}_offsets": True})
        second = self._step / self._front.rate
        segments = [
            (float(each["start_offset"] * second), float(each["end_offset"] * second), each[times])
            for each in made[f"{times}_offsets"]
        ]
        return TranscriptResult(made["text"], segments)
