"""transformers itself: `generate` with a dynamic and a static cache, `generate_batch`, the pipeline for encoders."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from .padding import Watch, padded
from .peer import Answer, Batched, Clock, Job, Room

PAGE = 256
"""Tokens of a page of `generate_batch`, its default."""
STEP_TOKENS = 1024


def load(folder: Path, room: Room) -> Any:
    """The model as it lies in the folder, in its own dtype."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(room.threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True).eval()
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
    return model


def facts(model: Any) -> dict[str, Any]:
    return {
        "transformers": transformers.__version__, "torch": torch.__version__, "dtype": str(model.dtype),
        "attention": model.config._attn_implementation,
    }  # fmt: skip


class Generate(Batched):
    """`generate` with its own cache, which grows."""

    options: Mapping[str, Any] = MappingProxyType({})

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        self._model = load(folder, room)
        return {**facts(self._model), "compiled": False}

    def batch(self, prompts: Sequence[Sequence[int]], new_tokens: int, emit: Callable[[Sequence[int]], None]) -> None:
        ids, mask = padded(prompts)
        with torch.inference_mode():
            self._model.generate(
                ids, attention_mask=mask, max_new_tokens=new_tokens, stopping_criteria=[Watch(emit)], **self.options
            )


class GenerateStatic(Generate):
    """`generate` with a cache of fixed size; on a CPU the library does not compile for it."""

    options: Mapping[str, Any] = MappingProxyType({"cache_implementation": "static"})


class GenerateBatch:
    """`generate_batch`: pages and continuous batching, in the library's own thread."""

    continuous = True

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        self._model = load(folder, room)
        config = ContinuousBatchingConfig(
            page_size=PAGE, num_blocks=-(-room.tokens // PAGE) + 2 * room.requests, max_batch_tokens=STEP_TOKENS,
            max_requests_per_batch=room.requests, allow_block_sharing=False,
        )  # fmt: skip
        settings = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=1)
        self._manager = self._model.init_continuous_batching(settings, continuous_batching_config=config)
        self._manager.start()
        return {**facts(self._model), "page": PAGE, "step": STEP_TOKENS}

    def run(self, jobs: Sequence[Job], last: int | None = None) -> list[Answer]:
        """The library notes the time of each token, but tells it when a request has ended."""
        answers = [Answer() for _ in jobs]
        began, clock = time.perf_counter(), Clock()
        waiting = sorted(range(len(jobs)), key=lambda number: jobs[number].at)
        running: dict[str, int] = {}
        while waiting or running:
            while waiting and jobs[waiting[0]].at <= clock():
                number = waiting.pop(0)
                answers[number].submitted = clock()
                id = self._manager.add_request(
                    list(jobs[number].prompt), max_new_tokens=jobs[number].new_tokens, record_timestamps=True
                )
                running[id] = number
            if not running:
                clock.wait(jobs[waiting[0]].at)
                continue
            patience = max(0.001, min(1.0, jobs[waiting[0]].at - clock())) if waiting else 1.0
            done = self._manager.get_result(timeout=patience)
            if done is not None and done.is_finished():
                if done.error is not None:
                    raise RuntimeError(done.error)
                answer = answers[running.pop(done.request_id)]
                answer.tokens = list(done.generated_tokens)
                answer.times = [at - began for at in done.timestamps]
            elif done is None and not self._manager.is_running():
                raise RuntimeError("the thread of generate_batch has ended")
        return answers

    def close(self) -> None:
        if hasattr(self, "_manager"):
            self._manager.stop(block=True)


class Pipeline:
    """The feature-extraction pipeline, one text after the other; mean pooling and unit length as ours."""

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        transformers.utils.logging.set_verbosity_error()
        torch.set_num_threads(room.threads)
        self._pipeline = transformers.pipeline("feature-extraction", model=str(folder), dtype="auto")
        return facts(self._pipeline.model)

    def embed(self, texts: Sequence[str]) -> dict[str, Any]:
        clock, vectors = Clock(), []
        with torch.inference_mode():
            for text in texts:
                states = self._pipeline(text, return_tensors=True)[0].float()
                vectors.append(torch.nn.functional.normalize(states.mean(0), dim=0))
        return {"seconds": clock(), "vectors": [vector.tolist() for vector in vectors]}
