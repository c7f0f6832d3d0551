"""One of two threads at a time: the work goes as far as it is let, and ends where it is closed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
import tuning_runs
from torch import nn

from llmos.drivers.tuning.slices import Slices, Stopped, Yield, mark


class Clock:
    """A second passes each time somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def counting(seen: list[int], count: int = 10) -> Callable[[Yield], None]:
    def work(yield_: Yield) -> None:
        for number in range(count):
            seen.append(number)
            yield_()

    return work


def test_each_slice_is_as_long_as_was_asked_for() -> None:
    seen: list[int] = []
    slices = Slices(counting(seen), Clock())
    assert seen == [] and not slices.ended, "nothing runs before it is let"
    slices.advance(2.5)  # until 3.5: the looks at 2, 3 and 4 come after one item each
    assert seen == [0, 1, 2]
    slices.advance(0.5)
    assert seen == [0, 1, 2, 3]
    slices.advance(100.0)
    assert seen == list(range(10)) and slices.ended and slices.error is None
    slices.advance(1.0)
    assert seen == list(range(10)), "what has ended does not run again"


def test_only_one_of_the_two_runs() -> None:
    turns: list[str] = []

    def work(yield_: Yield) -> None:
        for _ in range(50):
            turns.append("work")
            yield_()

    slices = Slices(work)
    while not slices.ended:
        slices.advance(0.0)
        turns.append("other")
    assert turns[:-1] == ["work", "other"] * 50


def test_what_it_raises_is_kept_for_the_one_who_asks() -> None:
    def work(yield_: Yield) -> None:
        yield_()
        raise ValueError("no")

    slices = Slices(work)
    slices.advance(0.0)
    assert slices.error is None and not slices.ended
    slices.advance(0.0)
    assert slices.ended and isinstance(slices.error, ValueError)


def test_closed_it_ends_at_its_yield_point_and_cleans_up() -> None:
    seen: list[str] = []

    def work(yield_: Yield) -> None:
        try:
            while True:
                with contextlib.suppress(Exception):  # as a program may write it
                    yield_()
        finally:
            seen.append("cleaned")

    slices = Slices(work)
    slices.advance(0.0)
    slices.close()
    assert seen == ["cleaned"] and slices.ended and slices.error is None
    slices.close()
    assert not issubclass(Stopped, Exception)


def test_closed_before_it_began_it_never_begins() -> None:
    seen: list[int] = []
    slices = Slices(counting(seen))
    slices.close()
    slices.advance(1.0)
    assert seen == [] and slices.ended


def test_gradients_are_each_threads_own() -> None:
    modes: list[bool] = []

    def work(yield_: Yield) -> None:
        for _ in range(2):
            modes.append(torch.is_grad_enabled() and not torch.is_inference_mode_enabled())
            yield_()

    slices = Slices(work)
    with torch.inference_mode():
        while not slices.ended:
            slices.advance(0.0)
    assert modes == [True, True]


def test_marks_between_layers_forward_and_backward() -> None:
    module = tuning_runs.lora(tuning_runs.llama(layers=3))
    seen: list[str] = []
    handles = mark(module, lambda: seen.append("here"))
    ids = torch.arange(3, 11)[None]
    loss = module(input_ids=ids, labels=ids, use_cache=False).loss
    forward = len(seen)
    layers = [part for part in module.modules() if isinstance(part, nn.ModuleList) for part in part]
    products = [part for part in module.modules() if isinstance(part, nn.Linear)]
    units = {*products, *layers, *(child for layer in layers for child in layer.children())}
    assert forward == len(units) + len(products) > 3 * (1 + 4 + 2 * 9), "after each, before each product as well"
    loss.backward()
    assert len(seen) - forward >= len(products), "between the products of the backward pass too"
    for handle in handles:
        handle.remove()
    count = len(seen)
    module(input_ids=ids, use_cache=False)
    assert len(seen) == count


def test_slices_do_not_change_what_is_computed() -> None:
    ids = torch.arange(3, 11)[None]

    def trained(sliced: bool) -> list[torch.Tensor]:
        module = tuning_runs.lora(tuning_runs.llama(), dropout=0.0)

        def work(yield_: Yield) -> None:
            if sliced:
                mark(module, yield_)
            module(input_ids=ids, labels=ids, use_cache=False).loss.backward()

        slices = Slices(work)
        while not slices.ended:
            slices.advance(0.0)
        assert slices.error is None
        return [p.grad for p in module.parameters() if p.grad is not None]

    plain, cut = trained(False), trained(True)
    assert len(plain) == len(cut) > 0 and all(torch.equal(a, b) for a, b in zip(plain, cut, strict=True))


def test_closed_in_the_middle_of_a_backward_pass() -> None:
    """What is raised at a yield point inside autograd arrives where the pass was asked for."""
    module = tuning_runs.lora(tuning_runs.llama())
    ids = torch.arange(3, 11)[None]
    where: list[str] = []

    def work(yield_: Yield) -> None:
        def counted() -> None:
            where.append("backward" if where else "forward")
            yield_()

        loss = module(input_ids=ids, labels=ids, use_cache=False).loss
        mark(module, counted)
        where.append("begun")
        module(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        where.append(f"whole {loss}")

    slices = Slices(work)
    while not where or len(where) < 14:
        slices.advance(0.0)
    slices.close()
    assert slices.error is None and not any(each.startswith("whole") for each in where)
