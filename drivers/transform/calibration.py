"""What arrives at the linear layers of a model while text runs through it, one of the model's layers at a time.

The model's own forward pass leads: each of its layers is called once with all pieces of text, and before its answer
goes on, somebody looks at it and may change its weights. So masks, positions and kinds of layers are the model's
business, a layer sees what the changed layers before it answer, and only hidden states are in memory for all text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import structure

ROWS = 2
"""Pieces that are in a layer at a time."""


@dataclass
class Arrived:
    """What arrived at linear layers with one input.

    Attributes:
        names: the layers, as in the model.
        hessian: [K, K] the sum of x x^T, float32.
        largest: [K] the largest size of each input.
        total: [K] the sum of sizes over `tokens` tokens.
    """

    names: tuple[str, ...]
    hessian: Tensor
    largest: Tensor
    total: Tensor
    tokens: int = 0

    def divide(self, factors: Tensor) -> None:
        """Inputs are what they were divided by `factors` [K]."""
        self.hessian = self.hessian / factors[:, None] / factors
        self.largest, self.total = self.largest / factors, self.total / factors

    @property
    def mean(self) -> Tensor:
        return self.total / max(1, self.tokens)

    def add(self, given: Tensor) -> None:
        """Inputs [..., K] of some tokens."""
        rows = given.detach().flatten(0, -2).float()
        sizes = rows.abs()
        self.hessian.addmm_(rows.T, rows)
        self.largest = torch.maximum(self.largest, sizes.amax(dim=0))
        self.total += sizes.sum(dim=0)
        self.tokens += len(rows)


@dataclass(frozen=True)
class Layer:
    """One layer of the model with all text before it.

    Attributes:
        path: its path in the model.
        module: it.
        run: what it answers, with whatever weights it has by then, for one batch of pieces after the other.
    """

    path: str
    module: nn.Module
    run: Callable[[], Iterator[Any]]

    def arrived(self, names: Collection[str]) -> list[Arrived]:
        """What arrives at some of its linear layers, named as in the model."""
        own = {name: self.module.get_submodule(name.removeprefix(f"{self.path}.")) for name in names}
        found: dict[tuple[str, ...], Arrived] = {}
        with inputs_of(own) as given:
            for _ in self.run():
                for group, x in _shared(given).items():
                    if group not in found:
                        size = x.shape[-1]
                        found[group] = Arrived(group, torch.zeros(size, size), torch.zeros(size), torch.zeros(size))
                    found[group].add(x)
                given.clear()
        return list(found.values())


@contextmanager
def inputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """The latest input of each module, by its name, as they are called."""
    given: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_pre_hook(_note(given, name)).remove)
        yield given


def walk(module: Any, pieces: Tensor, visit: Callable[[Layer], None]) -> None:
    """Run pieces of text [B, T] through a model that writes text; `visit` is called for each of its layers in turn."""
    with ExitStack() as stack:
        for path, layer in layers_of(module):
            own = layer.forward
            layer.forward = _visited(path, layer, own, len(pieces), visit)
            stack.callback(delattr, layer, "forward")
        # the output head is not needed for this, and its answers would be large
        with torch.inference_mode():
            module.base_model(input_ids=pieces, use_cache=False)


def layers_of(module: nn.Module) -> list[tuple[str, Any]]:
    """The layers that a model is a stack of, outermost ones alone."""
    found: list[tuple[str, Any]] = []
    for path, part in module.named_modules():
        if structure.is_layer(path) and not any(path.startswith(f"{other}.") for other, _ in found):
            found.append((path, part))
    return found


def _visited(path: str, layer: nn.Module, forward: Any, pieces: int, visit: Callable[[Layer], None]) -> Any:
    def whole(*args: Any, **kwargs: Any) -> Any:
        def run() -> Iterator[Any]:
            for start in range(0, pieces, ROWS):
                rows = slice(start, start + ROWS)
                part = [_part(each, rows, pieces) for each in args]
                named = {name: _part(each, rows, pieces) for name, each in kwargs.items()}
                yield forward(*part, **named)

        visit(Layer(path, layer, run))
        return _together(list(run()))

    return whole


def _part(value: Any, rows: slice, pieces: int) -> Any:
    """Some pieces of what is there for each piece; of tuples, part by part."""
    if isinstance(value, Tensor):
        return value[rows] if value.ndim > 1 and value.shape[0] == pieces else value
    return tuple(_part(each, rows, pieces) for each in value) if isinstance(value, tuple) else value


def _together(answers: list[Any]) -> Any:
    first = answers[0]
    if isinstance(first, tuple):
        return tuple(_together(list(each)) for each in zip(*answers, strict=True))
    return torch.cat(answers) if isinstance(first, Tensor) else first


def _note(given: dict[str, Tensor], name: str) -> Any:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        given[name] = args[0]

    return hook


def _shared(given: Mapping[str, Tensor]) -> dict[tuple[str, ...], Tensor]:
    """Inputs by the layers that were given this very tensor."""
    groups: dict[int, list[str]] = {}
    for name, tensor in given.items():
        groups.setdefault(id(tensor), []).append(name)
    return {tuple(names): given[names[0]] for names in groups.values()}
