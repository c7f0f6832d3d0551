"""Weights of GGUF files: what does not fit the configuration is said.

`tests/drivers/transform/test_export.py` has more: whole models that come back as they were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from llmos.drivers.filesystems.models.bring import gguf_weights
from llmos.syscalls.errors import BadModel


def written(path: Path, tensors: dict[str, Any]) -> Path:
    """A file of a small Llama that has these tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(16)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"token_embd.weight": np.ones((16, 32), np.float32)}, "lacks model.layers.0"),
        ({"token_embd.weight": np.ones((16, 48), np.float32)}, r"has token_embd.weight of \(16, 48\)"),
        ({"rope_freqs.weight": np.linspace(1, 9, 8, dtype=np.float32)}, "not that of Llama 3"),
    ],
)
def test_what_does_not_fit_is_said(tensors: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(BadModel, match=said):
        gguf_weights.write(
            written(tmp_path / "x.gguf", tensors), "x.gguf", tmp_path / "out", "llama", True, lambda *_: None
        )
