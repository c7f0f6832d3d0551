"""Weights read tensor by tensor and written shard by shard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stored_models import CONFIG, matrices, store, stored
from tiny_models import silent, source_of

from llmos.drivers.engine import checkpoint
from llmos.drivers.transform import shards
from llmos.drivers.transform.shards import Shards
from llmos.syscalls.errors import BadModel, NotSupported

COPY = """
import sys, resource
from pathlib import Path
from llmos.drivers.contract import ModelSource, SourceFile
from llmos.drivers.transform import shards
sources, out = Path(sys.argv[1]), Path(sys.argv[2])
files = [SourceFile(path.name, path, path.stat().st_size) for path in sources.iterdir()]
def status(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
before = status()
with shards.opened(ModelSource("/m", "1", files)) as tensors:
    writer = shards.Shards(out, limit=8 << 20)
    for name in tensors:
        writer.add(name, tensors.read(name) + 1)
    writer.close()
print(status() - before)
"""


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 400))
def test_what_is_written_is_read_whatever_the_shards_are(sizes: list[int], limit: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        tensors = {f"t{number}": torch.randn(size, 3) for number, size in enumerate(sizes)}
        writer = Shards(folder, limit)
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        writer.close()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        source = source_of(folder)
        checkpoint.check_weights(source)
        with shards.opened(source) as found:
            assert sorted(found) == sorted(tensors) and len(found) == len(tensors)
            assert all(torch.equal(found.read(name), tensor) for name, tensor in tensors.items())
            assert all(found.shape(name) == tensor.shape and found.floating(name) for name, tensor in tensors.items())
        files = [*folder.glob("*.safetensors")]
        assert not list(folder.glob("*.tmp"))
        assert (folder / "model.safetensors").exists() == (len(files) == 1)
        assert all(file.stat().st_size < limit + 12 * 9 + 1000 for file in files)
        assert writer.bytes == sum(12 * size for size in sizes)


def test_tensors_come_in_the_order_of_their_files(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3, dtype=torch.int64), "c": torch.ones(1)}
    writer = Shards(tmp_path, 24)
    for name, tensor in tensors.items():
        writer.add(name, tensor)
    writer.close()
    (tmp_path / "config.json").write_text("{}")
    with shards.opened(source_of(tmp_path)) as found:
        assert [*found] == ["b", "a", "c"]
        assert not found.floating("a") and "d" not in found
        with pytest.raises(BadModel, match="has no tensor d"):
            found.read("d")


def test_the_weight_of_a_layer_is_found_where_the_checkpoint_leaves_out_the_beginning(tmp_path: Path) -> None:
    store(tmp_path, {"h.0.attn.weight": torch.ones(1), "weight": torch.ones(1)})
    with shards.opened(source_of(tmp_path)) as found:
        assert found.weight_of("transformer.h.0.attn") == found.weight_of("h.0.attn") == "h.0.attn.weight"
        assert found.weight_of("transformer.h.1.attn") == ""


def test_parts_of_a_tensor_are_written_alone(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    writer = Shards(tmp_path)
    writer.add("row", whole[1])
    writer.add("turned", whole.T)
    writer.close()
    assert stored(tmp_path)["row"].tolist() == [4, 5, 6, 7]
    assert torch.equal(stored(tmp_path)["turned"], whole.T)
    assert (tmp_path / "model.safetensors").stat().st_size < 400


@pytest.mark.slow
def test_memory_is_a_shard_and_not_the_model(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    store(tmp_path / "big", matrices(24, 1024, 1024))  # 96 MiB
    command = (sys.executable, "-c", COPY, str(tmp_path / "big"), str(tmp_path / "out"))
    used_kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert used_kib < 72 << 10, f"{used_kib} KiB"
    assert torch.equal(stored(tmp_path / "out")["layer.7"], stored(tmp_path / "big")["layer.7"] + 1)


@pytest.mark.parametrize("name", ["bottleneck.safetensors", "learned_tokens.safetensors"])
def test_what_would_lose_a_part_of_the_model_is_refused(tmp_path: Path, name: str) -> None:
    store(tmp_path, {"a": torch.ones(2, 2)})
    source = source_of(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(NotSupported, match="would be lost"), shards.opened(source_of(tmp_path)):
        pass
    with shards.opened(source) as tensors:
        assert list(tensors) == ["a"]


def test_what_lies_beside_the_weights_is_copied_but_for_what_tells_of_them(tmp_path: Path) -> None:
    source = store(tmp_path / "source", matrices(1))
    for name in ("tokenizer.json", "manifest.json", "quantization.json", "model.safetensors.index.json"):
        (source / name).write_text("{}")
    (source / "deep").mkdir()
    (source / "deep/notes.txt").write_text("n")
    out = tmp_path / "out"
    out.mkdir()
    shards.copy_rest(source_of(source), out, silent, without=["config.json"])
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "deep/notes.txt", "tokenizer.json"
    ]  # fmt: skip
    shards.write_config(out, shards.config_of(source_of(source)))
    assert json.loads((out / "config.json").read_text()) == dict(CONFIG)
