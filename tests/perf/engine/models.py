"""Models of a shape with random weights, saved as transformers saves them; made once and kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from .shapes import EncoderShape, Shape

WORDS = "w{}"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FOLDER = "weights"


def causal(root: Path, shape: Shape) -> Path:
    """The folder of a causal LM of this shape below `root`."""
    return _once(root / shape.base / FOLDER, lambda folder: _save_causal(folder, shape))


def encoder(root: Path, shape: EncoderShape) -> Path:
    """The folder of an encoder of this shape below `root`."""
    return _once(root / shape.name / FOLDER, lambda folder: _save_encoder(folder, shape))


def adapters(root: Path, shape: Shape, count: int, rank: int, targets: Sequence[str]) -> list[Path]:
    """Folders of so many LoRA adapters for the model of this shape, as PEFT saves them."""
    return [
        _once(
            root / shape.base / f"lora-{rank}-{len(targets)}-{number}",
            lambda folder, number=number: _save_adapter(folder, root, shape, rank, targets, number),
        )
        for number in range(count)
    ]


def words(shape: EncoderShape) -> list[str]:
    """Words that are one token each."""
    return [WORDS.format(number) for number in range(shape.vocabulary - len(SPECIAL))]


def _once(folder: Path, save: Any) -> Path:
    """Saved whole, or not at all."""
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save(part)
        part.rename(folder)
    return folder


def _save_causal(folder: Path, shape: Shape) -> None:
    config = transformers.AutoConfig.for_model(
        shape.kind, vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context, tie_word_embeddings=shape.tied, bos_token_id=None, eos_token_id=None,
        pad_token_id=None, dtype="bfloat16",
    )  # fmt: skip
    _save(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16), folder)
    byte_level(shape.vocabulary).save_pretrained(folder)


def _save_encoder(folder: Path, shape: EncoderShape) -> None:
    config = transformers.BertConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, max_position_embeddings=shape.context,
        pad_token_id=0, dtype="bfloat16",
    )  # fmt: skip
    _save(transformers.AutoModel.from_config(config, dtype=torch.bfloat16), folder)
    vocabulary = {word: id for id, word in enumerate([*SPECIAL, *words(shape)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        mask_token="[MASK]", model_max_length=shape.context,
    ).save_pretrained(folder)  # fmt: skip


def _save(model: Any, folder: Path) -> None:
    """With weights that make each token depend on those before, so that answers do not repeat themselves."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim == 2:
                scale = 0.02 if "embed" in name or "lm_head" in name else values.shape[1] ** -0.5
                values.normal_(0.0, scale, generator=generator)
    model.save_pretrained(folder)


def _save_adapter(folder: Path, root: Path, shape: Shape, rank: int, targets: Sequence[str], seed: int) -> None:
    import peft

    config = transformers.AutoConfig.from_pretrained(root / shape.base / FOLDER)
    with torch.device("meta"):
        base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        wanted = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets), task_type="CAUSAL_LM")
        model = peft.get_peft_model(base, wanted)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name.replace(".default", ""): torch.empty(values.shape, dtype=torch.bfloat16).normal_(
            0.0, values.shape[1] ** -0.5 if "lora_A" in name else 0.02, generator=generator
        )
        for name, values in model.named_parameters()
        if "lora_" in name
    }
    from safetensors.torch import save_file

    save_file(tensors, folder / "adapter_model.safetensors")
    wanted.save_pretrained(folder)


def byte_level(vocabulary: int) -> Any:
    """A tokenizer as large as the model's vocabulary: all bytes, and words that no text is split into."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = {piece: id for id, piece in enumerate(alphabet)}
    known |= {f"Ġword{id}": id for id in range(len(known), vocabulary)}
    tokenizer = Tokenizer(models.BPE(known, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
