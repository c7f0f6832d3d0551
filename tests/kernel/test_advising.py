"""The advice of a kernel: its facts against their sources, what is planned for it, and that it is told once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import MODEL_BYTES, Inside, Program, inside, loaded, rows

from llmos.kernel.advice.advisor import QUANT, Planned, Wish
from llmos.kernel.advising import queues
from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import BadHandle, Busy, NotSupported, OverQuota
from llmos.syscalls.events import MetricEvent, Spent
from llmos.syscalls.types import Number, Reason
from llmos.syscalls.wire import error_frames


@pytest.fixture
def kernel(folder: Path) -> Iterator[Inside]:
    with inside(folder, drivers="null0,models") as made:
        yield made


def _model(kernel: Inside) -> Any:
    (model,) = kernel.kernel.models.by_id.values()
    return model


def _evict(kernel: Inside, times: int = 2) -> None:
    model = _model(kernel)
    for _ in range(times):
        kernel.now += 1
        kernel.kernel.decide([model.id, "null0"], Reason(code="model.evicted", text="it makes room"))
    loads = kernel.kernel.instruments.model_load.labels(model.name)
    loads.sum, loads.counts[0] = 2.0, 1
    assert sum(loads.counts) == 1


def _codes(kernel: Inside) -> list[str]:
    return [each.code for each in kernel.kernel.advisor.advice()]


def test_the_facts_of_a_model_are_those_that_stat_shows(kernel: Inside, folder: Path) -> None:
    program = kernel.program()
    handle = program.load("tiny", pin=True, max_context=32, kv_dtype="fp8", rung="F")
    model = _model(kernel)
    kernel.null.event(MetricEvent(about=model.host_id, values={"cache_usage": 0.25}))
    _evict(kernel, 3)
    (facts,) = kernel.kernel.advisor.facts().models
    info = program.call("stat_object", handle=handle)
    fields = info["fields"]
    shown = {name: getattr(facts, name) for name in ("id", "name", "bytes")}
    assert shown == {name: info[name] for name in shown}
    for mine, theirs in (("path", "path"), ("device", "device"), ("pinned", "pinned"), ("requests", "requests"),
                         ("waiting", "waiting"), ("slots", "slots"), ("rung", "rung")):  # fmt: skip
        assert getattr(facts, mine) == fields[theirs]
    assert (facts.weights, facts.kv, facts.kv_usage, facts.evicted, facts.reload_s) == (MODEL_BYTES, 0, 0.25, 3, 2.0)
    assert (facts.max_context, facts.context, facts.kv_dtype, facts.asked_rung) == (32, 64, "fp8", "F")
    assert not facts.quantized and facts.base == ""
    kernel.now += 901_000_000_000
    assert kernel.kernel.advisor.facts().models[0].evicted == 0


@pytest.mark.parametrize(
    ("source", "path", "named"),
    [
        ("/srv/foxes", "/mnt/foxes/red@1", "file:/srv/foxes/red"),
        ("/srv/fox/", "/mnt/foxes/", "file:/srv/fox"),
        ("/srv:/opt", "/mnt/foxes/red", "/mnt/foxes/red"),
        ("elsewhere", "/mnt/foxes/red", "/mnt/foxes/red"),
    ],
)
def test_a_folder_that_one_session_has_mounted_is_named_as_every_session_can(
    kernel: Inside, source: str, path: str, named: str
) -> None:
    program = kernel.program()
    program.call("mount_fs", system=program.system, path="/mnt/foxes", filesystem="models", source=source)
    program.call("load_model", path=path)
    (facts,) = kernel.kernel.advisor.facts().models
    assert facts.path == named


def test_a_model_without_weights_on_a_device_says_nothing_of_them(kernel: Inside) -> None:
    program = kernel.program()
    program.load("tiny")
    model = _model(kernel)
    model.loaded = None
    (facts,) = kernel.kernel.advisor.facts().models
    assert (facts.weights, facts.slots, facts.rung) == (0, 0, "")
    model.loaded = loaded()


def test_the_facts_of_devices_come_from_the_ledger_and_what_hosts_spent(kernel: Inside) -> None:
    kernel.program().load("tiny")
    kernel.kernel.advisor.look(kernel.now)
    for _ in range(3):
        kernel.null.event(Spent(work_class="interactive", tenant="t", device_ns=2_000_000_000, tokens=1, bytes=0))
    for needed in (90, 70):
        numbers: dict[str, Number] = {"needed": needed, "free": 10, "evictable": 20}
        kernel.kernel.decide(["r-1", "null0"], Reason(code="memory.refused", text=f"no {needed}", numbers=numbers))
    kernel.now += 10_000_000_000
    kernel.kernel.advisor.look(kernel.now)
    (facts,) = kernel.kernel.advisor.facts().devices
    ledger = kernel.kernel.ledger
    assert (facts.name, facts.total, facts.free) == ("null0", ledger.total("null0"), ledger.free("null0"))
    assert (facts.busy, facts.refused, facts.short, facts.rank) == (0.6, 2, 40, 2)
    kernel.null.dies()
    assert kernel.kernel.advisor.facts().devices == []
    kernel.null.starts()


def test_the_facts_of_owners_are_counted_from_how_requests_ended(kernel: Inside) -> None:
    program = kernel.program()
    model = program.load("tiny")
    session = kernel.session(program)
    number = program.start(model, "x")
    kernel.null.release("submit")
    program.wait(number)
    request = program.send("watch_events", system=program.system, kinds=["lease"])
    refusal = OverQuota("used up", what="tokens_per_minute", limit=7, retry_after_ms=1)
    kernel.kernel.interrupt(session.requests[request], refusal)
    kernel.settle()
    assert isinstance(program.error("load_model", path="/models/none", device=999), BadHandle)
    busy = Busy("full")
    kernel.kernel.decisions.refused("infer", ["r-1", session.owner], busy, error_frames(0, busy)[1], 0.0)
    (facts,) = kernel.kernel.advisor.facts().owners
    assert (facts.owner, facts.what, facts.limit, facts.refused) == (session.owner, "tokens_per_minute", 7, 1)
    assert facts.answered == 1, "loads are no inferences"


def test_what_it_would_take_is_planned_by_the_driver_and_told_once(kernel: Inside) -> None:
    program = kernel.program()
    program.load("tiny")
    _evict(kernel)
    kernel.kernel.residency.pin(_model(kernel).id, True, kernel.now)
    kernel.null.answers["plan"] = PlanRows(rows=rows(MODEL_BYTES // 2))
    kernel.advance(10)
    wish = Wish(_model(kernel).id, (("quant", QUANT),))
    assert kernel.kernel.advisor._plans[wish] == Planned(MODEL_BYTES // 2, 0)
    assert kernel.null.last("plan")["options"]["quant"]["width"] == 8
    (advice,) = json.loads(program.read("/sys/advice"))
    assert advice["gain"] == {"weights_bytes": -MODEL_BYTES // 2} and advice["code"] == "quantize"
    kernel.advance(10)
    kernel.advance(10)
    told = [r for r in kernel.kernel.decisions.of(wish.model) if r.code == "advice.given"]
    assert [(r.text, r.rule, r.change) for r in told] == [(advice["text"], "quantize", advice["action"])]
    assert told[0].numbers == {**advice["evidence"], "gain_weights_bytes": -MODEL_BYTES // 2}
    assert kernel.null.names().count("plan") == 2, "at its load and for the advice"


def test_narrower_keys_and_values_are_planned_when_requests_wait_for_pages(kernel: Inside) -> None:
    program = kernel.program()
    kernel.null.answers["load"] = loaded(rows=[*rows(), *rows(1000, "kv")])
    model = program.load("tiny")
    kernel.null.event(MetricEvent(about=_model(kernel).host_id, values={"cache_usage": 0.95}))
    numbers = [program.start(model, "x") for _ in range(3)]
    kernel.null.answers["plan"] = PlanRows(rows=[*rows(), *rows(500, "kv")])
    kernel.advance(10)
    assert kernel.null.last("plan")["options"]["kv_dtype"] == "fp8"
    (advice,) = kernel.kernel.advisor.advice()
    assert advice.code == "more_kv" and advice.gain == {"kv_bytes": -500}
    assert advice.evidence == {"kv_usage": 0.95, "waiting": 1, "kv_bytes": 1000}
    for _ in numbers:
        kernel.null.release("submit")
    for number in numbers:
        program.wait(number)


def test_what_cannot_be_planned_is_not_asked_for_again_and_leaves_with_its_model(kernel: Inside) -> None:
    program = kernel.program()
    handle = program.load("tiny")
    _evict(kernel)
    kernel.null.answers["plan"] = NotSupported("no", why="it has one width")
    kernel.advance(10)
    kernel.advance(10)
    assert kernel.null.names().count("plan") == 2 and "quantize" not in _codes(kernel)
    program.call("unload_model", model=handle)
    kernel.advance(10)
    assert kernel.kernel.advisor._plans == {}


def test_ten_seconds_pass_between_looks(kernel: Inside) -> None:
    kernel.advance(10)
    before = kernel.kernel.advisor._next
    kernel.advance(1)
    assert kernel.kernel.advisor._next == before


def test_queues_are_by_model_class_and_owner(kernel: Inside) -> None:
    program: Program = kernel.program()
    model = program.load("tiny")
    numbers = [program.start(model, "x") for _ in range(2)]
    kernel.now += 1_000_000_000
    numbers += [program.start(model, "x", call_work_class="batch") for _ in range(2)]
    numbers.append(program.start(model, "x"))
    kernel.now += 2_000_000_000
    found = queues(kernel.kernel)
    owner = kernel.session(program).owner
    mine = {"model": _model(kernel).id, "name": "tiny", "owner": owner}
    assert found == [
        {**mine, "work_class": "batch", "waiting": 2, "running": 0, "oldest_s": 2.0},
        {**mine, "work_class": "interactive", "waiting": 1, "running": 2, "oldest_s": 2.0},
    ]
    assert json.loads(program.read("/sys/queues")) == found
    for _ in numbers:
        kernel.null.release("submit")
    for number in numbers:
        program.wait(number)
    assert queues(kernel.kernel) == []


# ---- advice that is followed


@pytest.fixture
def crowded(folder: Path) -> Iterator[Inside]:
    """A device for two of three models, from which the least recently used leaves; a load or wake takes two seconds."""
    with inside(folder, '[memory]\npolicy = "lru"\n', drivers="null0,models") as kernel:
        size = 400 << 10

        def slowly(_body: Any) -> Any:
            kernel.now += 2_000_000_000
            return loaded(size)

        kernel.null.answers |= {"plan": PlanRows(rows=rows(size)), "load": slowly, "wake": slowly}
        kernel.null.holds.clear()
        yield kernel


def _rounds(kernel: Inside, program: Program, models: list[int], count: int) -> int:
    """Each model is asked once in each round; the nanoseconds that took."""
    began = kernel.now
    for _ in range(count):
        for model in [models[0], *models]:
            kernel.advance(1)
            number = program.start(model, "x")
            for _ in range(30):  # one that was just woken may serve for a while before it leaves
                if program.done(number):
                    break
                kernel.advance(1)
            program.wait(number)
    return kernel.now - began


def test_a_pin_that_is_advised_saves_the_evictions_and_the_seconds_it_claims(crowded: Inside) -> None:
    program = crowded.program()
    models = [program.load(name) for name in ("fox", "owl", "elk")]
    crowded.now += 1000 * 10**9  # what the loads themselves evicted lies before the window
    before = _rounds(crowded, program, models, 5)
    advice = next(each for each in crowded.kernel.advisor.advice() if each.code == "pin")
    assert advice.name == "fox" and advice.evidence["evictions"] == 5 and advice.evidence["reload_s"] == 2.0
    program.control(models[0], "pin")
    crowded.now += 1000 * 10**9
    after = _rounds(crowded, program, models, 5)
    evicted = crowded.kernel.advisor.facts().models[0].evicted
    assert evicted - 5 == advice.gain["evictions"]
    assert (after - before) / 1e9 <= advice.gain["seconds"], "as many seconds as it claimed, or more"


def test_a_quota_that_is_advised_refuses_nobody(folder: Path) -> None:
    def settings(limit: int) -> str:
        return f"[policy.uid.{os.getuid()}]\nlimits = {{ tokens_per_minute = {limit} }}\n"

    def refused(kernel: Inside) -> int:
        """Forty inferences of five tokens each, within a moment."""
        program = kernel.program()
        model = program.load("tiny")
        kernel.null.holds.clear()
        numbers = [program.send("infer", model=model, input={"type": "text", "text": "x"}) for _ in range(40)]
        return sum(program.wait(number).error is not None for number in numbers)

    with inside(folder, settings(100), drivers="null0,models") as kernel:
        before = refused(kernel)
        kernel.advance(1)
        (advice,) = kernel.kernel.advisor.advice()
    assert advice.code == "raise_quota" and before == 20 and advice.gain["refused"] == -before
    assert f"tokens_per_minute = {advice.gain['limit']}" in advice.action
    with inside(folder, settings(int(advice.gain["limit"])), drivers="null0,models") as kernel:
        assert refused(kernel) == before + int(advice.gain["refused"]) == 0
