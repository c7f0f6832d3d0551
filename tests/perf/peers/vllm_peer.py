"""vLLM's build for CPUs, its engine in this process; prefixes are not cached, so that each prompt is computed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from .peer import Continuous, Job, Room, Step

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "WARNING",
}  # fmt: skip
GIB = 1 << 30
STEP_TOKENS = 2048


class Vllm(Continuous):
    """Eager: nothing is compiled before it runs."""

    eager = True
    prefix_cache = False

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        os.environ.update(SETTINGS)
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, -(-room.tokens * _token_bytes(folder) * 3 // 2 // GIB)))
        os.environ.setdefault("OMP_NUM_THREADS", str(room.threads))
        import torch
        import vllm
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        torch.set_num_threads(room.threads)
        self._numbers, self._running = count(), dict[str, int]()
        arguments = EngineArgs(
            model=str(folder), skip_tokenizer_init=True, dtype="bfloat16", enforce_eager=self.eager,
            max_model_len=room.context, max_num_seqs=room.requests, max_num_batched_tokens=STEP_TOKENS,
            enable_prefix_caching=self.prefix_cache, disable_log_stats=True,
        )  # fmt: skip
        self._engine = LLMEngine.from_engine_args(arguments)
        return {"vllm": vllm.__version__, "torch": torch.__version__, "eager": self.eager, "step": STEP_TOKENS}

    def submit(self, number: int, job: Job) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        id = f"r{next(self._numbers)}"
        self._running[id] = number
        how = SamplingParams(
            temperature=0.0, max_tokens=job.new_tokens, ignore_eos=True, detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )  # fmt: skip
        self._engine.add_request(id, {"prompt_token_ids": list(job.prompt)}, how)

    def step(self) -> Step:
        told = []
        for output in self._engine.step():
            number = self._running.get(output.request_id)
            if number is not None:
                told.append((number, list(output.outputs[0].token_ids)))
            if output.finished:
                self._running.pop(output.request_id, None)
        return told

    def cancel(self, numbers: Sequence[int]) -> None:
        ended = [id for id, number in self._running.items() if number in numbers]
        self._engine.abort_request(ended)
        for id in ended:
            del self._running[id]
        while self._engine.has_unfinished_requests():
            self._engine.step()


def _token_bytes(folder: Path) -> int:
    """What keys and values of one token take in 16 bits."""
    import json

    config = json.loads((folder / "config.json").read_text())
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(4 * config["num_hidden_layers"] * config["num_key_value_heads"] * width)
