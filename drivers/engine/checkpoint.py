"""The files of a model folder in Hugging Face layout: are they all there, whole and of a safe format?

Nothing here imports torch. The safetensors layout is that of github.com/huggingface/safetensors: eight bytes of header
length (little endian), a JSON header, then the tensors without gaps.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmos.syscalls.errors import BadModel

from ..contract import ModelSource, SourceFile

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "tiktoken.model",
)  # fmt: skip
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
HEADER_LIMIT = 100_000_000
"""Bytes; the safetensors reader refuses longer headers too."""

COPY_BYTES = 1 << 20

ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F4": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """The weight files of a folder: their bytes by name, for each tensor the file that holds it, bytes by dtype."""

    files: Mapping[str, int]
    tensors: Mapping[str, str]
    dtypes: Mapping[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    def file_of(self, *words: str) -> str:
        """The file of the first tensor that is one of `words` or ends so; the first file when none does."""
        for word in words:
            for tensor, file in self.tensors.items():
                if tensor == word or tensor.endswith("." + word) or word.endswith("." + tensor):
                    return file
        return next(iter(self.files))


def find(source: ModelSource, name: str) -> SourceFile | None:
    """The file called `name` at the top of the folder."""
    return next((file for file in source.files if file.name == name), None)


def read_json(source: ModelSource, name: str) -> dict[str, Any]:
    """A JSON file of the folder. Raises BadModel when it is missing or not a JSON object."""
    file = find(source, name)
    if file is None:
        raise BadModel(f"{source.path} has no {name}", file=name, why="missing")
    try:
        with file.path.open("rb") as stream:
            stream.seek(file.offset)
            value = json.loads(stream.read(file.bytes))
    except FileNotFoundError as error:
        raise BadModel(f"{name} of {source.path} is not at {file.path}", file=name, why="missing") from error
    except ValueError as error:
        raise BadModel(f"{name} of {source.path} is not JSON: {error}", file=name, why=f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadModel(f"{name} of {source.path} holds no JSON object", file=name, why="not a JSON object")
    return value


def check_tokenizer(source: ModelSource) -> None:
    """Raises BadModel when no file of a known tokenizer is there."""
    if not any(find(source, name) for name in TOKENIZERS):
        raise BadModel(
            f"{source.path} has no tokenizer.json or other tokenizer; save it there with tokenizer.save_pretrained",
            file="tokenizer.json",
            why="missing",
        )


def check_weights(source: ModelSource) -> Weights:
    """Find and check the weight files: the index, every shard, headers and lengths. Raises BadModel naming the file."""
    if find(source, INDEX) is not None:
        return _check_sharded(source)
    if find(source, SINGLE) is None:
        raise _no_weights(source)
    return check_file(source, SINGLE)


def check_file(source: ModelSource, name: str) -> Weights:
    """Check one safetensors file. Raises BadModel."""
    file = find(source, name)
    if file is None:
        raise BadModel(f"{source.path} has no {name}", file=name, why="missing")
    header = read_header(file)
    dtypes: Counter[str] = Counter()
    for entry in header.values():
        begin, end = entry["data_offsets"]
        dtypes[entry["dtype"]] += end - begin
    return Weights({name: file.bytes}, dict.fromkeys(header, name), dtypes)


def _check_sharded(source: ModelSource) -> Weights:
    placed = read_json(source, INDEX).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(shard, str) for shard in placed.values()):
        raise BadModel(f"{INDEX} of {source.path} has no weight_map", file=INDEX, why="no weight_map")
    shards = sorted(set(placed.values()))
    checked = {shard: check_file(source, shard) for shard in shards}
    for tensor, shard in placed.items():
        if tensor not in checked[shard].tensors:
            why = f"{tensor} is listed in {INDEX} but not in the file"
            raise BadModel(f"{shard} of {source.path}: {why}", file=shard, why=why)
    sizes = {shard: checked[shard].files[shard] for shard in shards}
    dtypes = sum((Counter(checked[shard].dtypes) for shard in shards), Counter())
    return Weights(sizes, {tensor: shard for shard in shards for tensor in checked[shard].tensors}, dtypes)


def _no_weights(source: ModelSource) -> BadModel:
    others = [file.name for file in source.files if file.name.endswith(".safetensors")]
    pickles = [file.name for file in source.files if file.name.endswith(PICKLES)]
    if pickles and not others:
        why = "weights are pickled, which can run code; only safetensors are loaded"
        return BadModel(f"{source.path}: {pickles[0]}: {why}; convert them first", file=pickles[0], why=why)
    hint = f"; {', '.join(others[:3])} is there but no index" if others else ""
    return BadModel(f"{source.path} has no {SINGLE} and no {INDEX}{hint}", file=SINGLE, why="missing")


def read_header(file: SourceFile) -> dict[str, Mapping[str, Any]]:
    """The tensors of a safetensors file, after checking that header and length agree. Raises BadModel."""
    try:
        present = file.path.stat().st_size - file.offset
        with file.path.open("rb") as stream:
            stream.seek(file.offset)
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(length) if length <= min(HEADER_LIMIT, file.bytes) else b""
    except FileNotFoundError as error:
        raise _damaged(file, f"not at {file.path}") from error
    if min(present, file.bytes) < 8 or len(text) != length or 8 + length > file.bytes:
        raise _damaged(file, "truncated or not safetensors: the header is not whole")
    try:
        header = json.loads(text)
    except ValueError as error:
        raise _damaged(file, f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _damaged(file, "the header is not a map")
    header.pop("__metadata__", None)
    end = _check_tensors(file, header)
    if 8 + length + end != file.bytes or present < file.bytes:
        found = min(present, file.bytes)
        raise _damaged(file, f"truncated or too long: {8 + length + end} bytes expected, {found} found")
    return header


def _check_tensors(file: SourceFile, header: Mapping[str, Any]) -> int:
    """Check each tensor's place; returns where the data ends."""
    spans = []
    for name, entry in header.items():
        try:
            begin, end = (int(place) for place in entry["data_offsets"])
            bits = ITEM_BITS[entry["dtype"]]
            for size in entry["shape"]:
                bits *= int(size)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(file, f"the header entry of {name} is not valid") from error
        if bits != 8 * (end - begin):
            raise _damaged(file, f"{name} has {end - begin} bytes, its shape needs {bits // 8}")
        spans.append((begin, end, name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise _damaged(file, f"the data of {name} does not follow the tensor before it")
        at = end
    return at


def _damaged(file: SourceFile, why: str) -> BadModel:
    return BadModel(f"{file.name} cannot be read: {why}", file=file.name, why=why)


@contextlib.contextmanager
def folder_of(source: ModelSource) -> Iterator[Path]:
    """A folder that holds the files under their names: where they are, or a scratch folder of links."""
    shared = _shared_folder(source.files)
    if shared is not None:
        yield shared
        return
    with tempfile.TemporaryDirectory(prefix="llmos-model-") as scratch:
        for file in source.files:
            if Path(file.name).is_absolute() or ".." in Path(file.name).parts:
                raise BadModel(f"{file.name} leaves the model's folder", file=file.name, why="not inside the folder")
            target = Path(scratch) / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            _place(file, target)
        yield Path(scratch)


def _shared_folder(files: Sequence[SourceFile]) -> Path | None:
    folders = set()
    for file in files:
        if file.offset or not file.path.as_posix().endswith("/" + file.name):
            return None
        folders.add(file.path.as_posix().removesuffix(file.name))
    return Path(folders.pop()) if len(folders) == 1 else None


def _place(file: SourceFile, target: Path) -> None:
    if not file.offset:
        target.symlink_to(file.path.absolute())
        return
    left = file.bytes
    with file.path.open("rb") as stream, target.open("wb") as copy:
        stream.seek(file.offset)
        while left > 0 and (data := stream.read(min(left, COPY_BYTES))):
            copy.write(data)
            left -= len(data)
