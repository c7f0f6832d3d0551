"""What stands before a model: the tokenizer and the processors that turn text, pictures and sounds into tensors.

Picture processors are the library's own on pillow and numpy; those that need torchvision are not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto import processing_auto as auto

from llmos.syscalls.errors import BadModel

from ..contract import ModelSource
from . import checkpoint, kinds, media
from .kinds import Kind


LOCAL: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}


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
    if kind is kinds.VISION:
        return _of_both(folder)
    library: Any = transformers.AutoFeatureExtractor
    if kind.reads == kinds.SOUNDS:
        return library.from_pretrained(folder, **LOCAL)
    library = transformers.AutoImageProcessor
    return library.from_pretrained(folder, **LOCAL, backend="pil")


def _of_both(folder: Path) -> Any:
    """A processor of pictures and text. Where the library's would also read videos, which takes torchvision, one of a
    class derived from it that has no part for them."""
    name = _class_name(folder)
    made: Any = getattr(transformers, name, None)
    if made is None or not any("video" in part for part in made.get_attributes()):
        library: Any = transformers.AutoProcessor
        return library.from_pretrained(folder, **LOCAL, backend="pil")
    makers: dict[str, Any] = {
        "tokenizer": transformers.AutoTokenizer, "image_processor": transformers.AutoImageProcessor,
        "feature_extractor": transformers.AutoFeatureExtractor,
    }  # fmt: skip
    parts = []
    for part in made.get_attributes():
        options = {**LOCAL, "backend": "pil"} if part == "image_processor" else LOCAL
        parts.append(makers[part].from_pretrained(folder, **options) if part in makers else None)
    fields, _ = made.get_processor_dict(folder, **LOCAL)
    return _without_none(made).from_args_and_dict(parts, fields)


def _class_name(folder: Path) -> str:
    """The class of a folder's processor: the one it names, or that of its type of model."""
    for file in kinds.PROCESSORS:
        if (folder / file).is_file():
            name = json.loads((folder / file).read_bytes()).get("processor_class")
            if isinstance(name, str):
                return name
    kind = json.loads((folder / checkpoint.CONFIG).read_bytes()).get("model_type")
    names: Any = auto
    return str(names.PROCESSOR_MAPPING_NAMES.get(kind, ""))


def _without_none(made: Any) -> Any:
    """The class, with parts that may be missing."""

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is None else made.check_argument_for_proper_class(self, name, part)

    return type(made.__name__, (made,), {"check_argument_for_proper_class": check})


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
