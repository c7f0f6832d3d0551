"""What the host process and its ranks say to each other, over a socket pair that nobody else has; see `coding`.

To a rank: Join, Meet; for each model Load, Go or Drop, Step after Step, Drop; End. From a rank: Joined, Read and then
Here (or Failed) for each Load, Beat all the time, and Broken at most once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import LlmosError

from ...contract import LoadSettings, ModelSource
from ..inputs import Prepared


@dataclass(frozen=True)
class Join:
    """Be one of so many ranks.

    `parts` names what makes the ops and the place of the device, as `module:function`; it is called with the device's
    `name`, the `threads` of this rank, the device's `config` and the rank.
    """

    rank: int
    ranks: int
    parts: str
    name: str
    threads: int
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Meet:
    """Meet the others by a file; wait for nobody longer than so many seconds, then or later."""

    meeting: str
    seconds: float


@dataclass(frozen=True)
class Load:
    """Load a share of a model and give it so many pages."""

    key: int
    source: ModelSource
    settings: LoadSettings
    pages: int


@dataclass(frozen=True)
class Go:
    """All have read their shares: run it together with the others."""

    key: int


@dataclass(frozen=True)
class Step:
    """Compute a step with the others."""

    key: int
    prepared: Prepared


@dataclass(frozen=True)
class Drop:
    """Forget a model, wherever its loading is; unknown ones are ignored."""

    key: int


@dataclass(frozen=True)
class End:
    """There is no more work."""


@dataclass(frozen=True)
class Joined:
    """It has all it needs, and can meet the others."""


@dataclass(frozen=True)
class Read:
    """It has its share of the weights."""

    key: int


@dataclass(frozen=True)
class Here:
    """It is ready for steps, with so many bytes of weights."""

    key: int
    bytes: int


@dataclass(frozen=True)
class Failed:
    """It could not load its share, and has forgotten it."""

    key: int
    error: LlmosError


@dataclass(frozen=True)
class Broken:
    """It ends, because of this."""

    cause: str


@dataclass(frozen=True)
class Beat:
    """It lives, in so many bytes."""

    process_bytes: int


Order = Join | Meet | Load | Go | Step | Drop | End
Answer = Joined | Read | Here | Failed
Said = Answer | Broken | Beat
