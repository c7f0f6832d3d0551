"""Jobs reach an engine when they should, and every token gets its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from peers.peer import BATCH, Batched, Continuous, Job, Step, generate


class Steps(Continuous):
    """An engine that makes one token for each job in every step, and remembers what it ran together."""

    def __init__(self) -> None:
        self.running: dict[int, int] = {}
        self.together: list[list[int]] = []
        self.cancelled: list[int] = []

    def submit(self, number: int, job: Job) -> None:
        self.running[number] = job.new_tokens

    def step(self) -> Step:
        self.together.append(sorted(self.running))
        told = [(number, [100 + number]) for number in self.running]
        self.running = {number: left - 1 for number, left in self.running.items() if left > 1}
        return told

    def cancel(self, numbers: Sequence[int]) -> None:
        self.cancelled.extend(numbers)
        for number in numbers:
            del self.running[number]


class Batches(Batched):
    """An engine that remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def batch(self, prompts: Sequence[Sequence[int]], new_tokens: int, emit: Callable[[Sequence[int]], None]) -> None:
        self.batches.append((len(prompts), new_tokens))
        for step in range(new_tokens):
            emit([10 * prompt[0] + step for prompt in prompts])


@pytest.mark.parametrize("engine", [Steps, Batches])
def test_every_job_gets_its_tokens_in_order_of_time(engine: type[Steps] | type[Batches]) -> None:
    answers = engine().run([Job([1], 3), Job([2], 1)])
    assert [len(answer.tokens) for answer in answers] == [3, 1]
    for answer in answers:
        assert answer.times == sorted(answer.times) and 0.0 <= answer.submitted <= answer.times[0]


def test_prompts_at_once() -> None:
    engine = Steps()
    assert [answer.tokens for answer in generate(engine, [[1], [2]], 2)] == [[100, 100], [101, 101]]
    assert engine.together == [[0, 1], [0, 1]]


def test_a_late_job_joins_those_under_way() -> None:
    engine = Steps()
    answers = engine.run([Job([1], 4), Job([2], 2, after=2)])
    assert engine.together == [[0], [0], [0, 1], [0, 1]]
    assert answers[1].submitted >= answers[0].times[1]


def test_a_run_ends_with_its_last_job() -> None:
    engine = Steps()
    answers = engine.run([Job([1], 50), Job([2], 2, after=1)], last=1)
    assert (len(answers[0].tokens), len(answers[1].tokens)) == (3, 2)
    assert engine.cancelled == [0] and not engine.running


def test_a_job_is_not_served_before_it_arrives() -> None:
    for engine in (Steps(), Batches()):
        early, late = engine.run([Job([1], 1), Job([2], 1, at=0.02)])
        assert late.times[0] >= 0.02 and len(early.tokens) == 1


def test_a_padded_batch_takes_all_that_wait_and_lasts_as_long_as_its_longest() -> None:
    engine = Batches()
    jobs = [Job([number], 1 + number % 3) for number in range(BATCH + 5)]
    answers = engine.run(jobs)
    assert engine.batches == [(BATCH, 3), (5, 3)]
    assert [len(answer.tokens) for answer in answers] == [job.new_tokens for job in jobs]
    assert answers[4].tokens == [40, 41]


def test_time_spent_waiting_for_a_batch_counts() -> None:
    answers = Batches().run([Job([1], 1, at=0.0), Job([2], 1, at=0.01)])
    assert answers[1].submitted == 0.01
