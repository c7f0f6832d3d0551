"""What stands before a model: the tokenizer and the processors that turn text, pictures and sounds into tensors.

Picture processors are the library's own on pillow and numpy; those that need torchvision are not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from llmos.syscalls.errors import BadModel

from ..contract import ModelSource
from . import checkpoint, kinds, media
from .kinds import Kind


def check(source: ModelSource, kind: Kind) -> None:
    """Raises BadModel when the folder lacks what the kind needs, NotSupported when a library is not installed."""
    if kind.text:
        checkpoint.check_tokenizer(source)
    if not kind.processor:
        return
    if kind.reads == kinds.SOUNDS:
        media.need_sounds()
    else:
        media.need_images()
    if not any(checkpoint.find(source, name) for name in kinds.PROCESSORS):
        name = kinds.PROCESSORS[0]
        said = f"{source.path} has no {name}; save it there with save_pretrained of the model's processor"
        raise BadModel(said, file=name, why="missing")


def load_processor(folder: Path, kind: Kind) -> Any:
    """The processor of a kind that has one. Raises what transformers raises."""
    local = {"local_files_only": True, "trust_remote_code": False}
    auto: Any = transformers.AutoFeatureExtractor
    if kind.reads == kinds.SOUNDS:
        return auto.from_pretrained(folder, **local)
    auto = transformers.AutoProcessor if kind is kinds.VISION else transformers.AutoImageProcessor
    return auto.from_pretrained(folder, **local, backend="pil")


def processor_file(source: ModelSource) -> str:
    """The file of the folder that describes its processor."""
    return next((name for name in kinds.PROCESSORS if checkpoint.find(source, name)), kinds.PROCESSORS[0])


def vocabulary(module: Any) -> int:
    """How many tokens a model knows; 0 for one that reads none."""
    try:
        table = module.get_input_embeddings()
    except NotImplementedError:
        return 0
    return int(getattr(table, "num_embeddings", 0))
