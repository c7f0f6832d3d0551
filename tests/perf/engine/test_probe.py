"""The rates that limits are made of."""

from __future__ import annotations

import pytest
from engine.probe import Probe


@pytest.fixture(scope="module")
def probe() -> Probe:
    made = Probe(1, (4, 64, 64), (1, 2, 4))
    made.measure()
    return made


def test_every_way_is_measured_in_each_round(probe: Probe) -> None:
    before = {name: len(samples) for name, samples in probe.samples.items()}
    probe.measure()
    assert {name: len(samples) for name, samples in probe.samples.items()} == {n: k + 1 for n, k in before.items()}
    assert {name.split()[0] for name in before} == {"read", "product"}
    assert all(sample > 0 for samples in probe.samples.values() for sample in samples)


def test_of_each_thing_the_best_way_counts_by_its_median() -> None:
    probe = Probe(1, (2, 32, 32), (1, 2, 4))
    ways = sorted({name.split()[1] for name in _product_names(probe)})
    for way in ways:
        for rows in (1, 2, 4):
            probe.samples[f"product {way} {rows}"] = [1.0, 2.0, 90.0]
    probe.samples[f"product {ways[0]} 1"] = [5.0, 7.0, 6.0]
    probe.samples[f"product {ways[0]} 4"] = [8.0, 9.0, 10.0]
    probe.samples["read sum"], probe.samples["read linear"] = [3.0, 1.0, 2.0], [4.0, 1.0, 1.0]
    rates = probe.rates
    assert rates.bandwidth == 2.0
    assert rates.products == {1: 6.0, 2: 6.0, 4: 9.0}


def _product_names(probe: Probe) -> list[str]:
    probe.measure()
    return [name for name in probe.samples if name.startswith("product")]
