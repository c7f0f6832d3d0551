"""What can be said of a plain model folder without a manifest: read from its configuration and its weights' headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from .card import README, read_card
from .headers import DTYPES, FLOATS, BadHeader, TensorHeader, read_header
from .manifest import FORMAT, read_object
from .quant import parameters, short_name
from .scan import MANIFEST, PICKLES, ScannedFile, bad

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
MARKERS = (CONFIG, ADAPTER)
"""A folder with one of these directly inside is a model (or an adapter for one)."""
WEIGHTS = ".safetensors"
INDEX = "model.safetensors.index.json"

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")
_TASKS = (
    ("ForCausalLM", "text-generation"), ("LMHeadModel", "text-generation"), ("ForMaskedLM", "fill-mask"),
    ("ForSequenceClassification", "text-classification"), ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"), ("ForImageClassification", "image-classification"),
    ("ForObjectDetection", "object-detection"), ("ForAudioClassification", "audio-classification"),
    ("ForSpeechSeq2Seq", "automatic-speech-recognition"), ("ForCTC", "automatic-speech-recognition"),
    ("ForImageTextToText", "image-text-to-text"), ("Model", "feature-extraction"),
)  # fmt: skip
_ADAPTER_TASKS: Mapping[str, str] = {
    "CAUSAL_LM": "text-generation", "SEQ_2_SEQ_LM": "text2text-generation", "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification", "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}  # fmt: skip


def derive(folder_name: str, files: Mapping[str, ScannedFile]) -> dict[str, Any]:
    """The manifest of a plain folder: all that its configuration and its weights say, without reading the weights.

    Raises:
        BadModel: the configuration is not JSON, or a weight file is damaged.
    """
    adapter = CONFIG not in files
    marker = ADAPTER if adapter else CONFIG
    config = read_object(files[marker].path, marker) if marker in files else {}
    tensors = [tensor for name in weight_files(files) for tensor in tensors_of(files[name])]
    found: dict[str, Any] = {
        "format": FORMAT,
        "name": folder_name,
        "architecture": _architecture(config, adapter),
        "tasks": _tasks(config, adapter),
        "parameters": parameters(tensors, config),
        "dtype": _dtype(config, tensors),
        "bytes_by_dtype": bytes_by_dtype(tensors),
        "quant": short_name(config),
        "context": _context(config),
        "files": [{"name": file.name, "bytes": file.bytes} for file in files.values() if is_part(file.name)],
        "tokenizer": _first(files, ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")),
        "chat_template": _has_chat_template(files),
    }
    if adapter and isinstance(config.get("base_model_name_or_path"), str):
        found["parents"] = [{"path": config["base_model_name_or_path"], "version": "", "how": "adapter"}]
    if README in files:
        said = read_card(files[README].path).fields()
        found |= {name: value for name, value in said.items() if not found.get(name)}
    return found


def bytes_by_dtype(tensors: Iterable[TensorHeader]) -> dict[str, int]:
    """What the weights would take in each format: float32 and bfloat16 whole; int8 and int4 their matrices, and
    all else as bfloat16. Numbers that are not floating point stay as they are. Scales of blocks are not counted."""
    found = dict.fromkeys(("float32", "bfloat16", "int8", "int4"), 0)
    for tensor in tensors:
        narrow = (8, 4) if len(tensor.shape) > 1 else (16, 16)
        for dtype, bits in zip(found, (32, 16, *narrow), strict=True):
            found[dtype] += (tensor.elements * bits + 7) // 8 if tensor.dtype in FLOATS else tensor.bytes
    return found


def is_part(name: str) -> bool:
    """Whether a file belongs to what is loaded: pickles never, nor the manifest itself."""
    return name != MANIFEST and PurePosixPath(name).suffix not in PICKLES


def weight_files(files: Mapping[str, ScannedFile]) -> list[str]:
    """The safetensors files that make up the model. Raises BadModel for a bad index or a shard that is missing."""
    if INDEX in files:
        return _shards(read_object(files[INDEX].path, INDEX), files)
    for whole in ("model.safetensors", "adapter_model.safetensors"):
        if whole in files:
            return [whole]
    return [name for name in files if name.endswith(WEIGHTS) and "/" not in name]


def _shards(index: Mapping[str, Any], files: Mapping[str, ScannedFile]) -> list[str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise bad(INDEX, "has no weight_map from tensors to files")
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if shard not in files:
            raise bad(shard, f"is missing: {INDEX} names it; copy it into the folder")
        if not shard.endswith(WEIGHTS):
            raise bad(shard, f"is named in {INDEX} but is not a safetensors file")
    return shards


def tensors_of(file: ScannedFile) -> tuple[TensorHeader, ...]:
    """The tensors of a weight file. Raises BadModel naming it."""
    try:
        return read_header(file.path)
    except BadHeader as error:
        raise bad(file.name, f"{error}; copy the file again") from None


def _architecture(config: Mapping[str, Any], adapter: bool) -> str:
    if adapter:
        return f"{config.get('peft_type', 'unknown')} adapter"
    match config.get("architectures"):
        case [str(first), *_]:
            return first
    return str(config.get("model_type", ""))


def _tasks(config: Mapping[str, Any], adapter: bool) -> list[str]:
    if adapter:
        task = _ADAPTER_TASKS.get(str(config.get("task_type")))
        return [task] if task else []
    architecture = _architecture(config, adapter)
    if architecture.endswith("ForConditionalGeneration"):
        if "vision_config" in config:
            return ["image-text-to-text"]
        return ["automatic-speech-recognition" if "num_mel_bins" in config else "text2text-generation"]
    return next(([task] for ending, task in _TASKS if architecture.endswith(ending)), [])


def _dtype(config: Mapping[str, Any], tensors: Iterable[TensorHeader]) -> str:
    """The dtype that most bytes have."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.bytes
    if sizes:
        most = max(sizes, key=lambda dtype: sizes[dtype])
        return DTYPES.get(most, most)
    return str(config.get("dtype") or config.get("torch_dtype") or "")


def _context(config: Mapping[str, Any]) -> int:
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key in _CONTEXT_KEYS:
            value = part.get(key)
            if type(value) is int and value > 0:
                return value
    return 0


def _has_chat_template(files: Mapping[str, ScannedFile]) -> bool:
    if "chat_template.jinja" in files or "chat_template.json" in files:
        return True
    settings = files.get("tokenizer_config.json")
    return settings is not None and bool(read_object(settings.path, settings.name).get("chat_template"))


def _first(files: Mapping[str, ScannedFile], names: Iterable[str]) -> str:
    return next((name for name in names if name in files), "")
