"""Tiny models of many architectures, with random weights that do not repeat themselves, and tokenizers trained here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from llmos.drivers.contract import (
    ChoiceResult, Device, DoneEvent, FailedEvent, ModelSource, Prompt, Request, SamplingParams, SourceFile, StepEvent,
)  # fmt: skip

VOCABULARY = 320
CONTEXT = 128
PROMPT = (31, 7, 198, 64, 250, 12, 77, 140, 5, 91, 33, 8, 220, 101, 60, 17, 45, 300, 2, 260, 9, 71, 88, 23)
TEXTS = (
    "the quick brown fox jumps over the lazy dog and the other dog",
    "héllo wörld, naïve café; 你好世界 and привет мир, ok? yes! it's fine.",
    "tokens 😀 are 👍 pieces of text: def f(x): return x + 1",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|end|>")


def byte_level(chat: bool = False, bos: bool = False) -> Any:
    """As GPT-2, Llama 3 and Qwen: every byte has a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=list(SPECIAL[3:]),
    )  # fmt: skip
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def byte_fallback() -> Any:
    """As Llama 2, Mistral and Gemma: words with a mark for the space, and bytes for what is in no word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = _spaces_as_marks()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([text for text in TEXTS if text.isascii()], trainer)
    trained = json.loads(tokenizer.to_str())
    words = list(trained["model"]["vocab"])
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words[3:]]
    trained["model"] |= {"vocab": {word: id for id, word in enumerate(vocabulary)}, "byte_fallback": True}
    tokenizer = Tokenizer.from_str(json.dumps(trained))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _spaces_as_marks() -> Any:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def word_piece() -> Any:
    """As BERT: words and parts of words that continue one."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


_COMMON: Mapping[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "bos_token_id": 0,
    "eos_token_id": None, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
_GPT: Mapping[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "bos_token_id": 0,
    "eos_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
_EXPERTS: Mapping[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "llama": _COMMON,
    "qwen2": _COMMON,
    "qwen3": {**_COMMON, "head_dim": 16},
    "mistral": {**_COMMON, "sliding_window": 16},
    "gemma2": {**_COMMON, "head_dim": 16, "sliding_window": 16},
    "gemma3_text": {**_COMMON, "head_dim": 16, "sliding_window": 16, "num_hidden_layers": 6},
    "gpt2": _GPT,
    "gpt_neox": {**_COMMON, "num_key_value_heads": 4},
    "gptj": {**_GPT, "rotary_dim": 8},
    "opt": {**_COMMON, "ffn_dim": 128, "word_embed_proj_dim": 64},
    "phi": {**_COMMON, "num_key_value_heads": 4},
    "phi3": _COMMON,
    "falcon": {**_COMMON, "ffn_hidden_size": 128},
    "bloom": {**_GPT, "hidden_size": 64},
    "stablelm": _COMMON,
    "olmo2": _COMMON,
    "starcoder2": _COMMON,
    "granite": _COMMON,
    "cohere": {**_COMMON, "logit_scale": 1.0},
    "mixtral": {**_COMMON, "num_local_experts": 4},
    "deepseek_v3": {
        **_COMMON, **_EXPERTS, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
        "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
        "first_k_dense_replace": 1, "n_shared_experts": 1,
    },
    "mamba": {**_COMMON},
    "mamba2": {**_COMMON, "num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2},
    "rwkv": {**_COMMON, "attention_hidden_size": 64, "context_length": CONTEXT},
    "qwen3_next": {
        **_COMMON, **_EXPERTS, "num_hidden_layers": 4, "head_dim": 16, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
        "shared_expert_intermediate_size": 32,
    },
    "openai-gpt": _GPT,
}  # fmt: skip
ATTENTION = tuple(name for name in ARCHITECTURES if name not in ("mamba", "mamba2", "rwkv", "qwen3_next", "openai-gpt"))
POSITIONS = tuple(name for name in ATTENTION if name != "bloom")


def config_of(name: str, **changes: Any) -> Any:
    return transformers.AutoConfig.for_model(name, **{**ARCHITECTURES[name], **changes})


def build(folder: Path, name: str = "llama", tokenizer: Any = None, **changes: Any) -> Path:
    """Save a model and its tokenizer; the first seed whose greedy answer to PROMPT has enough different tokens.

    Each is made once in a process, and written where it is wanted.
    """
    key = f"{name} {sorted(changes.items())!r}"
    folder.mkdir(parents=True, exist_ok=True)
    if key not in _MADE:
        before = set(folder.iterdir())
        _make(folder, name, **changes)
        _MADE[key] = {file.name: file.read_bytes() for file in set(folder.iterdir()) - before}
    for file, content in _MADE[key].items():
        (folder / file).write_bytes(content)
    (tokenizer or byte_level()).save_pretrained(folder)
    return folder


_MADE: dict[str, dict[str, bytes]] = {}
"""Files of the models that were made."""


def _make(folder: Path, name: str, **changes: Any) -> None:
    for seed in range(20):
        module = random_module(config_of(name, **changes), seed)
        if len(set(greedy(module, PROMPT)[0])) >= 8:
            break
    else:
        raise AssertionError(f"no seed makes a {name} that does not repeat itself")
    module.save_pretrained(folder)


def random_module(config: Any, seed: int = 0) -> Any:
    """Weights large enough that the answer depends on all that came before; GPT-2 starts its projections smaller."""
    scale = 12.0 if config.model_type == "gpt2" else 6.0
    torch.manual_seed(seed)
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            if parameter.ndim >= 2 and "A_log" not in path:
                parameter.mul_(scale)
    return module


def greedy(module: Any, prompt: Sequence[int], count: int = 32) -> tuple[list[int], torch.Tensor]:
    """What transformers itself generates: tokens, and logits [count, vocabulary] in float32."""
    ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        answer = module.generate(
            ids, max_new_tokens=count, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    return answer.sequences[0, len(prompt) :].tolist(), torch.cat(answer.logits).float()


def source_of(folder: Path, names: Iterable[str] | None = None) -> ModelSource:
    """The folder as a file system would locate it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [SourceFile(str(path.relative_to(folder)), path, path.stat().st_size) for path in paths]
    return ModelSource(f"/models/{folder.name}", "v1", [f for f in files if names is None or f.name in names])


def silent(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
    """A listener to progress that does not listen."""


def ask(prompt: Any, id: str = "r", model: str = "m", **options: Any) -> Request:
    """A request: text, token ids or messages; what is no field of Request is a sampling parameter."""
    names = ("task", "embed", "context", "stream")
    fields = {name: options.pop(name) for name in names if name in options}
    if isinstance(prompt, str):
        given = Prompt(text=prompt)
    elif prompt and isinstance(prompt[0], dict):
        given = Prompt(messages=prompt)
    else:
        given = Prompt(ids=list(prompt))
    return Request(id, model, given, sampling=SamplingParams(**options), **fields)


def finish(runner: Device | Any, *requests: Request, limit: int = 2000) -> dict[str, list[StepEvent]]:
    """Submit requests and step until each has ended; the events of each."""
    for request in requests:
        runner.submit(request)
    waiting = {request.id for request in requests}
    events: dict[str, list[StepEvent]] = {request.id: [] for request in requests}
    for _ in range(limit):
        for event in runner.step():
            events.setdefault(event.request, []).append(event)
            if isinstance(event, DoneEvent | FailedEvent):
                waiting.discard(event.request)
        if not waiting:
            return events
    raise AssertionError(f"{waiting} did not end within {limit} steps")


def done(runner: Device | Any, request: Request) -> DoneEvent:
    """The result of one request; fails with its error."""
    last = finish(runner, request)[request.id][-1]
    assert isinstance(last, DoneEvent), last
    return last


def choice(runner: Device | Any, request: Request) -> ChoiceResult:
    return done(runner, request).choices[0]


Maker = Callable[..., Path]
