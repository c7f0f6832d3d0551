"""LoRA adapters in PEFT layout, attached beside the weights of a loaded model (Hu et al. 2021).

The base's weights are shared and stay as they are; which adapter takes part is set before each step. peft is imported
only when an adapter is loaded.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from llmos.syscalls.errors import BadModel, NotSupported

from ..contract import ModelSource, ProgressSink
from . import checkpoint, loader
from .checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Weights

HARMLESS_INITS = (True, False, None, "gaussian", "orthogonal")
"""Ways an adapter was initialised that left the base's weights alone; PiSSA and its kin change them."""


def is_adapter(source: ModelSource) -> bool:
    """Whether the folder is an adapter rather than a model."""
    return checkpoint.find(source, ADAPTER_CONFIG) is not None and checkpoint.find(source, checkpoint.CONFIG) is None


def check(source: ModelSource) -> Weights:
    """The adapter's weight file, checked. Raises BadModel, NotSupported."""
    config = checkpoint.read_json(source, ADAPTER_CONFIG)
    for why, wrong in (
        (f"a {config.get('peft_type')} adapter is not LoRA", config.get("peft_type") != "LORA"),
        ("whole layers are saved beside it (modules_to_save)", bool(config.get("modules_to_save"))),
        ("it was trained on changed base weights (init_lora_weights)",
         config.get("init_lora_weights", True) not in HARMLESS_INITS),
        ("it adds layers to the base (layer_replication)", bool(config.get("layer_replication"))),
    ):  # fmt: skip
        if wrong:
            raise NotSupported(f"{source.path}: {why}", why=why)
    if checkpoint.find(source, ADAPTER_WEIGHTS) is None and checkpoint.find(source, "adapter_model.bin") is not None:
        why = "weights are pickled, which can run code; only safetensors are loaded"
        raise BadModel(f"{source.path}: adapter_model.bin: {why}", file="adapter_model.bin", why=why)
    return checkpoint.check_file(source, ADAPTER_WEIGHTS)


def attach(module: Any, name: str, source: ModelSource, progress: ProgressSink) -> None:
    """Load an adapter under a name, switched off. Raises BadModel, NotSupported; then the model is as it was."""
    weights = check(source)
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise NotSupported("adapters need the package peft; install it", why="peft is not installed") from error
    with checkpoint.folder_of(source) as folder:
        loader.check_finite(folder, weights, progress)
        progress(weights.bytes, weights.bytes, "bytes", "build")
        try:
            config = LoraConfig.from_pretrained(str(folder))
            config.init_lora_weights = True
            with _quiet():
                info = module.load_adapter(str(folder), adapter_name=name, peft_config=config, use_safetensors=True)
        except loader.FAILURES as error:
            _discard(module, name)
            raise loader.bad_model(source, error, ADAPTER_WEIGHTS) from error
    missing = [key for key in info.missing_keys if name in key.split(".")]
    wrong = sorted([*missing, *info.unexpected_keys, *(key for key, *_ in info.mismatched_keys)])
    if wrong:
        _discard(module, name)
        why = f"it does not fit the base: {', '.join(wrong[:3])}"
        raise BadModel(f"{ADAPTER_WEIGHTS} of {source.path}: {why}", file=ADAPTER_WEIGHTS, why=why)
    activate(module, "")


def detach(module: Any, name: str) -> None:
    """Remove an adapter and its weights."""
    with _quiet():
        module.delete_adapter(name)
    if getattr(module, "_hf_peft_config_loaded", False):
        activate(module, "")


def activate(module: Any, name: str) -> None:
    """Let the adapter called `name` take part in what follows; none when it is empty."""
    if name:
        module.set_adapter(name)
        module.enable_adapters()
    else:
        module.disable_adapters()


def tensors(module: torch.nn.Module, name: str) -> Iterator[torch.Tensor]:
    """The weights of one adapter."""
    for path, tensor in module.named_parameters():
        if name in path.split("."):
            yield tensor


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """peft warns of several adapters on one model, which is what is wanted here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _discard(module: Any, name: str) -> None:
    if name in getattr(module, "peft_config", {}):
        detach(module, name)
