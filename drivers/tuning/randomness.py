"""Random numbers of a training run, apart from those of whoever shares its process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

import torch
from torch import Tensor


class Randomness:
    """The states of torch's default generators (CPU and, where given, one CUDA device), from a seed.

    Dropout draws from the default generators, which belong to the process: inside `with randomness:` they are in the
    state of the run, outside in that of the rest. `outside` lends them back for one call.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        generator = torch.Generator().manual_seed(seed)
        self._states = {"cpu": generator.get_state()}
        if self._device is not None:
            self._states["cuda"] = torch.Generator(self._device).manual_seed(seed).get_state()
        self._inside = False

    def __enter__(self) -> Randomness:
        self._swap()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._swap()

    def outside(self, call: Callable[[], None]) -> Callable[[], None]:
        """The same call with the generators as the rest of the process knows them."""

        def lent() -> None:
            self._swap()
            try:
                call()
            finally:
                self._swap()

        return lent

    def states(self) -> dict[str, Tensor]:
        """uint8 tensors by generator: what `restore` takes."""
        states = self._current() if self._inside else self._states
        return {name: state.clone() for name, state in states.items()}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        wanted = {name: states[name].clone() for name in self._states}
        if self._inside:
            self._put(wanted)
        else:
            self._states = wanted

    def _swap(self) -> None:
        others = self._current()
        self._put(self._states)
        self._states = others
        self._inside = not self._inside

    def _current(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._device is not None:
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    def _put(self, states: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self._device is not None:
            torch.cuda.set_rng_state(states["cuda"], self._device)
