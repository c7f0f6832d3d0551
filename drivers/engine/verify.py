"""Whether a model still answers as it was loaded: tried once, after its modules were replaced and on its pages.

Two rows of random tokens go through the pages in parts, mixed in one step and one token at a time, and their logits are
compared with those of one plain run of the untouched model. What keeps a state that the pages do not know shows here,
whatever its kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..ops.table import OpTable
from .attention import Refused
from .gathered import Gathering
from .loader import FAILURES, Bundle
from .memory import device_of
from .paged import Layers, PagedModel
from .pages import PagePool
from .quantized.library import stored
from .steps import PAGE_TOKENS, Row, RowStep, StepPlan
from .surgery.attention import fuse_attention, unfuse_attention
from .surgery.layers import fuse_layers

TOKENS = PAGE_TOKENS + 6
ROW_PAGES = 2
SINGLE = 5
"""So many tokens go one by one where batches are tried."""
TOLERANCE = {torch.float32: 1e-3}
HALF_TOLERANCE = 0.06
"""Largest difference of logits, as a share of their range."""
NARROW_TOLERANCE = {torch.int8: 0.1, torch.float8_e4m3fn: 0.25}
"""The same where keys and values are numbers of 8 bits: what shows that they are the right ones."""
ALIKE = {torch.float32: 1e-4}
HALF_ALIKE = 0.02
"""The same for two runs that should round alike."""
HALF_AGREES = 0.6
"""In half precision a router may send a token to another expert: of so many positions the logits must agree."""


FORWARD_TOLERANCE = {torch.float32: 1e-4}
HALF_FORWARD_TOLERANCE = 3e-2
"""Largest difference of what a model answers in one pass, as a share of its largest value."""


class ForwardTrial:
    """A row of tokens and all that the untouched model answers to it in one pass."""

    def __init__(self, bundle: Bundle) -> None:
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(bundle.vocabulary, (1, min(TOKENS, bundle.about.context)), generator=generator)
        self._module = bundle.module
        self._tokens = tokens.to(device_of(bundle.module))
        self._expected = self._answer()

    def unchanged(self) -> bool:
        """Whether the model still answers so."""
        found = self._answer()
        return len(found) == len(self._expected) and all(
            bool((one - other).abs().max() <= self._allowed(one) * other.abs().max())
            for one, other in zip(found, self._expected, strict=True)
        )

    def _answer(self) -> list[Tensor]:
        with torch.inference_mode():
            answer = self._module(input_ids=self._tokens, return_dict=True)
        return [part for part in answer.values() if isinstance(part, Tensor)]

    @staticmethod
    def _allowed(part: Tensor) -> float:
        return FORWARD_TOLERANCE.get(part.dtype, HALF_FORWARD_TOLERANCE)


def forward_trial(bundle: Bundle) -> ForwardTrial | None:
    """None for a model that wants more than tokens, or other ones than these."""
    try:
        return ForwardTrial(bundle)
    except FAILURES:
        return None


class Trial:
    """Two rows of tokens and the logits [2, T, V] that the untouched model has for them."""

    def __init__(self, bundle: Bundle) -> None:
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(bundle.vocabulary, (2, min(TOKENS, bundle.about.context)), generator=generator)
        self._tokens = tokens.to(device_of(bundle.module))
        self._dtype, self._pages = bundle.about.dtype, bundle.about.pages
        self._module = bundle.module
        self._batches = torch.split(self._tokens, 2 if stored(bundle.module) else 1)
        """Quantized weights are made whole for each run before they are packed, which takes longer than the run."""
        self._takes_positions = "position_ids" in inspect.signature(self._module.forward).parameters
        self.expected = self._plain()

    def unchanged(self) -> bool:
        """Whether the model, run plainly, still answers so."""
        return self._distance(_apart(self._plain(), self.expected), self._dtype) is None

    def fit_pages(self, module: Any, layers: Layers | Gathering, ops: OpTable) -> Tensor:
        """Fuse its attention and run it on pages, to which it is set; of a `Gathering` its last logits there
        [2, `SINGLE`, V].

        Raises Refused when it fails or differs.
        """
        singly = isinstance(layers, Gathering)
        if self._pages == self._dtype or singly:
            return self._fit(module, layers, ops, self._dtype, fuse=not singly)
        logits = self._fit(module, layers, ops, self._dtype, fuse=False)  # that it runs on pages shows in its own dtype
        self._fit(module, layers, ops, self._pages, fuse=True)
        return logits

    def _fit(self, module: Any, layers: Layers | Gathering, ops: OpTable, kept: torch.dtype, fuse: bool) -> Tensor:
        """Its last logits on pages of the dtype `kept`, with attention fused where that answers as well."""
        pool = PagePool(layers.shapes, 2 * ROW_PAGES, kept, self._tokens.device)
        model = PagedModel(module, layers, pool, ops)
        singly, fused = isinstance(layers, Gathering), 0

        def run() -> None:
            self._steps(model, singly, lambda _number, _start, _logits: None)

        try:
            if fuse and not isinstance(layers, Gathering):
                fused = fuse_attention(module, layers.modules, layers.meanings, ops, run)
            apart, logits = self._paged(model, singly)
            why = self._distance(apart, kept)
            if why and fused:
                unfuse_attention(module)
                apart, logits = self._paged(model, singly)
                why = self._distance(apart, kept)
            elif fused and not why:
                fuse_layers(module, ops, run)
        except FAILURES as error:
            said = str(error).partition("\n")[0][:160]
            raise Refused(f"it does not run on pages: {type(error).__name__}: {said}") from error
        finally:
            model.release()
        if why:
            of = "" if kept == self._dtype else f" of {str(kept).removeprefix('torch.')}"
            raise Refused(f"its logits differ on pages{of} by up to {why} of their range")
        return logits

    def alike(self, one: Tensor, other: Tensor) -> bool:
        """Whether two ways through the pages, which differ in nothing but company, gave the same logits in the end."""
        allowed = ALIKE.get(self._dtype, HALF_ALIKE)
        apart = _apart(one, other) / _spread(self.expected)
        return (apart <= allowed).float().mean(-1).min().item() >= self._least

    def _plain(self) -> Tensor:
        """The logits of one run of each row.

        Positions are said, since some models count from elsewhere when they are not told; a few refuse to be told.
        """
        positions = torch.arange(self._tokens.shape[1], device=self._tokens.device)[None]
        told: dict[str, Any] = {"position_ids": positions} if self._takes_positions else {}
        try:
            return self._run(told)
        except FAILURES:
            if not told:
                raise
            self._takes_positions = False
            return self._run({})

    def _run(self, options: Mapping[str, Any]) -> Tensor:
        with torch.inference_mode():
            parts = [self._module(input_ids=rows, use_cache=False, **options).logits for rows in self._batches]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _paged(self, model: PagedModel, singly: bool) -> tuple[Tensor, Tensor]:
        """How far the logits of a run on pages are from those expected [2, T], and the last ones if rows go `singly`:
        else nobody asks for them, and they are large."""
        apart, told = torch.empty(self.expected.shape[:2]), [0, 0]
        before = max(0, apart.shape[1] - SINGLE) if singly else apart.shape[1]
        last = torch.empty_like(self.expected[:, before:])

        def take(number: int, start: int, logits: Tensor) -> None:
            if start < told[number]:  # what is repeated beside others does not count
                return
            end = told[number] = start + len(logits)
            apart[number, start:end] = _apart(logits, self.expected[number, start:end])
            if end > before:
                first = max(start, before)
                last[number, first - before : end - before] = logits[first - start :]

        self._steps(model, singly, take)
        return apart, last

    def _steps(self, model: PagedModel, singly: bool, take: Callable[[int, int, Tensor], None]) -> None:
        """`take` rows by their numbers, from which token on, and the logits [t, V] there, which it does not keep.

        The second row starts while the first is half through, and goes on beside the last token of that: at once,
        or in the end `singly`, so that one batch after the other has rows of unlike length.
        """
        count = self._tokens.shape[1]
        first, second = (
            Row(name, row.tolist(), pages=list(range(at, 2 * ROW_PAGES, 2)))
            for at, (name, row) in enumerate(zip("ab", self._tokens, strict=True))
        )
        cut, last = count // 2, count - 1
        ends = list(range(max(cut, count - SINGLE), count + 1)) if singly else [count]
        steps = [
            [(first, 0, cut)],
            [(second, 0, cut), (first, cut, last)],
            *([(first, last, count), (second, start, end)] for start, end in pairwise(sorted({cut, *ends}))),
        ]
        for step in steps:
            parts = [RowStep(row, start, end - start, end - start) for row, start, end in step if end > start]
            logits = model.run(StepPlan(parts)) if parts else self.expected[0, :0]
            for taken in parts:
                take("ab".index(taken.row.id), taken.start, logits[: taken.count])
                logits = logits[taken.count :]
            del logits  # before the next ones are made

    def _distance(self, apart: Tensor, kept: torch.dtype) -> str | None:
        """None for the same answers with keys and values in a dtype, else how far they are `apart` [2, T]. Tokens that
        follow others count on their own."""
        apart = apart / _spread(self.expected)
        allowed = TOLERANCE.get(self._dtype, HALF_TOLERANCE) if kept == self._dtype else NARROW_TOLERANCE[kept]
        agree = (apart <= allowed).float()
        cut = agree.shape[1] // 2
        share = min(agree[:, :cut].mean().item(), agree[:, cut:].mean().item())
        return None if share >= self._least else f"{apart.max().item():.2g}"

    @property
    def _least(self) -> float:
        return 1.0 if self._dtype in TOLERANCE else HALF_AGREES


def _spread(logits: Tensor) -> float:
    """Their range."""
    low, high = torch.aminmax(logits)
    return (high.float() - low.float()).item() or 1.0


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """How far logits [.., V] are apart at most, [..] float32; token by token, since vocabularies are large."""
    room = one.new_empty(one.shape[-1], dtype=torch.float32)
    pairs = zip(one.flatten(0, -2), other.flatten(0, -2), strict=True)
    found = [float(room.copy_(each).sub_(its).abs_().amax()) for each, its in pairs]
    return torch.tensor(found).view(one.shape[:-1])
