"""Export to GGUF: it is read again to the last bit, and llama.cpp continues texts with the same tokens."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from foreign_checkpoints import as_gptq, drawn
from llmos.drivers.filesystems.models.bring import gguf_weights
from llmos.drivers.ops.quantized import Scheme
from llmos.drivers.transform import export
from llmos.syscalls.errors import BadArgument, BadModel, NotSupported
from quantized_folders import quantize
from safetensors.torch import load_file, save_file
from tiny_models import silent, source_of

PEER = Path(__file__).parents[3] / "build/peers/llama/bin/python"
TINY = Path(__file__).parents[3] / "drivers/filesystems/models/bundled/tiny"
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 128,
}  # fmt: skip
LONG = {**SIZES, "max_position_embeddings": 16384}
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
CONFIGS = {
    "llama": transformers.LlamaConfig(**LONG, tie_word_embeddings=True, rope_parameters=LLAMA_3),
    "qwen2": transformers.Qwen2Config(**SIZES, tie_word_embeddings=False),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True),
}


def exported(folder: Path, out: Path, format: str = "gguf") -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return dict(export.run([source_of(folder)], {"kind": "export", "format": format}, out, silent))


@pytest.fixture(params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model in bfloat16, without a tokenizer."""
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param], dtype=torch.bfloat16)
    for name, part in made.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(part)
    made.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_what_is_exported_comes_back(folder: Path, tmp_path: Path) -> None:
    quantized, _ = quantize(folder, tmp_path, Scheme(4, 32), Scheme(8, 0))
    fields = exported(quantized, tmp_path / "out")
    assert fields["metrics"]["kinds"][-2:] == ["Q4_0", "Q8_0"] and "no vocabulary" in fields["metrics"]["note"]
    (tmp_path / "back").mkdir()
    architecture = json.loads((folder / "config.json").read_text())["model_type"]
    gguf_weights.write(tmp_path / "out/model.gguf", "x", tmp_path / "back", architecture, True, silent)
    whole = {where: load_file(tmp_path / where / "model.safetensors") for where in ("quantized", "back")}
    assert whole["back"].keys() == whole["quantized"].keys()
    for name, wanted in whole["quantized"].items():
        found = whole["back"][name]
        if name.startswith("lm_head.scale"):
            assert torch.equal(found[:, :1], wanted) and torch.equal(found, wanted.expand_as(found))
        else:
            assert torch.equal(found, wanted), name
    config = {where: json.loads((tmp_path / where / "config.json").read_text()) for where in ("quantized", "back")}
    assert config["back"]["rope_parameters"] == config["quantized"]["rope_parameters"]
    assert config["back"]["tie_word_embeddings"] == config["quantized"]["tie_word_embeddings"]


def test_layers_that_no_block_holds_are_told(tmp_path: Path) -> None:
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS["qwen2"], dtype=torch.bfloat16)
    made.save_pretrained(tmp_path / "model")
    quantized, _ = quantize(tmp_path / "model", tmp_path, Scheme(4, 32), Scheme(8, 0, "float"))
    fields = exported(quantized, tmp_path / "out")
    assert "lm_head became 16 bits: no kind of block holds" in fields["metrics"]["note"]
    asked = exported(quantized, tmp_path / "asked", "gguf-f16")
    assert "16 bits" not in asked["metrics"].get("note", "")


@pytest.mark.parametrize(
    ("format", "kinds"), [("gguf", {"F16"}), ("gguf-q8_0", {"Q8_0"}), ("gguf-q4_0", {"Q4_0", "Q8_0"})]
)
def test_matrices_have_the_kind_that_is_asked_for(tmp_path: Path, format: str, kinds: set[str]) -> None:
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS["qwen2"], dtype=torch.bfloat16)
    made.save_pretrained(tmp_path / "model")
    exported(tmp_path / "model", tmp_path / "out", format)
    tensors = gguf.GGUFReader(tmp_path / "out/model.gguf").tensors
    assert {each.tensor_type.name for each in tensors if each.shape.size > 1} == kinds
    assert {each.tensor_type.name for each in tensors if each.shape.size == 1} == {"F32"}


def test_numbers_of_others_are_kept_too(tmp_path: Path) -> None:
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS["qwen2"], dtype=torch.bfloat16)
    made.save_pretrained(tmp_path)
    name = "model.layers.0.mlp.down_proj"
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[f"{name}.weight"]
    save_file(tensors | as_gptq(name, drawn(64, 96, 32, 4, zero=8), 4), tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert exported(tmp_path, tmp_path / "out")["metrics"]["kinds"] == ["F16", "Q4_0"]


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="no export to 'onnx'"):
        exported(TINY, tmp_path / "out", "onnx")
    other = transformers.AutoModelForCausalLM.from_config(
        transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64)
    )
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(NotSupported, match="gpt2"):
        exported(tmp_path / "other", tmp_path / "out")
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS["qwen2"], dtype=torch.bfloat16)
    made.save_pretrained(tmp_path / "model")
    tensors = load_file(tmp_path / "model/model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model/model.safetensors")
    with pytest.raises(BadModel, match=r"has no tensor model\.norm\.weight"):
        exported(tmp_path / "model", tmp_path / "out")


GENERATE = """
import json, sys, llama_cpp
path, ids, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
model = llama_cpp.Llama(path, n_ctx=256, n_threads=1, verbose=False)
tokens = []
for token in model.generate(ids, top_k=1, temp=0.0):
    tokens.append(token)
    if len(tokens) == count:
        break
print(json.dumps(tokens))
"""


@pytest.mark.slow
@pytest.mark.skipif(not PEER.exists(), reason="llama.cpp is not installed (make peers)")
@pytest.mark.parametrize(
    "scheme", [None, Scheme(8, 32), Scheme(4, 32), Scheme(4, 128, shift=True), Scheme(4, 0)], ids=str
)
def test_llama_cpp_continues_with_the_same_tokens(scheme: Scheme | None, tmp_path: Path) -> None:
    source = twin = TINY
    if scheme is not None:
        source, twin = quantize(TINY, tmp_path, scheme, Scheme(8, 0))
    exported(source, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    model = transformers.AutoModelForCausalLM.from_pretrained(twin, dtype=torch.float32)
    for text, count in (("The for statement", 12), ("<|user|>show the loaded models<|assistant|>", 2)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        wanted = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
        command = [str(PEER), "-c", GENERATE, str(tmp_path / "out/model.gguf"), json.dumps(ids), str(count)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(answer.stdout) == wanted[0, len(ids) :].tolist(), text
