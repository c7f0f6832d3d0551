"""Places where this process has a share of each model: that of the host process, and that of another rank."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...contract import LoadSettings, ModelSource, ProgressSink
from ..capture import Capture
from ..inputs import Prepared
from ..place import Anchor, Place, Report, Rested, Shares
from .messages import Drop, Go, Here, Load, Read, Step
from .ranks import COLLECTIVE_S, LOAD_S, Ranks
from .split import divide
from .team import Planned, RankLost, Team


class Divided:
    """A place of which each rank has one of its own. Nothing rests on it: what sleeps is loaded again."""

    def __init__(self, inner: Place) -> None:
        self._inner = inner

    @property
    def device(self) -> torch.device:
        return self._inner.device

    @property
    def rows(self) -> int:
        return self._inner.rows

    def free_bytes(self) -> int:
        return self._inner.free_bytes()

    def dtype(self, stored: torch.dtype) -> torch.dtype:
        return self._inner.dtype(stored)

    def activations(self, kind: str) -> str:
        return self._inner.activations(kind)

    def pages(self, context: int, page_bytes: int, taken: int) -> int:
        return self._inner.pages(context, page_bytes, taken)

    def capture(self, what: str) -> Capture | None:
        """Each step is told to all ranks."""
        return None

    def move(self, module: Any, report: Report) -> None:
        self._inner.move(module, report)

    def anchor(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Anchor:
        return Anchor()

    def rest(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Rested | None:
        return None

    def collect(self) -> None:
        self._inner.collect()

    def _keep_share(self, module: Any, path: str, team: Team) -> None:
        """What stays on the processor stays as copies, or all of it would stay; what moves is copied by that."""
        divide(module, team, path)
        if self.device.type == "cpu":
            for part in module.parameters():
                if part.untyped_storage().nbytes() > part.nbytes:
                    part.data = part.clone(memory_format=torch.contiguous_format)


class RankPlace(Divided):
    """That of another rank, while it loads a model; `together` waits for all ranks to have read."""

    def __init__(self, inner: Place, team: Team, together: Callable[[], None]) -> None:
        super().__init__(inner)
        self._team, self._together = team, together

    def begin(self, source: ModelSource, settings: LoadSettings, pages: int, progress: ProgressSink) -> None:
        """The host process has begun."""

    def divide(self, module: Any, path: str) -> int:
        self._keep_share(module, path, self._team)
        self._together()
        return self._team.ranks


class HostPlace(Divided):
    """That of rank 0, which tells the others."""

    def __init__(self, inner: Place, ranks: Ranks) -> None:
        super().__init__(inner)
        self._ranks = ranks
        self._keys = itertools.count()
        self._loading: HostShares | None = None

    def free_bytes(self) -> int:
        """Of all GPUs, taken for alike; ranks on one machine's processor share its memory."""
        return self._inner.free_bytes() * (1 if self.device.type == "cpu" else self._ranks.crew.ranks)

    def begin(self, source: ModelSource, settings: LoadSettings, pages: int, progress: ProgressSink) -> Shares:
        """Let all begin to load their shares of a model. Raises RankLost."""
        self._ranks.meet(progress)
        key = next(self._keys)
        self._ranks.tell(Load(key, source, settings, pages))
        self._loading = HostShares(self._ranks, key, progress)
        return self._loading

    def divide(self, module: Any, path: str) -> int:
        """Raises NotSupported, and what another rank could not load with."""
        ranks = self._ranks.crew.ranks
        if next(module.parameters()).is_meta:
            divide(module, Planned(ranks), path)
        else:
            assert self._ranks.team is not None and self._loading is not None
            self._keep_share(module, path, self._ranks.team)
            self._loading.together()
        return ranks


class HostShares:
    """The shares that the others have of one model."""

    def __init__(self, ranks: Ranks, key: int, progress: ProgressSink) -> None:
        self._ranks, self._key, self._progress = ranks, key, progress

    @property
    def ranks(self) -> int:
        return self._ranks.crew.ranks

    def together(self) -> None:
        """Wait until all have read, and let them go on."""
        self._ranks.expect(Read, LOAD_S, self._progress, self._key)
        self._ranks.tell(Go(self._key))

    def settle(self) -> int:
        """Wait until all are ready for steps; the bytes of weights that the others hold."""
        found = self._ranks.expect(Here, COLLECTIVE_S, self._progress, self._key)
        return sum(each.bytes for each in found)

    @contextlib.contextmanager
    def computing(self, prepared: Prepared) -> Iterator[None]:
        """A step that the others compute, too. An error in it leaves the ranks out of step: raises RankLost."""
        self._ranks.tell(Step(self._key, prepared))
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            raise RankLost(f"rank 0 cannot finish a step that the others compute: {error}") from error

    def drop(self) -> None:
        """Let the others forget the model."""
        self._ranks.tell(Drop(self._key))
