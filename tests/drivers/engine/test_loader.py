"""From a folder to a model: what loads, in which dtype, and what is refused with which file named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import PROMPT, build, config_of, greedy, silent, source_of, word_piece

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import kinds, loader
from llmos.drivers.engine.loader import Bundle
from llmos.syscalls.errors import BadArgument, BadModel, NoDeviceMemory, NotSupported

Copy = Callable[..., Path]


def load(folder: Path, **settings: Any) -> Bundle:
    return loader.load(source_of(folder), LoadSettings(**settings), silent)


def refused(folder: Path, **settings: Any) -> BadModel:
    with pytest.raises(BadModel) as error:
        load(folder, **settings)
    assert error.value.why and error.value.file in str(error.value)
    return error.value


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None removes one."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_a_folder_becomes_a_model_ready_to_run(llama: Path) -> None:
    bundle = load(llama)
    assert bundle.about.causal and bundle.about.architecture == "LlamaForCausalLM"
    assert (bundle.about.context, bundle.vocabulary, bundle.chat) == (128, 320, True)
    assert not bundle.module.training
    assert not any(parameter.requires_grad for parameter in bundle.module.parameters())


def test_bytes_are_reported_while_reading(llama: Path) -> None:
    calls: list[tuple[int, int, str, str]] = []
    loader.load(source_of(llama), LoadSettings(), lambda *call: calls.append(call))
    size = (llama / "model.safetensors").stat().st_size
    assert calls[-1] == (size, size, "bytes", "build")
    reading = [done for done, total, _, stage in calls if stage == "read"]
    assert len(reading) > 5 and reading == sorted(reading) and 0 < reading[0] < reading[-1] <= size


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [
        ("float32", "auto", torch.float32), ("bfloat16", "auto", torch.bfloat16), ("float16", "auto", torch.float32),
        ("float32", "bfloat16", torch.bfloat16), ("bfloat16", "float32", torch.float32),
        ("float32", "float16", torch.float16),
    ],
)  # fmt: skip
def test_dtype_is_the_checkpoints_unless_asked_and_float16_is_raised(
    copied: Copy, stored: str, asked: str, expected: torch.dtype
) -> None:
    folder = copied()
    stored_dtype = getattr(torch, stored)
    edit_weights(folder, lambda tensors: tensors.update({k: v.to(stored_dtype) for k, v in tensors.items()}))
    for named in (stored, None):
        edit(folder / "config.json", dtype=named, torch_dtype=None)
        assert load(folder, dtype=asked).module.dtype == expected


def test_an_unknown_dtype_is_a_bad_argument(llama: Path) -> None:
    with pytest.raises(BadArgument) as error:
        load(llama, dtype="float8")
    assert (error.value.name, error.value.got) == ("dtype", "float8")


def test_context_is_the_models_or_less(llama: Path) -> None:
    assert load(llama, max_context=50).about.context == 50
    for wrong in (0, 129):
        with pytest.raises(BadArgument, match=str(wrong)):
            load(llama, max_context=wrong)


@pytest.mark.parametrize(
    ("name", "named"),
    [("config.json", "config.json"), ("tokenizer.json", "tokenizer.json"), ("model.safetensors", "model.safetensors")],
)
def test_a_missing_file_is_named(copied: Copy, name: str, named: str) -> None:
    found = refused(copied(name))
    assert (found.file, found.why) == (named, "missing")


def test_a_truncated_or_corrupt_file_is_named(copied: Copy) -> None:
    folder = copied()
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-100])
    assert (refused(folder).file, "truncated" in refused(folder).why) == ("model.safetensors", True)
    weights.write_bytes(data)
    for name in ("config.json", "tokenizer.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text[: len(text) // 2])
        assert refused(folder).file == name
        (folder / name).write_text(text)
    assert load(folder)


@pytest.mark.parametrize(
    ("name", "changes"), [("tokenizer.json", {"normalizer": 3}), ("tokenizer_config.json", {"model_max_length": "far"})]
)
def test_a_tokenizer_that_does_not_work_is_refused(copied: Copy, name: str, changes: dict[str, Any]) -> None:
    folder = copied()
    edit(folder / name, **changes)
    assert refused(folder).file == "tokenizer.json"


def test_weights_that_are_not_numbers_are_named(copied: Copy) -> None:
    folder = copied()
    for value in (torch.nan, torch.inf):
        edit_weights(folder, lambda tensors, value=value: tensors["model.norm.weight"].fill_(value))  # type: ignore[misc]
        found = refused(folder)
        assert (found.file, "model.norm.weight" in found.why) == ("model.safetensors", True)


def test_one_value_that_is_no_number_is_enough(copied: Copy) -> None:
    folder = copied()
    edit_weights(folder, lambda tensors: tensors["model.embed_tokens.weight"][200:201, 3].fill_(torch.nan))
    assert "model.embed_tokens.weight" in refused(folder).why


def test_a_tensor_without_values_is_fine(copied: Copy) -> None:
    folder = copied()
    edit_weights(folder, lambda tensors: tensors.update({"extra.empty": torch.zeros(0)}))
    assert load(folder)


def test_missing_and_surplus_tensors_are_named(copied: Copy) -> None:
    folder = copied()
    kept = load_file(folder / "model.safetensors")["model.layers.1.mlp.up_proj.weight"].clone()
    edit_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "model.layers.1.mlp.up_proj.weight" in refused(folder).why
    edit_weights(folder, lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.weight": kept}))
    assert load(folder)
    edit_weights(folder, lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.bias": torch.zeros(128)}))
    found = refused(folder)
    assert (found.file, "up_proj.bias" in found.why) == ("model.safetensors", True)


def test_a_head_that_is_no_part_of_the_model_is_left_out(copied: Copy) -> None:
    folder = copied()
    edit_weights(folder, lambda tensors: tensors.update({"value_head.weight": torch.zeros(1, 64)}))
    assert load(folder)


def test_what_old_checkpoints_carry_beside_their_weights_is_left_out(tmp_path: Path) -> None:
    """Masks and frequencies as buffers, and names without the prefix of the class."""
    folder = build(tmp_path / "gpt2", "gpt2", tie_word_embeddings=True)
    answer = greedy(load(folder).module, PROMPT)[0]
    mask, number = torch.ones(1, 1, 8, 8), torch.ones(())
    old = {"h.0.attn.bias": mask, "h.0.attn.masked_bias": number, "h.1.attn.inv_freq": torch.ones(2)}

    def age(tensors: dict[str, torch.Tensor]) -> None:
        renamed = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed | old)

    edit_weights(folder, age)
    assert greedy(load(folder).module, PROMPT)[0] == answer


def test_fewer_layers_in_the_configuration_than_in_the_weights_is_refused(copied: Copy) -> None:
    folder = copied()
    edit(folder / "config.json", num_hidden_layers=1)
    assert "model.layers.1" in refused(folder).why


def test_shapes_that_do_not_fit_are_refused(copied: Copy) -> None:
    folder = copied()
    edit(folder / "config.json", intermediate_size=64)
    found = refused(folder)
    assert (found.file, "another shape of model.layers" in found.why) == ("model.safetensors", True)


def test_tied_weights_need_to_be_there_once(tmp_path: Path) -> None:
    folder = tmp_path / "tied"
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(config_of("llama", tie_word_embeddings=True))
    module.save_pretrained(folder)
    word_piece().save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert load(folder).vocabulary == 320


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"model_type": None}, "None"),
        ({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}, "never run"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_attention_heads": 7}, ""),
        ({"rms_norm_eps": -1e9}, "not finite"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(copied: Copy, changes: dict[str, Any], why: str) -> None:
    folder = copied()
    edit(folder / "config.json", **changes)
    found = refused(folder)
    assert found.file in ("config.json", "model.safetensors")
    assert why in found.why


def test_code_in_the_folder_is_never_run(copied: Copy) -> None:
    folder = copied()
    edit(folder / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    assert load(folder).about.architecture == "LlamaForCausalLM"
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_config": {"quant_method": "quip", "bits": 4}},
        {"architectures": ["LlamaForMultipleChoice"]},
    ],
)
def test_what_is_known_but_not_served_says_why(copied: Copy, changes: dict[str, Any]) -> None:
    folder = copied()
    edit(folder / "config.json", **changes)
    with pytest.raises(NotSupported) as error:
        load(folder)
    assert error.value.why


def test_an_encoder_decoder_without_its_head_is_not_served(copied: Copy) -> None:
    folder = copied()
    (folder / "config.json").write_text(transformers.T5Config(vocab_size=320, d_model=32).to_json_string())
    with pytest.raises(NotSupported, match="T5Model is of no kind"):
        load(folder)


def test_a_classifier_without_its_head_is_refused(copied: Copy) -> None:
    folder = copied()
    edit(folder / "config.json", architectures=["LlamaForSequenceClassification"])
    with pytest.raises(BadModel, match=r"needs score\.weight"):
        load(folder)


def test_a_model_that_reads_pictures_needs_their_processor(tmp_path: Path) -> None:
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**size, "vocab_size": 320}, vision_config={**size, "image_size": 8, "patch_size": 4}
    )
    folder = tmp_path / "clip"
    transformers.CLIPModel(config).save_pretrained(folder)
    word_piece().save_pretrained(folder)
    with pytest.raises(BadModel, match="preprocessor_config"):
        load(folder)
    transformers.CLIPImageProcessorPil(crop_size=8, size=8).save_pretrained(folder)
    bundle = load(folder)
    assert (bundle.about.kind, type(bundle.processor).__name__) == (kinds.DUAL, "CLIPImageProcessorPil")


def test_an_encoder_is_loaded_for_its_states(bert: Path) -> None:
    bundle = load(bert)
    assert (bundle.about.causal, bundle.about.architecture) == (False, "BertModel")
    assert bundle.about.context == 64  # what the tokenizer says


def test_a_masked_language_model_keeps_its_head(tmp_path: Path) -> None:
    config = transformers.RobertaConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=42, pad_token_id=1,
    )  # fmt: skip
    folder = tmp_path / "roberta"
    transformers.RobertaForMaskedLM(config).save_pretrained(folder)
    word_piece().save_pretrained(folder)
    bundle = load(folder)
    assert bundle.about.kind is kinds.MASKED and hasattr(bundle.module, "lm_head")
    assert bundle.about.context == 40  # positions start behind the padding index


def test_no_architecture_named_means_the_usual_one(copied: Copy) -> None:
    folder = copied()
    edit(folder / "config.json", architectures=None)
    assert load(folder).about.architecture == "LlamaForCausalLM"


def test_end_tokens_are_those_of_the_generation_configuration(copied: Copy) -> None:
    folder = copied()
    for named, expected in ((None, set()), (1, {1}), ([1, 5], {1, 5})):
        edit(folder / "generation_config.json", eos_token_id=named)
        assert load(folder).eos == expected


def test_a_lack_of_memory_is_not_blamed_on_a_file(llama: Path) -> None:
    error = loader.bad_model(source_of(llama), RuntimeError("can't allocate memory: 1 byte"), "model.safetensors")
    assert isinstance(error, NoDeviceMemory)
    plain = loader.bad_model(source_of(llama), ValueError(), "model.safetensors")
    assert isinstance(plain, BadModel) and plain.why == "ValueError"


def test_a_model_in_shards_loads(tmp_path: Path) -> None:
    folder = build(tmp_path / "sharded")
    module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    module.save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert load(folder)
    shards[1].unlink()
    assert (refused(folder).file, refused(folder).why) == (shards[1].name, "missing")
