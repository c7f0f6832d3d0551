"""The plain capture: it runs what it is given, and numbers are here at once."""

from __future__ import annotations

import torch

from llmos.drivers.engine.capture import BUCKETS, Eager, Known


def test_a_step_is_repeated_by_running_it() -> None:
    counted = torch.zeros(1, dtype=torch.long)
    capture = Eager(torch.device("cpu"))
    step = capture.make(lambda: counted.add_(1) and None, "a step")
    assert counted.item() == 0, "nothing has run yet"
    for _ in range(3):
        step()
    assert capture.down(counted).wait() == [3] and capture.refused == {}
    assert tuple(capture.buckets) == BUCKETS == tuple(sorted(BUCKETS))


def test_numbers_are_those_of_the_moment() -> None:
    numbers = torch.tensor([1, 2])
    known = Known(numbers)
    numbers.zero_()
    assert known.wait() == [1, 2]


def test_numbers_go_up_as_integers() -> None:
    capture = Eager(torch.device("cpu"))
    capture.forget()
    assert capture.up([[1], [2]]).dtype == torch.long and capture.up([]).shape == (0,)
    assert capture.up([1], torch.int32).dtype == torch.int32
