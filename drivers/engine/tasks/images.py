"""Tasks on pictures: labels, labels of one's own choice, and vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument

from ...contract import LabelScore, LabelsResult, MediaPart, Prompt, Request
from .. import media
from ..loader import Bundle
from .base import Job, Line, Outcome
from .embeddings import POOLINGS
from .labels import OPTIONS, LabelChooser
from .options import Options
from .sequences import hypothesis
from .text import TRIALS, TextFront, close

TEMPLATE = "This is a photo of {}."
CAPTION_TOKENS = 64
"""What captions of SigLIP are always padded to, as it was trained."""

PATCH = 256
"""Pixels that count as a token: about what a vision transformer makes of them."""

BATCH_PICTURES = 32


class PictureFront:
    """The processor of one model's pictures."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._processor = bundle.processor

    def pictures(self, prompt: Prompt, most: int | None = None) -> list[Line]:
        """The picture parts of a prompt, of which nothing else may be a part. Raises BadArgument, TooLarge."""
        parts = prompt.parts or ()
        want = "one picture" if most == 1 else "pictures"
        if not parts or (most is not None and len(parts) > most):
            raise BadArgument(f"the input must be {want}", name="input", got=media.kinds_of(parts), want=want)
        return [self._line(part, want) for part in parts]

    def forward(self, module: Any, lines: Sequence[Line], **more: Any) -> Any:
        """What a module answers to lines of one shape."""
        names = lines[0].inputs
        batch = {name: torch.stack([line.inputs[name] for line in lines]).to(module.device) for name in names}
        return module(**batch, **more, return_dict=True)

    def trial(self) -> Line:
        """A grey picture as a line, to try a model with."""
        return self._processed(media.grey(), "a picture")

    def _line(self, part: object, want: str) -> Line:
        if not isinstance(part, MediaPart) or part.kind != "image":
            raise BadArgument(f"the input must be {want}", name="input", got=media.kinds_of([part]), want=want)
        return self._processed(media.picture(part.data), want)

    def _processed(self, picture: Any, want: str) -> Line:
        try:
            made = self._processor(images=picture, return_tensors="pt")
        except ValueError as error:
            said = f"the picture cannot be prepared: {error}"
            raise BadArgument(said, name="input", got=f"{picture.size[0]}x{picture.size[1]}", want=want) from error
        dtype = self.bundle.about.dtype
        inputs = {name: _cast(value[0], dtype) for name, value in made.items() if isinstance(value, Tensor)}
        pixels = inputs["pixel_values"]
        length = pixels.shape[-2] * pixels.shape[-1] // PATCH if pixels.ndim > 2 else pixels.shape[0]
        return Line(inputs, max(1, length), tuple((name, value.shape) for name, value in inputs.items()))


class _Pictures:
    """Tasks whose batches hold pictures."""

    batch_tokens = BATCH_PICTURES * 224 * 224 // PATCH

    def __init__(self, front: PictureFront) -> None:
        self._front = front
        self._config = front.bundle.module.config


class ImageClassification(_Pictures):
    """Labels for one picture."""

    name: ClassVar[str] = "image-classification"
    options: ClassVar[Mapping[str, str]] = OPTIONS

    def prepare(self, request: Request) -> Job:
        chooser = LabelChooser(self._config, Options(self.name, self.options, request.options))
        (line,) = self._front.pictures(request.prompt, most=1)
        return Job([line], line.length, lambda outputs: Outcome(chooser.choose(outputs[0])))

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[Tensor]:
        return list(self._front.forward(module, lines).logits.float().cpu())


class ImageEmbeddings(_Pictures):
    """A vector for each picture: pooled states of the last layer. Where those have no order of tokens, their mean."""

    name: ClassVar[str] = "image-feature-extraction"
    options: ClassVar[Mapping[str, str]] = {
        "pooling": "how the states of the patches become one: mean, cls (default, the first) or last",
        "normalize": "false to keep the length of the vectors; by default it is made 1",
    }

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        pooling, normal = options.choice("pooling", "cls", POOLINGS), options.flag("normalize", default=True)
        lines = self._front.pictures(request.prompt)

        def answer(outputs: Sequence[Tensor]) -> Outcome:
            rows = torch.stack([_pooled(states, pooling) for states in outputs])
            rows = torch.nn.functional.normalize(rows, dim=-1) if normal else rows
            return Outcome(embeddings=rows.tolist(), truncated=(False,) * len(lines))

        return Job(lines, sum(line.length for line in lines), answer)

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[Tensor]:
        return list(self._front.forward(module.base_model, lines).last_hidden_state.float().cpu())


class ZeroShotImageClassification(_Pictures):
    """Labels of the request's choice, by a model that was trained on pictures and their captions.

    Each label makes a caption; its score is how well the picture fits it: against the others (CLIP, Radford et al.
    2021) or by itself (SigLIP, Zhai et al. 2023). Pictures of several requests share a batch, and equal captions too.
    """

    name: ClassVar[str] = "zero-shot-image-classification"
    options: ClassVar[Mapping[str, str]] = {
        "candidate_labels": "the labels to choose from; needed",
        "hypothesis_template": f"a caption with {{}} where a label goes; {TEMPLATE!r} by default",
    }

    def __init__(self, front: PictureFront, text: TextFront) -> None:
        super().__init__(front)
        self._text = text
        self._sigmoid = "siglip" in self._config.model_type
        self._together = True

    def settle(self, module: Any) -> None:
        """Find out whether requests with captions of other lengths may share a batch."""
        picture, (short, long) = self._front.trial(), (self._caption(text) for text in TRIALS)
        both = self._logits(module, [picture], [short, long])[0]
        alone = [self._logits(module, [picture], [each])[0, 0] for each in (short, long)]
        self._together = close(both, torch.stack(alone))

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        labels = options.texts("candidate_labels")
        template = hypothesis(options, TEMPLATE)
        captions = [self._caption(template.replace("{}", label)) for label in labels]
        (picture,) = self._front.pictures(request.prompt, most=1)
        tokens = picture.length + sum(caption.length for caption in captions)
        line = Line(picture.inputs, tokens, picture.shape if self._together else object(), captions)

        def answer(outputs: Sequence[Tensor]) -> Outcome:
            scores = (outputs[0].sigmoid() if self._sigmoid else outputs[0].softmax(dim=-1)).tolist()
            ranked = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
            return Outcome(LabelsResult([LabelScore(label, score) for label, score in ranked]))

        return Job([line], tokens, answer)

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[Tensor]:
        """How well the captions of each line fit its picture [captions]."""
        own = [[tuple(caption.inputs["input_ids"].tolist()) for caption in line.along] for line in lines]
        captions = {ids: line for line, every in zip(lines, own, strict=True)
                    for ids, line in zip(every, line.along, strict=True)}  # fmt: skip
        place = {ids: number for number, ids in enumerate(captions)}
        logits = self._logits(module, lines, list(captions.values()))
        return [row[[place[ids] for ids in every]] for row, every in zip(logits, own, strict=True)]

    def _logits(self, module: Any, pictures: Sequence[Line], captions: Sequence[Line]) -> Tensor:
        """Fit of each picture with each caption [pictures, captions]."""
        text = {name: value.to(module.device) for name, value in self._text.collate(captions).items()}
        logits: Tensor = self._front.forward(module, pictures, **text).logits_per_image.float().cpu()
        return logits

    def _caption(self, caption: str) -> Line:
        if not self._sigmoid:
            return self._text.encode(caption).line
        made = self._text.tokenizer(caption, padding="max_length", max_length=CAPTION_TOKENS, truncation=True)
        return self._text.line(made["input_ids"], made)


def _pooled(states: Tensor, how: str) -> Tensor:
    if states.ndim == 3:
        return states.mean(dim=(1, 2))  # channels over a grid, of a model without tokens
    return states.mean(dim=0) if how == "mean" else states[0 if how == "cls" else -1]


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
