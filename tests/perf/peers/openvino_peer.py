"""OpenVINO through optimum-intel's `generate`, computing in bfloat16 where the processor does."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

from .padding import Watch, padded
from .peer import Batched, Room

GROUP = 128
WEIGHTS = "openvino_model.bin"


class OpenVino(Batched):
    """The model is exported once for each width of weights, beside their folder. Those of 16 bits stay so; others are
    rounded by NNCF, and inputs are then rounded as OpenVINO does by itself."""

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        transformers.utils.logging.set_verbosity_error()
        torch.set_num_threads(room.threads)
        exported = folder.parent / ("openvino" if room.bits == 16 else f"openvino-int{room.bits}")
        if not (exported / WEIGHTS).exists():
            OVModelForCausalLM.from_pretrained(
                str(folder), export=True, compile=False, use_cache=True, local_files_only=True, **_narrower(room)
            ).save_pretrained(exported)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16", "KV_CACHE_PRECISION": "bf16", "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": room.threads,
        }  # fmt: skip
        if room.bits == 16:
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        self._model = OVModelForCausalLM.from_pretrained(str(exported), ov_config=settings, local_files_only=True)
        how = transformers.GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
        self._model.generation_config = how
        self._model.compile()
        compiled = self._model.request.get_compiled_model()
        return {
            "openvino": importlib.metadata.version("openvino"), "transformers": transformers.__version__,
            "optimum-intel": importlib.metadata.version("optimum-intel"), "torch": torch.__version__,
            "weights": (exported / WEIGHTS).stat().st_size,
            **{name: str(compiled.get_property(name)) for name in settings},
        }  # fmt: skip

    def batch(self, prompts: Sequence[Sequence[int]], new_tokens: int, emit: Callable[[Sequence[int]], None]) -> None:
        ids, mask = padded(prompts)
        self._model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, stopping_criteria=[Watch(emit)])


def _narrower(room: Room) -> dict[str, Any]:
    """How weights are to be rounded on export."""
    if room.bits == 16:
        return {"load_in_8bit": False}
    how = {"bits": room.bits, "sym": True, **({"group_size": GROUP, "ratio": 1.0} if room.bits == 4 else {})}
    return {"quantization_config": OVWeightQuantizationConfig(**how)}
