"""What moves: adapters of PEFT around a frozen model, and how they are saved so that plain PEFT loads them."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.adalora.layer import AdaLoraLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from llmos.syscalls.errors import BadArgument, NotSupported

from ..engine import kinds
from . import narrow
from .owning import HEADS, own_all, own_biases, own_heads, own_last, own_named
from .recipe import Recipe
from .words import WHOLE as WHOLE
from .resident import ResidentLinear, described
from .words import BOTTLENECK, PROMPTS

LORA: Mapping[str, Mapping[str, Any]] = {
    "lora": {}, "qlora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True},
}  # fmt: skip
"""Low-rank adapters, and what tells each from plain LoRA (arXiv:2106.09685, 2305.14314, 2312.03732, 2402.09353)."""

TASKS: Mapping[kinds.Kind, peft.TaskType] = {
    kinds.CAUSAL: peft.TaskType.CAUSAL_LM, kinds.VISION: peft.TaskType.CAUSAL_LM,
    kinds.SEQ2SEQ: peft.TaskType.SEQ_2_SEQ_LM, kinds.SEQUENCE: peft.TaskType.SEQ_CLS,
    kinds.TOKEN: peft.TaskType.TOKEN_CLS, kinds.QUESTION: peft.TaskType.QUESTION_ANS,
    kinds.ENCODER: peft.TaskType.FEATURE_EXTRACTION, kinds.TEXT_ENCODER: peft.TaskType.FEATURE_EXTRACTION,
}  # fmt: skip
"""PEFT's name of what a kind of model does; others have none there."""

EVERY_LINEAR = "all-linear"
"""PEFT's word for all linear layers but the head: adapters on all of them reach what full tuning does (QLoRA, 4)."""


def adapt(view: Any, kind: kinds.Kind, recipe: Recipe, steps: int, base_path: str = "") -> Any:
    """Put a recipe's adapters around a frozen model, or give it weights of its own where it is itself to move: only
    what moves requires a gradient, and is float32.

    Args:
        view: the model, as `resident.training_view` makes it, or any other of the library's.
        kind: what it is for.
        recipe: the method and what belongs to it.
        steps: how many updates there will be, which the schedule of AdaLoRA's ranks needs.
        base_path: of the model, as the adapter's configuration is to name it.

    Raises:
        BadArgument: a target that the model does not have.
        NotSupported: a method that this kind of model cannot have.
    """
    own_heads(view, kind)
    if recipe.method in WHOLE:
        return _itself(view, recipe)
    if recipe.method == BOTTLENECK:
        own_named(view, recipe.modules_to_save)
        narrow.put(view, kind, recipe)
        return view
    settings = _settings(kind, recipe, steps)
    shared = own_named(view, recipe.modules_to_save)
    for part in view.modules() if recipe.method == "adalora" else ():
        if isinstance(part, ResidentLinear):
            part.written = True
    # DoRA begins with the lengths of weights; all others only look at what weights are like
    looking = nullcontext() if recipe.method == "dora" else described(view)
    with warnings.catch_warnings(), looking:
        warnings.simplefilter("ignore")  # of settings that PEFT corrects by itself
        try:
            adapted: peft.PeftModel = peft.get_peft_model(view, settings)
        except ValueError as error:
            linear = (name for name, part in view.named_modules() if isinstance(part, nn.Linear))
            names = sorted({name.rpartition(".")[2] for name in linear})
            got = ", ".join(recipe.target_modules) or f"what PEFT takes for {recipe.method}"
            said = f"{recipe.method} finds no layers for {got} ({error}); linear layers here: {', '.join(names)}"
            raise BadArgument(said, name="target_modules", got=got, want=", ".join(names)) from error
    adapted.peft_config["default"].base_model_name_or_path = base_path
    if recipe.method in PROMPTS:  # PEFT looks for a parameter, which an embedding that is the output layer has none of
        whole: Any = adapted.get_base_model()
        adapted.word_embeddings = whole.get_input_embeddings()
    for path, part in shared.items():
        wrapped: Any = adapted.get_base_model().get_submodule(path)
        wrapped.original_module = part  # one copy of its own is enough
    for name, parameter in adapted.named_parameters():
        if ".ranknum." in name:  # of AdaLoRA: it counts, and is never learned
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _itself(view: Any, recipe: Recipe) -> Any:
    """The view, where weights of the model move."""
    if recipe.method == "full":
        own_all(view)
    elif recipe.method == "last-layers":
        own_last(view, recipe.layers)
    else:
        own_biases(view)
    return view


class Ranks:
    """AdaLoRA gives ranks to the layers that need them most: after each step, by what gradients have told so far."""

    def __init__(self, adapted: peft.PeftModel) -> None:
        model: Any = adapted.base_model
        self._model, self._allocator = model, model.rankallocator
        self._allocator.reset_ipt()

    def stepped(self, step: int) -> None:
        """An update has been made, and its gradients are there yet."""
        self._model.update_and_allocate(step)

    def states(self) -> dict[str, Tensor]:
        """Running means of importance and of its uncertainty, by parameter."""
        means = {f"importance/{name}": value for name, value in self._allocator.exp_avg_ipt.items()}
        return means | {f"uncertainty/{name}": value for name, value in self._allocator.exp_avg_unc.items()}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Go on from what `states` gave."""
        self._allocator.reset_ipt()
        means = {"importance": self._allocator.exp_avg_ipt, "uncertainty": self._allocator.exp_avg_unc}
        for key, value in states.items():
            kind, _, name = key.partition("/")
            means[kind][name] = value.clone()
            self._allocator.ipt[name] = torch.zeros_like(value)


def companion_of(adapted: peft.PeftModel, recipe: Recipe) -> Ranks | None:
    """What is to be called after each step of a method; None for most."""
    return Ranks(adapted) if recipe.method == "adalora" else None


def export(adapted: peft.PeftModel, folder: Path) -> Mapping[str, Any]:
    """Write an adapter into a folder as PEFT does; what its configuration says. Raises OSError.

    What AdaLoRA has found is written as the plain LoRA that it is, of a rank of its own in each layer: anything that
    serves LoRA serves it.
    """
    tensors, settings = learnt(adapted)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    said: dict[str, Any] = json.loads((folder / peft.utils.CONFIG_NAME).read_text())
    return said


def learnt(adapted: peft.PeftModel) -> tuple[dict[str, Tensor], Any]:
    """The tensors of an adapter as PEFT names them, and a configuration of their own that fits them."""
    settings: Any = adapted.peft_config["default"]
    if isinstance(settings, peft.AdaLoraConfig):
        return _as_lora(adapted, settings)
    return get_peft_model_state_dict(adapted, save_embedding_layers=False), copy.copy(settings)


def _as_lora(adapted: Any, settings: Any) -> tuple[dict[str, Tensor], Any]:
    """Its singular values and scale go into the first matrix; triplets that were given away are left out."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for path, layer in adapted.named_modules():
        if not isinstance(layer, AdaLoraLayer):
            continue
        a, b, values = (getattr(layer, name)["default"] for name in ("lora_A", "lora_B", "lora_E"))
        kept = values[:, 0] != 0
        if kept.any():
            scale = layer.scaling["default"] / (layer.ranknum["default"] + 1e-5)
            tensors[f"{path}.lora_A.weight"] = (a * values * scale)[kept]
            tensors[f"{path}.lora_B.weight"] = b[:, kept]
            ranks[path.removeprefix("base_model.model.")] = int(kept.sum())
    made = peft.LoraConfig(
        task_type=settings.task_type, r=settings.target_r, lora_alpha=settings.target_r, lora_dropout=0.0,
        target_modules=sorted(ranks), rank_pattern=ranks, alpha_pattern=dict(ranks),
        fan_in_fan_out=settings.fan_in_fan_out,
        base_model_name_or_path=settings.base_model_name_or_path,
    )  # fmt: skip
    return tensors, made


def _settings(kind: kinds.Kind, recipe: Recipe, steps: int) -> Any:
    method, task = recipe.method, TASKS.get(kind)
    common: dict[str, Any] = {"task_type": task, "modules_to_save": list(recipe.modules_to_save) or None}
    targets: Any = list(recipe.target_modules) or EVERY_LINEAR
    low_rank: dict[str, Any] = {
        **common, "lora_alpha": recipe.alpha, "lora_dropout": recipe.dropout, "target_modules": targets,
        "exclude_modules": rf"(.*\.)?({'|'.join(HEADS[kind])})(\..*)?" if kind in HEADS else None,
    }  # fmt: skip
    if method in LORA:
        return peft.LoraConfig(r=recipe.rank, **low_rank, **LORA[method])
    if method == "adalora":
        # As its authors do: rank falls between a tenth and seven tenths of the run, from half as much again.
        total = max(steps, 10)
        ranks: dict[str, Any] = {"init_r": recipe.rank * 3 // 2, "target_r": recipe.rank, "total_step": total}
        when: dict[str, Any] = {"tinit": total // 10, "tfinal": total * 3 // 10, "deltaT": max(1, total // 100)}
        return peft.AdaLoraConfig(**low_rank, **ranks, **when)
    if method == "ia3":
        return peft.IA3Config(**common, **({"target_modules": targets} if recipe.target_modules else {}))
    return _prompt(kind, recipe, task)


def _prompt(kind: kinds.Kind, recipe: Recipe, task: Any) -> Any:
    if task is None:
        why = f"PEFT has no virtual tokens for a {kind.name}"
        raise NotSupported(f"{recipe.method}: {why}; take lora", why=why)
    count: dict[str, Any] = {"task_type": task, "num_virtual_tokens": recipe.virtual_tokens}
    if recipe.method == "prompt":
        return peft.PromptTuningConfig(**count)
    if recipe.method == "prefix":
        return peft.PrefixTuningConfig(**count)
    return peft.PromptEncoderConfig(**count)
