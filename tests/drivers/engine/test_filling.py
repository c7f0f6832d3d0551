"""With how many tokens rows take part in a step, where they are of several classes of work."""

from __future__ import annotations

import math

from fake_runner import WORK, row

from llmos.drivers.engine.costs import StepCost, StepLoad
from llmos.drivers.engine.filling import Filling
from llmos.drivers.engine.places import Place, StepLimits
from llmos.drivers.engine.steps import RowStep

LIMITS = StepLimits(rows=64, tokens=576, chunk=512, turn=0.1)


def prompt(tokens: int, rank: int = 0) -> Place:
    return Place(row(tokens, rank=rank), 0, tokens)


def stream(rank: int = 0, drafts: int = 0) -> Place:
    """It has had many tokens."""
    made = Place(row(60, rank=rank), 0, 20, drafts=drafts)
    made.row.computed = 59
    made.row.drafts = [1] * drafts
    return made


def fill(
    *places: Place, turn: int | None = None, present: dict[int, int] | None = None, guests: float = math.inf
) -> dict[int, list[RowStep]]:
    """The parts by class. `guests`: seconds that a lower class should take."""
    cost = StepCost(WORK)
    there = present or {rank: sum(place.rank == rank for place in places) for rank in {place.rank for place in places}}
    steps = Filling(LIMITS, cost, lambda rank: guests if rank else math.inf).fill(places, there, turn)
    assert sum(step.count for step in steps) <= LIMITS.tokens
    counts = [step.count - step.drafts for step in steps]
    assert counts == sorted(counts, key=lambda count: count > 1), "rows that decode go first"
    return {rank: [step for step in steps if step.row.rank == rank] for rank in there}


def seconds(*steps: RowStep) -> float:
    return StepCost(WORK).seconds(StepLoad.of(steps))


def test_one_class_alone_has_the_whole_step() -> None:
    for rank in (0, 1, 2):
        made = fill(*(stream(rank) for _ in range(60)), prompt(2000, rank))[rank]
        assert len(made) == 61 and made[-1].count >= LIMITS.least


def test_drafts_of_the_highest_class_go_and_those_of_lower_ones_do_not() -> None:
    made = fill(stream(0, drafts=3), stream(1, drafts=3))
    assert [step.drafts for step in made[0]] == [3] and [step.drafts for step in made[1]] == [0]


def test_a_lower_class_stretches_a_step_only_so_far() -> None:
    made = fill(prompt(30), *(stream(1) for _ in range(50)), prompt(900, 1), prompt(900, 2))
    assert [step.count for step in made[0]] == [30]
    own, whole = seconds(*made[0]), seconds(*made[0], *made[1])
    assert 1.1 * own < whole <= LIMITS.beside * own, "its first token waits"
    made = fill(stream(), *(stream(1) for _ in range(50)), prompt(900, 1), prompt(900, 2))
    own, whole = seconds(*made[0]), seconds(*made[0], *made[1], *made[2])
    assert 1.3 * own < whole <= LIMITS.stretch * own
    made = fill(stream(), stream(1), prompt(900, 1), prompt(900, 2))
    assert seconds(*made[0], *made[1], *made[2]) <= LIMITS.stretch * own, "all lower classes together"


def test_prompts_that_go_whole_are_not_cut_for_higher_work() -> None:
    """Where a state is kept a prompt cannot go in parts."""
    whole = StepLimits(rows=64, tokens=2064, chunk=2000, least=2000)
    cost = StepCost(WORK)
    for turn, counts in ((None, [100]), (1, [100, 900])):
        steps = Filling(whole, cost, lambda rank: 0.01).fill([prompt(100), prompt(900, 1)], {0: 1, 1: 1}, turn)
        assert sorted(step.count for step in steps) == counts


def test_a_turn_goes_first_but_is_short_and_takes_no_room_from_streams() -> None:
    made = fill(prompt(900, 1), *(stream() for _ in range(60)), turn=1)
    assert seconds(*made[1]) <= LIMITS.turn and made[1][0].count >= LIMITS.least
    assert len(made[0]) == 60
    made = fill(stream(1), prompt(300), turn=1)
    assert len(made[1]) == 1 and made[0][0].count == 300


def test_a_class_whose_higher_one_is_there_without_a_part_is_brief() -> None:
    made = fill(prompt(900, 1), present={0: 1, 1: 1})
    assert seconds(*made[1]) <= LIMITS.turn
    assert fill(prompt(900, 1), present={1: 1})[1][0].count == LIMITS.chunk


def test_a_class_alone_is_as_brief_as_those_who_may_come() -> None:
    made = fill(prompt(900, 1), guests=0.2)[1]
    assert LIMITS.least < made[0].count and 0.1 < seconds(*made) <= 0.2
    made = fill(*(stream(1) for _ in range(3)), prompt(900, 1), guests=0.2)[1]
    assert len(made) == 4 and seconds(*made) <= 0.2
    assert len(fill(*(stream(1) for _ in range(60)), guests=0.01)[1]) == 60, "rows that decode go together"
    made = fill(*(stream(1) for _ in range(60)), prompt(900, 1), guests=0.01)[1]
    assert LIMITS.least < made[-1].count and seconds(*made) <= LIMITS.stretch * seconds(*made[:-1])
    assert fill(prompt(900, 1), guests=0.01)[1][0].count >= LIMITS.least
    assert fill(prompt(900, 0), guests=0.01)[0][0].count == LIMITS.chunk, "nobody comes before them"


def test_a_turn_is_no_longer_than_that_either() -> None:
    made = fill(prompt(900, 1), *(stream() for _ in range(9)), turn=1, guests=0.06)
    assert LIMITS.least <= made[1][0].count and seconds(*made[1]) <= 0.06
    assert len(made[0]) == 9
