"""transformers itself on the same weights: `generate` with a growing and a static cache, padded, `generate_batch`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from .clock import synchronize
from .ours import prompts
from .serving import requests, sizes
from .setting import SHAPES, Found, Setting
from .weights import folder_of


SMALL = {"num_blocks": 16, "max_batch_tokens": 64}
"""Of `generate_batch` on a processor, whose memory it would take for itself otherwise."""


class Times(transformers.StoppingCriteria):  # type: ignore[misc]
    """Notes when each step ends, and stops nothing; `generate` waits for the device in each step by itself."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        self.at.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Library:
    """One model of the library, on the device."""

    def __init__(self, setting: Setting, model: str) -> None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.device, self.shape = setting.device, SHAPES[model]
        folder = folder_of(setting.folder, self.shape)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
        self.model = self.model.to(self.device).eval()
        self.model.generation_config = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)

    def facts(self) -> Found:
        return {"transformers": transformers.__version__, "attention": self.model.config._attn_implementation}

    def seconds(self, rows: list[list[int]], new: int, **options: Any) -> float:
        """`generate` of rows of one length, to the end."""
        ids = torch.tensor(rows, device=self.device)
        synchronize(self.device)
        began = time.perf_counter()
        with torch.inference_mode():
            self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **options)
        synchronize(self.device)
        return time.perf_counter() - began

    def rate(self, rows: list[list[int]], new: int, **options: Any) -> float:
        """Tokens per second of the second half of the tokens, after a run in which the library may compile."""
        self.seconds(rows, new, **options)
        times = Times()
        self.seconds(rows, new, stopping_criteria=[times], **options)
        half = len(times.at) // 2
        return len(rows) * (len(times.at) - 1 - half) / (times.at[-1] - times.at[half])

    def batch(self, rows: list[list[int]], new: int) -> float:
        """`generate_batch`, seconds."""
        config = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=new)
        more = {} if self.device == "cuda" else {"continuous_batching_config": ContinuousBatchingConfig(**SMALL)}
        began = time.perf_counter()
        done = self.model.generate_batch(inputs=rows, generation_config=config, **more)
        took = time.perf_counter() - began
        got = sum(len(each.generated_tokens) for each in done.values())
        if got != len(rows) * new:
            raise RuntimeError(f"generate_batch made {got} of {len(rows) * new} tokens")
        return took


def alone(setting: Setting, model: str) -> Iterator[Found]:
    """One row: a growing cache, then a static one, which the library compiles for on CUDA."""
    library, (prompt, new) = Library(setting, model), sizes(setting)
    rows = prompts(2, 1, prompt, library.shape.vocabulary)
    yield {**library.facts(), "dynamic": library.rate(rows, new // 2)}
    yield {"static": library.rate(rows, new // 2, cache_implementation="static")}


def many(setting: Setting) -> Iterator[Found]:
    """Many requests at once."""
    library, (prompt, new) = Library(setting, setting.large), requests(setting)
    rows = prompts(10, setting.pick(64, 3), prompt, library.shape.vocabulary)
    library.seconds(rows, 4)
    yield {**library.facts(), "padded_seconds": library.seconds(rows, new)}
    library.batch(rows[:2], 4)
    yield {"batch_attention": library.model.config._attn_implementation, "batch_seconds": library.batch(rows, new)}
