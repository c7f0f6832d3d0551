"""Files of a model folder: every damage is named with its file, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from tiny_models import source_of

from llmos.drivers.contract import ModelSource, SourceFile
from llmos.drivers.engine import checkpoint
from llmos.drivers.engine.checkpoint import check_tokenizer, check_weights, folder_of, read_header, read_json
from llmos.syscalls.errors import BadModel

TENSORS = {"a.weight": torch.zeros(3, 4), "b.weight": torch.zeros(5, dtype=torch.bfloat16), "c": torch.zeros(())}


@pytest.fixture
def single(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for number, name in enumerate(TENSORS):
        save_file({name: TENSORS[name]}, tmp_path / f"model-{number}.safetensors")
    placed = {name: f"model-{number}.safetensors" for number, name in enumerate(TENSORS)}
    (tmp_path / checkpoint.INDEX).write_text(json.dumps({"weight_map": placed}))
    return tmp_path


def refused(folder: Path) -> BadModel:
    with pytest.raises(BadModel) as error:
        check_weights(source_of(folder))
    assert error.value.why and error.value.file in str(error.value)
    return error.value


def test_a_whole_file_tells_its_tensors(single: Path) -> None:
    weights = check_weights(source_of(single))
    assert weights.tensors == dict.fromkeys(TENSORS, "model.safetensors")
    assert weights.dtypes == {"F32": 52, "BF16": 10}
    assert weights.bytes == (single / "model.safetensors").stat().st_size


def test_shards_are_one_set_of_tensors(sharded: Path) -> None:
    weights = check_weights(source_of(sharded))
    assert weights.tensors == {name: f"model-{number}.safetensors" for number, name in enumerate(TENSORS)}
    assert weights.file_of("of", "b.weight") == "model-1.safetensors"
    assert weights.file_of("prefix.c") == "model-2.safetensors"
    assert weights.file_of("weight") == "model-0.safetensors"
    assert weights.file_of("nothing") == "model-0.safetensors"


def test_a_missing_or_short_shard_is_named(sharded: Path) -> None:
    shard = sharded / "model-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert (refused(sharded).file, "truncated" in refused(sharded).why) == ("model-1.safetensors", True)
    shard.unlink()
    assert (refused(sharded).file, refused(sharded).why) == ("model-1.safetensors", "missing")


def test_an_index_that_does_not_fit_its_shards_is_refused(sharded: Path) -> None:
    index = sharded / checkpoint.INDEX
    placed = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**placed, "z": "model-0.safetensors"}}))
    assert (refused(sharded).file, "z is listed" in refused(sharded).why) == ("model-0.safetensors", True)
    index.write_text("{}")
    assert (refused(sharded).file, refused(sharded).why) == (checkpoint.INDEX, "no weight_map")
    index.write_text("[]")
    assert refused(sharded).why == "not a JSON object"
    index.write_text("{")
    assert refused(sharded).why.startswith("not JSON")


def test_a_file_that_shrank_since_it_was_located_is_refused(single: Path) -> None:
    source = source_of(single)
    path = single / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadModel, match="truncated"):
        check_weights(source)


def test_a_file_that_is_gone_is_missing(single: Path) -> None:
    source = source_of(single)
    (single / "model.safetensors").unlink()
    with pytest.raises(BadModel, match="not at"):
        check_weights(source)
    with pytest.raises(BadModel, match="not at"):
        read_json(ModelSource("m", "", [SourceFile("config.json", single / "config.json", 3)]), "config.json")
    with pytest.raises(BadModel, match="has no config"):
        read_json(source, "config.json")


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    found = refused(tmp_path)
    assert (found.file, "pickled" in found.why) == ("pytorch_model.bin", True)
    (tmp_path / "consolidated.safetensors").write_bytes(b"")
    assert refused(tmp_path).file == "model.safetensors"


Damage = Callable[[dict[str, Any]], Any]
DAMAGES: dict[str, Damage] = {
    "offsets that overlap": lambda header: header["a.weight"].update(data_offsets=[0, 47]),
    "a tensor inside another": lambda header: header["c"].update(data_offsets=[0, 4]),
    "a gap": lambda header: header["b.weight"].update(data_offsets=[53, 63]),
    "a shape that needs more": lambda header: header["a.weight"].update(shape=[3, 5]),
    "an unknown dtype": lambda header: header["a.weight"].update(dtype="F7"),
    "no offsets": lambda header: header["a.weight"].pop("data_offsets"),
    "a shape of words": lambda header: header["a.weight"].update(shape=["x"]),
    "a tensor that is a number": lambda header: header.update({"a.weight": 3}),
}


def with_header(data: bytes, damage: Damage) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    damage(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_header_that_lies_is_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(with_header(save(TENSORS), DAMAGES[damage]))
    assert refused(tmp_path).file == "model.safetensors"


@given(st.integers(0, len(save(TENSORS)) - 1), st.binary(max_size=3))
def test_any_cut_is_noticed(tmp_path_factory: pytest.TempPathFactory, end: int, tail: bytes) -> None:
    data = save(TENSORS)
    if len(data[:end] + tail) == len(data):
        return
    folder = tmp_path_factory.mktemp("cut")
    (folder / "model.safetensors").write_bytes(data[:end] + tail)
    assert refused(folder).file == "model.safetensors"


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_in_the_same_way(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "model.safetensors").write_bytes(data)
    if data[8:] != b"{}" or data[:8] != (2).to_bytes(8, "little"):
        assert refused(folder).file == "model.safetensors"


def test_a_header_may_be_no_map_and_no_json(tmp_path: Path) -> None:
    for text in (b"[]", b"{]"):
        (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
        assert "header" in refused(tmp_path).why


def test_a_tokenizer_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadModel) as error:
        check_tokenizer(source_of(tmp_path))
    assert (error.value.file, error.value.why) == ("tokenizer.json", "missing")
    (tmp_path / "tokenizer.json").write_text("{}")
    check_tokenizer(source_of(tmp_path))


def test_files_of_one_folder_are_used_where_they_are(single: Path) -> None:
    (single / "sub").mkdir()
    (single / "sub" / "x.json").write_text("1")
    with folder_of(source_of(single)) as folder:
        assert folder == single


def test_files_from_several_places_meet_in_a_scratch_folder(tmp_path: Path, single: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"before" + save(TENSORS) + b"after")
    (tmp_path / "other").write_text('{"a": 1}')
    file = SourceFile("model.safetensors", blob, len(save(TENSORS)), 6)
    files = [file, SourceFile("deep/config.json", tmp_path / "other", 8)]
    assert set(read_header(file)) == set(TENSORS)
    with folder_of(ModelSource("m", "", files)) as folder:
        assert (folder / "model.safetensors").read_bytes() == save(TENSORS)
        assert (folder / "deep" / "config.json").read_text() == '{"a": 1}'
    assert not folder.exists()
    assert blob.exists()


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "a/../../escape"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_text("")
    source = ModelSource("m", "", [SourceFile(name, tmp_path / "x", 0)])
    with pytest.raises(BadModel, match="leaves"), folder_of(source):
        pass
