"""AdamW over layer groups, one after another, and learning rates as a function of the step."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
import transformers
from torch import Tensor, nn

from llmos.syscalls.errors import BadArgument

from .recipe import Recipe

_LIBRARY_NAMES = {"constant": "constant_with_warmup"}
"""A constant rate has a warm-up as well, unless the recipe's share is 0."""

_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.|_)norm(?:$|\.)")
_LAYER = re.compile(r"^(.*?\.\d+)\.")
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Schedule:
    """Learning rates by transformers' `get_scheduler`, as a function of the step: resuming needs no state of it."""

    def __init__(self, recipe: Recipe, steps: int) -> None:
        self._rate = recipe.learning_rate
        made = transformers.get_scheduler(
            _LIBRARY_NAMES.get(recipe.schedule, recipe.schedule),
            torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.learning_rate),
            num_warmup_steps=math.ceil(steps * recipe.warmup_ratio), num_training_steps=steps,
        )  # fmt: skip
        self._factor: Callable[[int], float] = made.lr_lambdas[0]

    def at(self, step: int) -> float:
        """The rate of the update that follows `step` others."""
        return self._rate * self._factor(step)


class Optimizer:
    """AdamW with float32 states: the parameters of one layer at a time, so that others get a turn in between.

    What is a bias or belongs to a norm does not decay, by the rule of transformers' Trainer. `trainable` are float32
    parameters by name; BadArgument where there are none or others.
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        self.trainable = trainable(module)
        self._clip = recipe.clip
        norms = {
            id(parameter)
            for part in module.modules()
            if isinstance(part, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm)
            for parameter in part.parameters(recurse=False)
        }
        self._groups: list[torch.optim.AdamW] = []
        for names in layer_groups(self.trainable):
            still = [n for n in names if _NO_DECAY.search(n.lower()) or id(self.trainable[n]) in norms]
            decays = [n for n in names if n not in still]
            kinds = ((decays, recipe.weight_decay), (still, 0.0))
            groups = [
                {"params": [self.trainable[n] for n in kind], "weight_decay": decay} for kind, decay in kinds if kind
            ]
            betas = recipe.beta1, recipe.beta2
            self._groups.append(torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=recipe.epsilon, foreach=False))

    def clip(self) -> float:
        """The norm of all gradients, which are then clipped in place."""
        parameters = [p for p in self.trainable.values() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=False)
        if self._clip and bool(norm.isfinite()):
            nn.utils.clip_grads_with_norm_(parameters, self._clip, norm, foreach=False)
        return float(norm)

    def step(self, rate: float, yield_: Callable[[], None]) -> None:
        for group in self._groups:
            for part in group.param_groups:
                part["lr"] = rate
            group.step()
            yield_()

    def clear(self) -> None:
        for parameter in self.trainable.values():
            parameter.grad = None

    def states(self) -> dict[str, Tensor]:
        """Moments and steps by `NAME.exp_avg` and so on; nothing of parameters that had no gradient yet."""
        return {f"{name}.{kind}": state[kind] for name, state in self._state_of_each() if state for kind in _MOMENTS}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        for name, state in self._state_of_each():
            state.clear()
            if f"{name}.step" in states:
                state.update({kind: states[f"{name}.{kind}"].clone() for kind in _MOMENTS})

    def _state_of_each(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        names = {id(parameter): name for name, parameter in self.trainable.items()}
        for group in self._groups:
            for part in group.param_groups:
                for parameter in part["params"]:
                    yield names[id(parameter)], group.state[parameter]


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """What moves, by name; BadArgument where it is nothing, or anything but float32."""
    found = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not found:
        raise BadArgument("nothing in this model is trainable", name="method", got="no parameter", want="at least one")
    for name, parameter in found.items():
        if parameter.dtype != torch.float32:
            raise BadArgument(
                f"{name} is to be trained and is {parameter.dtype}", name="module", got=str(parameter.dtype),
                want="float32",
            )  # fmt: skip
    return found


def layer_groups(names: Iterable[str]) -> list[list[str]]:
    """Names by the layer they belong to, in their order; what belongs to none is the last group."""
    groups: dict[str, list[str]] = {}
    for name in names:
        found = _LAYER.match(name)
        groups.setdefault(found.group(1) if found else "", []).append(name)
    rest = groups.pop("", [])
    return [*groups.values(), *([rest] if rest else [])]
