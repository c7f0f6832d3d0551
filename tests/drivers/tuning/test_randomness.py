"""Random numbers of a run, apart from everybody else's."""

from __future__ import annotations

import torch

from llmos.drivers.tuning.randomness import Randomness

CPU = torch.device("cpu")


def draw() -> float:
    return float(torch.rand(()))


def test_inside_are_the_runs_numbers_and_outside_the_others() -> None:
    torch.manual_seed(5)
    theirs = [draw() for _ in range(3)]
    torch.manual_seed(6)
    ours = [draw() for _ in range(4)]
    torch.manual_seed(5)
    run = Randomness(6, CPU)
    seen = [draw()]
    with run:
        mine = [draw()]
        run.outside(lambda: seen.append(draw()))()
        mine.append(draw())
    seen.append(draw())
    with run:
        mine.append(draw())
        kept = run.states()
        mine.append(draw())
    assert (seen, mine) == (theirs, ours)
    other = Randomness(0, CPU)
    other.restore(kept)
    with other:
        assert draw() == ours[3]
        other.restore(kept)
        assert draw() == ours[3]
    assert torch.equal(other.states()["cpu"], run.states()["cpu"])


def test_an_error_gives_the_generators_back() -> None:
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    run = Randomness(1, CPU)
    try:
        with run:
            run.outside(lambda: 1 / 0)()  # type: ignore[arg-type,return-value]
    except ZeroDivisionError:
        pass
    assert torch.equal(torch.get_rng_state(), expected)
