"""Shards: what is written is read, and nothing is there before the end. `tests/drivers/transform` has more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.formats import shards as writing
from llmos.drivers.formats.shards import HEAD_BYTES, INDEX, NAMES, SINGLE, Shards
from safetensors import safe_open
from safetensors.torch import load_file

SHAPES = st.one_of(st.just(()), st.tuples(st.integers(0, 5)), st.tuples(st.integers(1, 5), st.integers(1, 7)))


def test_tensors_lie_in_shards_that_the_index_names(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    shards = Shards(tmp_path, limit=64)
    for name in "abc":
        shards.add(name, whole.T)
        assert not list(tmp_path.glob("*.safetensors"))
    shards.close()
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == shards.bytes == 3 * 48 and len(set(index["weight_map"].values())) == 3
    assert all(torch.equal(load_file(tmp_path / file)[name], whole.T) for name, file in index["weight_map"].items())


def test_one_shard_needs_no_index(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    shards.add("part", torch.arange(12.0)[3:5])
    shards.close()
    assert [file.name for file in tmp_path.iterdir()] == [SINGLE]
    assert (tmp_path / SINGLE).stat().st_size < 150  # of a view just what it shows


@given(st.lists(st.tuples(SHAPES, st.sampled_from([*NAMES])), max_size=12), st.integers(0, 200), st.integers(1, 400))
def test_any_tensors_are_read_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[tuple[int, ...], torch.dtype]], held: int, limit: int
) -> None:
    folder = tmp_path_factory.mktemp("m")
    shards, wanted = Shards(folder, limit, held), {}
    for number, (shape, dtype) in enumerate(kinds):
        size = torch.empty(shape, dtype=dtype).nbytes
        values = torch.randint(2, (size,), dtype=torch.uint8)
        wanted[f"t{number}"] = values.view(dtype).view(shape)
        shards.add(f"t{number}", wanted[f"t{number}"])
    shards.close()
    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert found[name].view(-1).view(torch.uint8).tolist() == value.view(-1).view(torch.uint8).tolist()


def test_a_shard_grows_as_its_tensors_come(tmp_path: Path) -> None:
    shards = Shards(tmp_path, held=100)
    shards.add("odd", torch.ones(3, dtype=torch.uint8))
    shards.add("a", torch.ones(20))
    assert not list(tmp_path.iterdir())
    shards.add("b", torch.ones(20))
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [8 + HEAD_BYTES + 160]
    shards.close()
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [8 + HEAD_BYTES + 163]
    assert load_file(tmp_path / SINGLE)["odd"].tolist() == [1, 1, 1]


def test_a_head_that_is_full_ends_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "HEAD_BYTES", 300)
    shards = Shards(tmp_path, held=0)
    for number in range(8):
        shards.add(f"layers.{number}.weight", torch.full((2,), float(number)))
    shards.close()
    files = sorted(tmp_path.glob("*.safetensors"))
    assert 2 <= len(files) < 8
    found = {name: value for file in files for name, value in load_file(file).items()}
    assert [found[f"layers.{number}.weight"].tolist() for number in range(8)] == [[n, n] for n in range(8)]
