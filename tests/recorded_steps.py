"""A capture that repeats what a graph of CUDA would: the very operations of one run on the very tensors of that run.

Whatever a step asks of the host while it runs (a number of the data, a shape that depends on it) is fixed when it is
recorded, and a wrong answer afterwards shows it; reading a number of the data raises at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lanes import WARM_UPS, Lagging
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmos.drivers.ops.reference_attention import paged_attention

aten = torch.ops.aten
WAITS = (aten.item, aten._local_scalar_dense, aten.nonzero, aten.unique_dim, aten.equal)
"""Operations whose answer, or its shape, the host has to wait for."""


@dataclass(frozen=True)
class Call:
    """One operation of a recorded run and the tensors that it answered."""

    operation: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    answer: Any

    def again(self) -> None:
        """Compute it again, into the same tensors."""
        found = self.operation(*self.arguments, **self.options)
        for old, new in zip(tree_leaves(self.answer), tree_leaves(found), strict=True):
            if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                old.copy_(new)


class Recorder(TorchDispatchMode):
    """Notes every operation while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, operation: Any, kinds: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        if operation.overloadpacket in WAITS:
            raise RuntimeError(f"{operation} waits for the device")
        answer = operation(*arguments, **(options or {}))
        self.calls.append(Call(operation, arguments, options or {}, answer))
        return answer


class Recording(Lagging):
    """Repeats recorded operations; a step that cannot be recorded runs eagerly, and why is kept."""

    def __init__(self, buckets: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__(buckets)
        self.repeats = 0

    def make(self, run: Callable[[], None], what: str) -> Callable[[], None]:
        for _ in range(WARM_UPS):
            run()
        recorder = Recorder()
        try:
            with recorder:
                run()
        except RuntimeError as error:
            self.refused.setdefault(str(error), []).append(what)
            return run
        self.made.append(what)

        def repeat() -> None:
            self.repeats += 1
            for call in recorder.calls:
                call.again()

        return repeat


def attended(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, page_table: Tensor, cu_q: Tensor, lengths: Tensor, scale: float,
    window: int = 0, softcap: float = 0.0, sinks: Tensor | None = None, **scales: Tensor | None,
) -> Tensor:  # fmt: skip
    """`paged_attention`; of one token for each row without a look at its length, so that it can be recorded."""
    if q.shape[0] != lengths.shape[0]:
        return paged_attention(q, k_pages, v_pages, page_table, cu_q, lengths, scale, window, softcap, sinks, **scales)
    rows, heads = q.shape[0], k_pages.shape[1]
    pages = page_table.long()
    keys = k_pages[pages].transpose(1, 2).flatten(2, 3).float()
    values = v_pages[pages].transpose(1, 2).flatten(2, 3).float()
    queries = q.float().view(rows, heads, -1, q.shape[2])
    scores = queries @ keys.transpose(2, 3) * scale
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    at = torch.arange(keys.shape[2], device=q.device)
    seen = at < lengths[:, None]
    if window:
        seen &= at >= lengths[:, None] - window
    scores = scores.masked_fill(~seen[:, None, None], -torch.inf)
    if sinks is not None:
        column = sinks.float().view(1, heads, -1, 1).expand(rows, heads, scores.shape[2], 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., : keys.shape[2]].nan_to_num(0.0)
    values = values.masked_fill(~seen[:, None, :, None], 0.0)
    return (weights @ values).flatten(1, 2).to(q.dtype)
