"""Steps that are asked of the device and not waited for: decode steps are captured, others run as they come.

A row's tokens, position and pages are on the device (see `States`): the next step can be asked for before the host
knows what the last one chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from ...ops.table import OpTable
from .. import attention
from ..capture import Capture, Deferred
from ..lora.layout import BASE
from ..lora.store import slots_refused
from ..paged import Packed
from ..shared import SharedModule
from ..steps import PAGE_TOKENS, Row, RowStep
from .decode import DecodeSteps, bucket
from .seats import Seat, Seats
from .settings import GREEDY, Settings
from .states import States

PLAIN = -1
"""The epoch of steps without adapters, which no adapter changes."""


@dataclass(frozen=True)
class Launched:
    """A step under way: the logits [R, V] that its plan wants, and the tokens of the rows that are chosen on the
    device, in their order."""

    logits: Tensor
    chosen: Sequence[RowStep]
    tokens: Deferred


class Lane:
    """The steps of one model. At most `rows` take part in one, with tokens up to `context` each; `spare_page` is a page
    that no row has."""

    def __init__(
        self, packed: Packed, shared: SharedModule, ops: OpTable, capture: Capture, rows: int, context: int,
        spare_page: int,
    ) -> None:  # fmt: skip
        self._packed, self._shared, self._capture = packed, shared, capture
        self._buckets = [size for size in capture.buckets if size < rows] + [rows]
        self._seats = Seats(rows, -(-context // PAGE_TOKENS))
        self._states = States(self._seats, spare_page, ops, packed.dtype, capture)
        self._decode = DecodeSteps(packed, self._states, rows)
        self._made: dict[tuple[int, int], tuple[Callable[[], None], list[Tensor]]] = {}
        packed.up = capture.up
        self._refused = slots_refused(ops, {"device": packed.device.type, "dtype": packed.dtype})

    @property
    def refused(self) -> Mapping[str, Sequence[str]]:
        """Why steps could not be captured, and which."""
        refused = self._capture.refused
        return refused if not self._refused else {**refused, self._refused: ["decode steps with adapters"]}

    @torch.inference_mode()
    def prepare(self, alive: Callable[[], None]) -> None:
        """Make the steps without adapters, the largest first, so that the others fit into its memory."""
        self._shared.use(attention=attention.NAME)
        for size in reversed(self._buckets):
            self._step(size, PLAIN)
            alive()

    def launch(self, steps: Sequence[RowStep], settings: Mapping[Row, Settings]) -> Launched:
        """Ask for a step of the rows of a plan; `settings` are of those that are chosen on the device."""
        chosen = [at for at, step in enumerate(steps) if step.logits and step.row in settings]
        adapted = any(step.row.adapter != BASE for step in steps)
        if all(step.count == step.logits == 1 for step in steps) and not (adapted and self._refused):
            return self._decoded(steps, chosen, settings, adapted)
        return self._mixed(steps, chosen, settings)

    def forget(self) -> None:
        """Make all steps anew when they are needed: tensors that they use have moved."""
        self._made.clear()
        self._capture.forget()

    def _decoded(
        self, steps: Sequence[RowStep], chosen: Sequence[int], settings: Mapping[Row, Settings], adapted: bool
    ) -> Launched:
        rows = [step.row for step in steps]
        self._shared.use(attention=attention.NAME)
        size = bucket(len(steps), self._buckets)
        run, outputs = self._step(size, self._shared.adapters.variant.epoch if adapted else PLAIN)
        seats = [self._seats.take(step, settings.get(step.row, GREEDY), rows) for step in steps]
        for step, seat in zip(steps, seats, strict=True):
            self._seats.lead(seat, step.start)
        self._states.show([seat.number for seat in seats] + [self._seats.spare] * (size - len(seats)))
        run()
        for step, seat in zip(steps, seats, strict=True):
            self._seats.stepped(seat, step.row in settings)
        tokens = self._decode.tokens(len(steps))
        if len(chosen) < len(steps):
            tokens = tokens[self._capture.up(chosen)]
        return Launched(outputs[0][: len(steps)], [steps[at] for at in chosen], self._capture.down(tokens))

    def _step(self, size: int, epoch: int) -> tuple[Callable[[], None], list[Tensor]]:
        """A step of so many rows, with the adapters of an epoch or without any, and where its logits are."""
        key = size, epoch
        if key not in self._made:
            for old in [other for other in self._made if other[1] not in (PLAIN, epoch)]:
                del self._made[old]
            self._states.empty()
            outputs: list[Tensor] = []
            what = f"a decode step of {size} rows" + (" with adapters" if epoch != PLAIN else "")
            self._made[key] = self._capture.make(self._run(size, epoch, outputs), what), outputs
        return self._made[key]

    def _run(self, size: int, epoch: int, outputs: list[Tensor]) -> Callable[[], None]:
        run = self._decode.of(size, outputs)
        if epoch == PLAIN:
            return run

        def adapted() -> None:
            self._shared.adapters.use_slots(self._decode.adapters[:size])
            run()

        return adapted

    def _mixed(self, steps: Sequence[RowStep], chosen: Sequence[int], settings: Mapping[Row, Settings]) -> Launched:
        rows = [step.row for step in steps]
        fed = dict(self._unknown(steps))
        seats = []
        for step in (steps[at] for at in chosen):
            seats.append(self._seats.take(step, settings[step.row], rows))
            self._seats.place(seats[-1], step.start + step.count - 1)
        self._states.show([seat.number for seat in seats])
        self._shared.use(attention=attention.NAME, rows=steps)
        placed = self._packed.place(self._packed.prepare(steps))
        if fed:
            known = self._states.tokens(self._capture.up([seat.number for seat in fed.values()]))
            placed.ids[0].index_copy_(0, self._capture.up(list(fed)), known)
        logits = self._packed.forward(placed, self._shared.adapters.variant)
        tokens = self._states.choose_next(_last_of(logits, steps, chosen, self._capture.up), len(seats))
        for seat in seats:
            self._seats.stepped(seat, chosen=True)
        return Launched(logits, [steps[at] for at in chosen], self._capture.down(tokens))

    def _unknown(self, steps: Sequence[RowStep]) -> Iterator[tuple[int, Seat]]:
        """The tokens of a step that the device alone knows: their places in the step, and who holds them."""
        end = 0
        for step in steps:
            end += step.count
            if step.row.ahead:
                seat = self._seats.of(step.row)
                if seat is None or seat.token != step.start or step.count > 1:
                    raise ValueError(f"the token {step.start} of row {step.row.id} is neither known nor on the device")
                yield end - 1, seat


def _last_of(
    logits: Tensor, steps: Sequence[RowStep], chosen: Sequence[int], up: Callable[[Sequence[int]], Tensor]
) -> Tensor:
    """Of the logits [R, V] of a step the last of each of the rows that are chosen."""
    ends = list(accumulate(step.logits for step in steps))
    wanted = [ends[at] - 1 for at in chosen]
    return logits if wanted == list(range(logits.shape[0])) else logits.index_select(0, up(wanted))
