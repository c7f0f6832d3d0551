"""Shards: what is written is read, and nothing is there before the end. `tests/drivers/transform` has more."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from llmos.drivers.formats.shards import INDEX, SINGLE, Shards
from safetensors.torch import load_file


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
