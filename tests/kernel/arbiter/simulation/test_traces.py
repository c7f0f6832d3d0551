"""Traces come from a generator with a seed."""

from __future__ import annotations

from collections import Counter

import pytest

from llmos.kernel.arbiter.simulation.traces import DAY_S, GB, GENERATORS, trace


@pytest.mark.parametrize("name", GENERATORS)
def test_a_seed_makes_one_trace_of_mixed_models_that_do_not_fit(name: str) -> None:
    made = trace(name, 1, 300)
    assert made == trace(name, 1, 300) and made != trace(name, 2, 300)
    sizes = [model.bytes for model in made.models]
    assert len(sizes) == 100 and max(sizes) > 20 * GB and min(sizes) < GB
    assert max(sizes) < made.capacity < sum(sizes) / 2
    assert 0.1 < min(model.load_s / model.bytes for model in made.models) * 1e9 < 1
    assert max(model.load_s / model.bytes for model in made.models) * 1e9 > 2.5
    moments = [request.at for request in made.requests]
    assert len(moments) == 300 and moments == sorted(moments) and 10 < moments[-1] / 300 < 40


def models(name: str, length: int = 4000) -> list[int]:
    return [request.model for request in trace(name, 1, length).requests]


def test_zipf_the_most_wanted_gets_what_its_exponent_says() -> None:
    for name, share in (("zipf-0.8", 0.12), ("zipf-1.0", 0.19), ("zipf-1.2", 0.28)):
        ((_, most),) = Counter(models(name)).most_common(1)
        assert most / 4000 == pytest.approx(share, abs=0.03)


def test_bursts_repeat_what_was_asked_for_lately() -> None:
    def repeated(name: str) -> float:
        asked = models(name)
        return sum(model in asked[place - 5 : place] for place, model in enumerate(asked)) / len(asked)

    assert repeated("bursty") > 0.75 > 0.4 > repeated("zipf-1.0")


def test_a_scan_goes_round_between_the_others_and_a_loop_has_no_others() -> None:
    assert models("loop", 250) == [place % 100 for place in range(250)]
    assert min(Counter(models("scan")).values()) > 15 and len(Counter(models("scan"))) == 100


def test_nights_are_quiet_and_other_models_have_other_hours() -> None:
    requests = trace("diurnal", 1, 20_000).requests
    hours = Counter(int(request.at % DAY_S // 3600) for request in requests)
    assert max(hours.values()) > 3 * min(hours.values())
    by_half = [Counter(r.model for r in requests if (r.at % DAY_S < DAY_S / 2) == first) for first in (True, False)]
    assert any(by_half[0][model] > 5 * by_half[1][model] > 0 for model in range(100))


def test_what_is_wanted_shifts() -> None:
    asked = models("shift", 6000)
    firsts = {Counter(asked[start : start + 500]).most_common(1)[0][0] for start in range(0, 6000, 500)}
    assert len(firsts) > 2


def test_no_generator_of_that_name() -> None:
    with pytest.raises(KeyError):
        trace("nothing", 1, 10)
