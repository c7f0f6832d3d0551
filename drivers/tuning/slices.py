"""Long work in slices: it runs in a thread of its own, strictly in turn with the thread that asks for slices.

Only one of the two runs at any time. The work gives way where it calls its yield point and its time is used up, so a
slice is as long as was asked for and what lies between two yield points; when a slice runs never changes what is
computed. What torch keeps for each thread (gradients or inference) stays each side's own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from .resident import ResidentLinear

Yield = Callable[[], None]


class Stopped(BaseException):
    """Raised at the yield point of work that is closed. Not an `Exception`: no handler of errors may keep it."""


class _Outcome:
    """How a block ended that others wait for: what it raises is theirs, and goes no further in its own thread."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        """Nothing has been raised yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = None if isinstance(error, Stopped) else error
        return True


class Slices:
    """`work` is called with its yield point in a thread of its own, which starts with the first slice."""

    def __init__(self, work: Callable[[Yield], object], clock: Callable[[], float] = time.perf_counter) -> None:
        self._work = work
        self._clock = clock
        self._until = 0.0
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="slices", daemon=True)
        self._closing = False
        self._outcome = _Outcome()
        self.ended = False
        """Whether the work has returned, raised or was closed."""

    @property
    def error(self) -> BaseException | None:
        """What the work raised, when it has ended."""
        return self._outcome.error

    def advance(self, seconds: float) -> None:
        """Let it work for so long, if it has not ended."""
        if self.ended:
            return
        self._until = self._clock() + seconds
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()

    def close(self) -> None:
        """End the work at its yield point, where it stands; returns when its thread is gone."""
        if self._thread.ident is not None and not self.ended:
            self._closing = True
            self._go.release()
            self._thread.join()
        self.ended = True

    def _run(self) -> None:
        with self._outcome:
            self._work(self._yield)
        self.ended = True
        self._back.release()

    def _yield(self) -> None:
        if self._clock() < self._until:
            return
        self._back.release()
        self._go.acquire()
        if self._closing:
            raise Stopped


def mark(module: nn.Module, yield_: Yield) -> list[Any]:
    """Call `yield_` between the layers of a module, forward and backward; returns handles to `remove` the hooks with.

    A layer is a member of an `nn.ModuleList`, as decoders and encoders keep theirs, each direct child of one, and
    whatever multiplies by a matrix, the head among them: that is where the time goes, so there it is called before and
    afterwards, and between pieces of the head's weights.
    """

    def after(_module: nn.Module, _given: tuple[Any, ...], answer: Any) -> None:
        yield_()
        first = answer[0] if isinstance(answer, tuple) and answer else answer
        if isinstance(first, Tensor) and first.requires_grad:
            first.register_hook(giving_way)  # type: ignore[no-untyped-call]

    def giving_way(_gradient: Tensor) -> None:
        yield_()

    def before(_module: nn.Module, _given: tuple[Any, ...]) -> None:
        yield_()

    layers = [layer for part in module.modules() if isinstance(part, nn.ModuleList) for layer in part]
    products = [part for part in module.modules() if isinstance(part, nn.Linear)]
    units = {id(unit): unit for unit in (*products, *(u for layer in layers for u in (layer, *layer.children())))}
    handles: list[Any] = [unit.register_forward_hook(after) for unit in units.values()]
    residents = [part for part in products if isinstance(part, ResidentLinear)]
    handles += [_Between(part, yield_) for part in residents]
    return handles + [part.register_forward_pre_hook(before) for part in products]


class _Between:
    """A layer gives way between pieces of its weights, until it is told not to."""

    def __init__(self, layer: ResidentLinear, yield_: Yield) -> None:
        self._layer = layer
        layer.between = yield_

    def remove(self) -> None:
        self._layer.between = None
