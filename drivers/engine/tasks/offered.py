"""Which tasks of one forward pass a model serves."""

from __future__ import annotations

from collections.abc import Sequence

from ...ops.table import OpTable
from .. import kinds
from ..loader import Bundle
from .base import ForwardTask
from .embeddings import Embeddings
from .hearing import Hearing
from .images import ImageClassification, ImageEmbeddings, PictureFront, ZeroShotImageClassification
from .masks import FillMask
from .rewriting import Rewriting
from .seeing import Seeing
from .sequences import Reranking, TextClassification, ZeroShotClassification
from .sounds import AudioClassification, FrameRecognition, SoundFront
from .spans import QuestionAnswering, TokenClassification
from .tensors import NamedTensors
from .text import TextFront
from .writing import WritingTask


def offered(bundle: Bundle, ops: OpTable) -> Sequence[ForwardTask]:
    """The tasks of a model, its own one first. Raises what the model raises when it is tried."""
    reads = bundle.about.kind.reads
    if reads == kinds.NUMBERS:
        return [NamedTensors(bundle)]
    if reads in (kinds.IMAGES, kinds.BOTH):
        return _on_pictures(bundle)
    if reads == kinds.SOUNDS:
        return _on_sounds(bundle)
    return _on_text(bundle, ops)


def writing(bundle: Bundle) -> WritingTask:
    """What a model that writes does. Raises what the model raises when it is tried."""
    if bundle.about.kind is kinds.SPEECH:
        return Hearing(bundle)
    if bundle.about.kind is kinds.VISION:
        seeing = Seeing(bundle)
        seeing.settle(bundle.module)
        return seeing
    front = TextFront(bundle)
    front.settle(bundle.module.get_encoder())
    return Rewriting(front)


def _on_text(bundle: Bundle, ops: OpTable) -> Sequence[ForwardTask]:
    kind, config = bundle.about.kind, bundle.module.config
    front = TextFront(bundle)
    front.settle(bundle.module)
    front.pack(bundle.module, ops)
    if kind is kinds.SEQUENCE:
        found: list[ForwardTask] = [TextClassification(front)]
        if ZeroShotClassification.entailment(config) is not None:
            found.append(ZeroShotClassification(front))
        return [*found, Reranking(front)] if config.num_labels == 1 else found
    if kind is kinds.TOKEN:
        return [TokenClassification(front)]
    if kind is kinds.QUESTION:
        return [QuestionAnswering(front)]
    if kind is kinds.MASKED and front.tokenizer.mask_token_id is not None:
        return [FillMask(front), Embeddings(front, ops)]
    return [Embeddings(front, ops)]


def _on_pictures(bundle: Bundle) -> Sequence[ForwardTask]:
    front = PictureFront(bundle)
    if bundle.about.kind is kinds.DUAL:
        both = ZeroShotImageClassification(front, TextFront(bundle))
        both.settle(bundle.module)
        return [both]
    task = ImageClassification(front) if bundle.about.kind is kinds.IMAGE else ImageEmbeddings(front)
    task.run(bundle.module, [front.trial()])
    return [task]


def _on_sounds(bundle: Bundle) -> Sequence[ForwardTask]:
    front = SoundFront(bundle)
    front.settle(bundle.module)
    return [FrameRecognition(front) if bundle.about.kind is kinds.CTC else AudioClassification(front)]
