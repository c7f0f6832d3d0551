"""Fair shares of device time."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.arbiter.fairness import Account, Fairness, Turns

RANK = (0, 0)
SECOND = 1_000_000_000


Weights = dict[str, tuple[int, int]]


def serve(costs: dict[str, list[int]], weights: Weights, steps: int, guess: int = 0) -> dict[str, int]:
    """Microseconds that each of these greedy owners got, one request at a time, each charged a guess at first."""
    fairness, turns = Fairness(), Turns[str]()
    accounts: dict[str, Account] = {}
    got = dict.fromkeys(costs, 0)
    for owner in costs:
        for number in range(2):
            accounts[owner] = fairness.enter(RANK, owner, weights.get(owner, (100, 100)))
            turns.add(accounts[owner], f"{owner}.{number}", owner)
    for step in range(steps):
        owner = turns.first()
        account = accounts[owner]
        turns.remove(account, next(iter(turns._items[account])))
        turns.took(account)
        account.started()
        account.charge(guess * 1000)
        cost = costs[owner][step % len(costs[owner])]
        got[owner] += cost
        account.charge((cost - guess) * 1000)
        fairness.leave(RANK, account)
        accounts[owner] = fairness.enter(RANK, owner, weights.get(owner, (100, 100)))
        turns.add(accounts[owner], f"{owner}.{step + 2}", owner)
    return got


def jain(shares: list[float]) -> float:
    """Jain's index of fairness: 1 when all are equal."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def test_time_is_shared_and_not_the_number_of_requests() -> None:
    got = serve({"1000": [30], "1001": [10]}, {}, 4000)
    assert jain([float(ns) for ns in got.values()]) > 0.999


def test_weights_of_users_and_of_tenants() -> None:
    got = serve({"1": [7], "2/a": [5], "2/b": [3]}, {"1": (50, 100), "2/a": (100, 300), "2/b": (100, 100)}, 6000)
    total = sum(got.values())
    assert abs(got["1"] / total - 1 / 3) < 0.01
    assert abs(got["2/a"] / total - 1 / 2) < 0.01 and abs(got["2/b"] / total - 1 / 6) < 0.01


def test_many_tenants_are_one_user() -> None:
    """Naming a hundred tenants does not make a user's share larger."""
    got = serve({"1": [5], **{f"2/{number}": [5] for number in range(100)}}, {}, 5000)
    assert abs(got["1"] / sum(got.values()) - 0.5) < 0.01


@given(
    st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=7), min_size=2, max_size=5),
    st.lists(st.sampled_from([25, 100, 400]), min_size=5, max_size=5),
    st.sampled_from([0, 10, 3000]),
)
def test_nobody_is_behind_by_more_than_one_request_of_each(
    costs: list[list[int]], weights: list[int], guess: int
) -> None:
    """The bound of start-time fair queueing, for any costs and any guess: the normalized service of two owners that
    always want more differs by at most the largest request of each."""
    named = {str(number): each for number, each in enumerate(costs)}
    weighted = {str(number): (weights[number], 100) for number in range(len(costs))}
    got = serve(named, weighted, 400, guess)
    normal = {name: got[name] * 100 / weighted[name][0] for name in named}
    for one in named:
        for other in named:
            bound = sum(max(named[name]) * 100 / weighted[name][0] for name in (one, other))
            assert normal[one] - normal[other] <= bound + 1


def test_who_comes_late_is_neither_paid_nor_punished() -> None:
    fairness, turns = Fairness(), Turns[str]()
    busy = fairness.enter(RANK, "1")
    fairness.enter(RANK, "1")
    for _ in range(10):
        busy.started()
        busy.charge(SECOND)
    late = fairness.enter(RANK, "2")
    turns.add(busy, "a", "a")
    turns.add(late, "b", "b")
    assert turns.first() == "b" and late.ahead_ns == 0 and busy.ahead_ns == SECOND
    late.started()
    late.charge(2 * SECOND)
    assert turns.first() == "a"
    turns.remove(busy, "a")
    turns.took(busy)
    assert turns.first() == "b"
    other = fairness.enter(RANK, "2/tenant")
    turns.add(other, "c", "c")
    turns.remove(late, "b")
    turns.took(late)
    assert turns.first() == "c"


def test_who_pauses_saves_nothing_up() -> None:
    """He comes back at the present, not with the time that others were given meanwhile."""
    fairness = Fairness()
    busy = fairness.enter(RANK, "1")
    pausing = fairness.enter(RANK, "2")
    pausing.charge(SECOND)
    fairness.leave(RANK, pausing)
    for _ in range(10):
        busy.started()
        busy.charge(SECOND)
    back = fairness.enter(RANK, "2")
    assert back.above is not None and busy.above is not None
    assert back.above.tag == 9 * SECOND == busy.above.tag - SECOND and back.ahead_ns == 0


def test_what_is_owed_outlives_a_pause_as_long_as_others_are_active() -> None:
    fairness = Fairness()
    fairness.enter(RANK, "1")
    greedy = fairness.enter(RANK, "2/t")
    greedy.started()
    greedy.charge(5 * SECOND)
    fairness.leave(RANK, greedy)
    assert fairness.enter(RANK, "2/t").ahead_ns == 5 * SECOND


def test_all_is_forgiven_when_nobody_is_active() -> None:
    fairness = Fairness()
    only = fairness.enter(RANK, "1")
    only.started()
    only.charge(5 * SECOND)
    fairness.leave(RANK, only)
    assert len(fairness) == 0 and fairness.enter(RANK, "1").ahead_ns == 0


def test_ranks_have_accounts_of_their_own() -> None:
    fairness = Fairness()
    fairness.enter(RANK, "1").charge(SECOND)
    assert fairness.enter((1, 0), "1").ahead_ns == 0


def test_idle_accounts_that_owe_nothing_are_forgotten() -> None:
    fairness = Fairness()
    fairness.enter(RANK, "keeper")
    debtor = fairness.enter(RANK, "debtor")
    debtor.charge(SECOND)
    fairness.leave(RANK, debtor)
    for number in range(10_000):
        fairness.leave(RANK, fairness.enter(RANK, f"{number}/t"))
    assert len(fairness) < 200 and fairness.enter(RANK, "debtor").ahead_ns == SECOND


def test_the_line_stays_small_whatever_moves_in_it() -> None:
    fairness, turns = Fairness(), Turns[int]()
    first, second = fairness.enter(RANK, "1"), fairness.enter(RANK, "2")
    turns.add(first, "a", 1)
    turns.add(second, "b", 2)
    for _ in range(1000):
        first.charge(5)
        first.charge(-5)
    assert len(turns._users._heap) < 40 and len(turns._users) == turns.size == 2


def test_how_many_have_their_turn_before_one_more_of_a_user() -> None:
    fairness, turns = Fairness(), Turns[int]()
    for number in range(10):
        turns.add(fairness.enter(RANK, "flood"), f"f{number}", number)
    turns.add(fairness.enter(RANK, "other/t"), "o", 0)
    assert [turns.ahead_of_next(user) for user in ("flood", "other", "new")] == [11, 3, 2]
    turns.remove(fairness.enter(RANK, "other/t"), "o")
    assert [turns.ahead_of_next(user) for user in ("flood", "other", "new")] == [10, 1, 1]


def test_the_line_is_as_a_sorted_list_would_be() -> None:
    """Against the plain way: the least tag first, among equals who moved there first."""
    rng = random.Random(7)
    fairness, turns = Fairness(), Turns[str]()
    accounts = {name: fairness.enter(RANK, name) for name in "abcdefgh"}
    waiting: dict[str, Account] = {}
    for step in range(3000):
        name = rng.choice("abcdefgh")
        choice = rng.random()
        if choice < 0.3 and name not in waiting:
            turns.add(accounts[name], name, name)
            waiting[name] = accounts[name]
        elif choice < 0.4 and name in waiting:
            turns.remove(waiting.pop(name), name)
        elif choice < 0.8:
            accounts[name].charge(rng.randrange(1, 1_000_000))
        else:
            accounts[name].charge(-rng.randrange(1, 1_000_000))
        assert bool(turns) == bool(waiting) and len(turns._users) == turns.size == len(waiting)
        if waiting:
            least = min(account.above.tag for account in waiting.values() if account.above)
            first = accounts[turns.first()].above
            assert first is not None and first.tag == least, step
