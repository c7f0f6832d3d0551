"""Tiny models with random weights that look at pictures and talk about them, or write what they hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tiny_kinds import LAYERS, SIZE, build, save
from tiny_models import byte_level

SEEN: dict[str, Any] = {**LAYERS, "image_size": 16, "patch_size": 8}
TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<image>{% else %}{{ item['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
RATE = 16_000
SECONDS = 2
"""What the tiny model hears at once, in place of Whisper's thirty."""


def llava(folder: Path, seed: int) -> Path:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    place = tokenizer.convert_tokens_to_ids("<image>")
    text = transformers.LlamaConfig(**{**SIZE, "vocab_size": 328, "eos_token_id": 1, "bos_token_id": None})
    config = transformers.LlavaConfig(
        text_config=text, vision_config=transformers.CLIPVisionConfig(**SEEN), image_token_id=place,
        vision_feature_layer=-1,
    )  # fmt: skip
    seer = transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = transformers.LlavaProcessor(
        seer, tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )  # fmt: skip
    module = build(config, "LlavaForConditionalGeneration", seed, 6.0)
    return save(folder, module, processor)


def speech(count: int = 6) -> list[Any]:
    """Samples that differ in what they are made of, as speech does; the last ones nearly fill the window."""
    made = []
    for number in range(count):
        random = np.random.default_rng(number)
        time = np.arange(int(RATE * (0.8 + 0.2 * number))) / RATE
        tones = [
            np.sin(2 * np.pi * hertz * time) * (np.sin(2 * np.pi * random.uniform(1, 5) * time) > 0)
            for hertz in random.uniform(150, 4000, 4)
        ]
        made.append((0.2 * sum(tones)).astype(np.float32))
    return made


def whisper(folder: Path, seed: int) -> Path:
    tokenizer = byte_level()
    special = ["<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>", "<|translate|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens([f"<|{step * 0.02:.2f}|>" for step in range(SECONDS * 50 + 1)])
    ids = dict(zip(special, tokenizer.convert_tokens_to_ids(special), strict=True))
    told = transformers.WhisperTokenizer(tokenizer_object=tokenizer._tokenizer, eos_token="</s>", bos_token="<s>",
                                         unk_token="<s>", pad_token="<pad>")  # fmt: skip
    ear = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=SECONDS)
    config = transformers.WhisperConfig(
        vocab_size=len(told), num_mel_bins=16, d_model=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_source_positions=SECONDS * 50, max_target_positions=64, pad_token_id=2, bos_token_id=0, eos_token_id=1,
        decoder_start_token_id=ids["<|startoftranscript|>"], suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    module = build(config, "WhisperForConditionalGeneration", seed, 12.0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "encoder_attn.v_proj.weight" in name:
                parameter.mul_(16.0)  # what is heard counts for much
    settings = module.generation_config
    settings.no_timestamps_token_id = ids["<|notimestamps|>"]
    settings.is_multilingual, settings._from_model_config = True, False
    settings.lang_to_id = {"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]}
    settings.task_to_id = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    settings.max_initial_timestamp_index = 50
    settings.suppress_tokens = list(ids.values())
    return save(folder, module, told, ear)
