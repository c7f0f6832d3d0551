"""Quantizing the linear layers of a model by a method: alone, or by what arrives at them when text runs through it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ..contract import ProgressSink
from ..ops.quantized import QuantizedWeight, Scheme, concatenated
from ..quant.awq import awq_scales, best_nearest, smooth_scales
from ..quant.budget import Rung, within_budget
from ..quant.gptq import gptq, output_error
from ..quant.nearest import nearest, relative_error
from ..quant.rule import together, wider
from .calibration import Arrived, Layer, walk
from .folding import fold, sources
from .writing import Writing

GPTQ, AWQ, SMOOTH, NEAREST = "gptq", "awq", "smoothquant", "rtn"
ROWS = 4096
"""Outputs of a layer without calibration that are worked on at a time."""
EMPTY = torch.empty(0)


@dataclass
class Layerwise:
    """Quantizes the layers of `plan` of a model into `writing`.

    Attributes:
        errors: of each layer that is done: squared, of outputs over outputs where text told what arrives, else of
            weights over weights.
        weights: numbers in all layers that are done, and `bytes` what they take.
        folded: parts of layers that took over factors, by name.
    """

    module: Any
    plan: dict[str, Scheme]
    writing: Writing
    method: str
    progress: ProgressSink
    errors: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)
    weights: int = 0
    _last: Sequence[str] = ()

    def run(self, pieces: Tensor | None) -> None:
        """Quantize all, by text where there is some. Raises OSError, NotSupported."""
        if self.method != NEAREST:
            assert pieces is not None, "the caller has text for methods that learn"
            walk(self.module, pieces, self._visit)
            self._forget(self._last)
        left = [name for name in self.plan if name not in self.errors]
        for name in left:
            self.progress(len(self.errors), len(self.plan), "layers", "quantize")
            weight = self._linear(name).weight.data
            scheme = self.plan[name]
            made = concatenated([nearest(rows, scheme) for rows in torch.split(weight, ROWS)])
            parts = zip(torch.split(weight, ROWS), range(0, len(weight), ROWS), strict=True)
            lost = [relative_error(rows, made.rows(slice(at, at + ROWS))) * len(rows) for rows, at in parts]
            self._take(name, made, sum(lost) / len(weight))

    def fit(self, budget: int, pieces: Tensor | None) -> None:
        """Change the plan so that weights take at most `budget` bytes, the rest of them by what errors do.

        Raises:
            BadArgument: the narrowest take more.
        """
        errors: dict[str, list[float]] = {}
        if pieces is not None:
            walk(self.module, pieces, lambda layer: errors.update(self._tried(layer)))
        for name in self.plan:
            if name not in errors:
                weight = self._linear(name).weight.data[:ROWS]
                errors[name] = [relative_error(weight, nearest(weight, each)) for each in _ladder(self.plan[name])]
        units = together(self.plan)
        ladders = {lead: self._rungs(names, errors) for lead, names in units.items()}
        for lead, rung in within_budget(ladders, budget).items():
            for name in units[lead]:
                if rung.scheme is None:
                    del self.plan[name]
                else:
                    self.plan[name] = rung.scheme

    def _rungs(self, names: Sequence[str], errors: Mapping[str, Sequence[float]]) -> list[Rung]:
        schemes = _ladder(self.plan[names[0]])
        shapes = [self._linear(name).weight.shape for name in names]
        rungs = [
            Rung(scheme, sum(round(n * k * scheme.bits_per_weight(k) / 8) for n, k in shapes),
                 sum(errors[name][at] for name in names))
            for at, scheme in enumerate(schemes)
        ]  # fmt: skip
        return [*rungs, Rung(None, sum(self.writing.bytes_of(name) for name in names), 0.0)]

    def _tried(self, layer: Layer) -> dict[str, list[float]]:
        """Errors of outputs by the schemes that a layer may have."""
        self.progress(0, 0, "layers", f"weigh {layer.path}")
        found = {}
        for arrived in layer.arrived(self._of(layer)):
            importance = arrived.hessian.diagonal()
            for name in arrived.names:
                weight = self._linear(name).weight.data
                made = [nearest(weight, each, importance) for each in _ladder(self.plan[name])]
                found[name] = [output_error(weight, each, arrived.hessian) for each in made]
        return found

    def _of(self, layer: Layer) -> list[str]:
        return [name for name in self.plan if name.startswith(f"{layer.path}.")]

    def _visit(self, layer: Layer) -> None:
        names = self._of(layer)
        if any(name in self.errors for name in names):
            why = f"{layer.path} runs more than once"
            raise NotSupported(f"nothing is learnt from text: {why}; use the method {NEAREST}", why=why)
        self._forget(self._last)
        self._last = names
        if not names:
            return
        groups = layer.arrived(names)
        if self.method in (AWQ, SMOOTH):
            self._fold(layer, groups)
        for arrived in groups:
            for name in arrived.names:
                self.progress(len(self.errors), len(self.plan), "layers", f"quantize {layer.path}")
                weight = self._linear(name).weight.data
                made = self._made(weight, self.plan[name], arrived)
                self._linear(name).weight.data = made.dequantized().to(weight.dtype)
                self._take(name, made, output_error(weight, made, arrived.hessian))

    def _made(self, weight: Tensor, scheme: Scheme, arrived: Arrived) -> QuantizedWeight:
        if self.method == GPTQ:
            return gptq(weight, scheme, arrived.hessian)
        return best_nearest(weight, scheme, arrived.hessian)[0]

    def _fold(self, layer: Layer, groups: Sequence[Arrived]) -> None:
        before = sources(layer, [arrived.names for arrived in groups])
        for arrived in groups:
            source = before.get(arrived.names)
            if source is None or not self._may(source.path, source.module):
                continue
            weights = [(self._linear(name).weight.data, self.plan[name]) for name in arrived.names]
            if self.method == AWQ:
                factors = awq_scales(weights, arrived.mean, arrived.hessian)
            else:
                factors = smooth_scales([weight for weight, _ in weights], arrived.largest)
            real = None if factors is None else fold(layer, source, arrived.names, factors)
            if real is not None:
                arrived.divide(real)
                self.folded.append(source.path)
                parts = [name for name, _ in source.module.named_parameters(recurse=False)]
                self.writing.change(source.path, parts, source.module)

    def _may(self, path: str, module: Any) -> bool:
        """Whether what is written can have other parameters there."""
        names = [path] if getattr(module, "weight", None) is not None else []
        return all(self.writing.stored(name) for name in names)

    def _take(self, name: str, made: QuantizedWeight, error: float) -> None:
        self.errors[name], self.sizes[name] = error, made.nbytes
        self.weights += made.outs * made.ins
        self.writing.add(name, made)

    def _forget(self, names: Iterable[str]) -> None:
        """The layers have answered for the last time."""
        for name in names:
            self._linear(name).weight.data = EMPTY

    def _linear(self, name: str) -> Any:
        return self.module.get_submodule(name)


def _ladder(scheme: Scheme) -> list[Scheme]:
    return [scheme] if scheme.width == 8 else [scheme, wider(scheme)]
