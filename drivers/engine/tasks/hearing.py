"""Speech to text by a model that hears the whole and then writes (Whisper and its kind)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...contract import Request, TranscriptResult
from ..loader import Bundle
from .options import Options
from .sounds import FRAMES_PER_SECOND, SoundFront
from .writing import Draft, Ending

NAME = "automatic-speech-recognition"
PREFIX_TOKENS = 8
"""What such models write before the text: language, task, whether times follow."""


class Hearing:
    """What is said. Long speech is read in windows, as the model's own procedure goes through them."""

    tasks: Mapping[str, Mapping[str, str]] = {
        NAME: {
            "language": "what is spoken, where the model knows several; by default it finds out",
            "translate": "true for an English translation, where the model was trained for it",
            "timestamps": "none (default), or segment for the times of what is said",
        }
    }
    chooses = False

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._front = SoundFront(bundle)
        self._window = int(getattr(bundle.processor, "n_samples", 0))
        """Samples that are heard at once; 0 for all."""

    def prepare(self, request: Request) -> Draft:
        options = Options(request.task, self.tasks[NAME], request.options)
        language, translate = options.text("language", ""), options.flag("translate", default=False)
        segments = options.choice("timestamps", "none", ("none", "segment")) == "segment"
        samples = self._front.samples(request.prompt)
        long = bool(self._window) and len(samples) > self._window
        settings: dict[str, Any] = {"truncation": False, "padding": "longest"} if long else {}
        made = self._bundle.processor(
            samples, sampling_rate=self._front.rate, return_tensors="pt", return_attention_mask=True, **settings
        )
        dtype = self._bundle.about.dtype
        heard = {name: value.to(dtype) if value.is_floating_point() else value for name, value in made.items()}
        spoken = self._spoken(language, translate, segments or long)
        shape = tuple((name, value.shape) for name, value in heard.items())
        frames = max(1, len(samples) * FRAMES_PER_SECOND // self._front.rate)
        room = max(1, min(request.sampling.max_tokens, self._bundle.about.context - PREFIX_TOKENS))
        group = object() if long else (shape, tuple(sorted(spoken.items())))
        length = next(iter(heard.values())).shape[-1]  # what is read, silence at the end of a window included
        return Draft(request, {**heard, **spoken}, length, frames, room, (), group)

    def inputs(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        first = drafts[0].content
        return {
            name: torch.cat([draft.content[name] for draft in drafts]) if isinstance(value, Tensor) else value
            for name, value in first.items()
        }

    def endings(self, drafts: Sequence[Draft], made: Any) -> Sequence[Ending]:
        if not isinstance(made, dict):
            return [self._ending(row.tolist(), ()) for row in made]
        segments = made.get("segments") or [[]] * len(drafts)
        return [self._ending(row.tolist(), own) for row, own in zip(made["sequences"], segments, strict=True)]

    def _ending(self, row: list[int], segments: Sequence[Mapping[str, Any]]) -> Ending:
        """An answer from its tokens, which may be padded, and the stretches of it that have times."""
        ends = self._bundle.eos
        at = next((place for place, token in enumerate(row) if token in ends and place), len(row) - 1)
        tokens = row[: at + 1]
        reason = "stop" if tokens and tokens[-1] in ends else "length"
        timed = [
            (round(float(each["start"]), 3), round(float(each["end"]), 3), self._text(each["tokens"].tolist()))
            for each in segments
        ]
        text = self._text(tokens)
        return Ending(tokens, text, reason, TranscriptResult(text, timed))

    def _text(self, tokens: Sequence[int]) -> str:
        """What tokens say, without those that stand for times."""
        first = getattr(self._bundle.module.generation_config, "no_timestamps_token_id", None)
        said = [token for token in tokens if first is None or token <= first]
        return str(self._bundle.tokenizer.decode(said, skip_special_tokens=True))

    def _spoken(self, language: str, translate: bool, times: bool) -> dict[str, Any]:
        """What such a model is told beside the sound."""
        told: dict[str, Any] = {}
        if times:
            told |= {"return_timestamps": True, "return_segments": True}
        if language:
            told["language"] = language
        if translate:
            told["task"] = "translate"
        return told
