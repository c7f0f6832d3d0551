"""Aims are compared with the best peer of their own case, and say when they are missed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from engine.aims import rows
from engine.cells import Cell
from engine.limits import Rates
from engine.process import known
from measure import Row

RATES = Rates(2e9, {1: 1.0})


def request(
    case: str, peer: str, value: float, decode: float = 1.0, limit: float | None = None, model: str = "0.5b"
) -> Cell:
    return Cell("requests", model, case, peer, "tokens/s", [value], {"decode": [decode]}, limit=limit)


def named(cells: Sequence[Cell], text: str) -> Row:
    found = [row for row in rows(cells, RATES) if text in row.name]
    assert len(found) == 1, [row.name for row in rows(cells, RATES)]
    return found[0]


@pytest.mark.parametrize(("value", "met"), [(110.0, True), (109.0, False)])
def test_concurrent_requests_must_be_a_tenth_ahead_of_the_best_of_their_column(value: float, met: bool) -> None:
    cells = [
        request("8", "ours", value), request("8", "vllm", 100.0), request("8", "generate", 50.0),
        request("16", "ours", 1.0), request("16", "openvino", 500.0),
    ]  # fmt: skip
    row = named(cells, "0.5b 8 requests, ours")
    assert (row.met, row.peer, row.note) == (met, 100.0, "best peer: vllm")


def test_one_request_must_be_ahead() -> None:
    cells = [request("1", "ours", 10.0), request("1", "llama.cpp", 10.1)]
    assert named(cells, "1 request, ours").met is False


def test_ours_is_no_peer_of_itself() -> None:
    cells = [request("8", "ours", 1.0), request("8", "ours-kernel", 99.0), request("8", "generate", 0.5)]
    assert named(cells, "8 requests, ours-kernel").note == "best peer: generate"


@pytest.mark.parametrize(("value", "met"), [(80.0, True), (79.0, False)])
def test_so_much_of_the_limit(value: float, met: bool) -> None:
    assert named([request("8", "ours", value, limit=100.0)], "of the limit").met is met


def test_floors() -> None:
    cells = [
        request("1", "ours", 9.0, decode=1.3), request("1", "generate", 8.0, decode=1.0),
        request("8", "ours", 20.0), request("8", "generate-batch", 17.0),
    ]  # fmt: skip
    read = named(cells, "C1")
    assert read.ours == pytest.approx(1.3 * 0.988, rel=1e-3) and read.met
    assert named(cells, "C2").met is True
    assert named(cells, "C7").met is False and named(cells, "C7").ratio == 2.5
    assert named(cells, "C8").met is False


def test_arrivals_are_judged_by_how_a_peer_batches() -> None:
    cells = [
        Cell("arrivals", "0.5b", "48", name, "tokens/s", [value])
        for name, value in {"ours": 100.0, "generate": 40.0, "openvino": 51.0, "vllm": 99.0}.items()
    ]
    padded, other = named(cells, "padded batches"), named(cells, "continuous batching")
    assert (padded.met, padded.note) == (False, "best peer: openvino")
    assert (other.met, other.note) == (True, "best peer: vllm")


def pair(suite: str, mine: tuple[str, float], theirs: tuple[str, float], less: bool) -> list[Cell]:
    return [Cell(suite, "m", "c", name, "s" if less else "t/s", [value], less=less) for name, value in (mine, theirs)]


def test_a_prefix_counts_by_how_much_sooner_the_first_token_is_there() -> None:
    assert named(pair("prefix", ("hit", 0.5), ("miss", 4.0), True), "prefix").met is True
    missed = named(pair("prefix", ("hit", 2.0), ("miss", 4.0), True), "prefix")
    assert missed.met is False and "BELOW" in missed.aim


def test_gaps_may_grow_by_so_much() -> None:
    assert named(pair("gap", ("arriving", 1.6), ("alone", 1.0), True), "gap").met is True
    assert named(pair("gap", ("arriving", 1.7), ("alone", 1.0), True), "gap").met is False


def test_an_encoder_above_its_floor_and_below_its_aim() -> None:
    row = named(pair("encoder", ("ours", 2.0), ("pipeline", 1.0), False), "encoder")
    assert row.met is False and "BELOW" not in row.aim


@pytest.mark.parametrize(("lost", "met", "below"), [(0.08, True, False), (0.1, False, False), (0.2, False, True)])
def test_overhead(lost: float, met: bool, below: bool) -> None:
    cell = Cell("overhead", "m", "8 rows", "step", "s", [0.5], {"lost": [lost]}, less=True)
    row = named([cell], "C10")
    assert (row.met, "BELOW" in row.aim) == (met, below) and row.ratio == pytest.approx(lost)


def test_no_figures_no_aims() -> None:
    assert rows([], RATES) == []


def test_weights_of_few_bits_have_peers_of_that_width_and_aims_of_their_own() -> None:
    cells = [
        request("1", "ours", 10.0, 2.5, 14.2, "0.5b-int8"), request("1", "generate", 99.0, 1.5, model="0.5b-int8"),
        request("1", "llama.cpp", 10.0, 2.4, model="0.5b-int8"),
        request("8", "ours", 14.9, model="0.5b-int8"), request("8", "openvino", 10.0, model="0.5b-int8"),
    ]  # fmt: skip
    assert named(cells, "8 requests").met is False
    assert [(row.note, row.met) for row in rows(cells, RATES)[:2]] == [("best peer: llama.cpp", True), ("", True)]
    assert named(cells, "C3").ratio == pytest.approx(2.5 / 1.5) and named(cells, "C5").met is True
    assert named(cells, "C1").ours == pytest.approx(2.5 * 0.494 * 8.125 / 8, rel=2e-3)


def test_a_baseline_stays_in_sixteen_bits_and_others_take_part_in_what_they_know() -> None:
    assert known("generate", 4) and known("llama.cpp", 4) and known("ours", 8) and known("vllm", 16)
    assert not known("vllm", 8)
