"""One request: its single answer, its stream and the credit of its reader."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import Inside, Program

from llmos.kernel.requests import Request, drop_events, merge_chunks
from llmos.syscalls.errors import BadArgument, NotFound, TimedOut, TooLarge
from llmos.syscalls.types import Chunk, Event, TokenLogprob


@pytest.fixture
def request_(kernel: Inside, program: Program) -> Request:
    """A stream of events in flight; its reader has credit for one."""
    number = program.send("watch_events", system=program.system, kinds=["lease"], credit=1)
    return kernel.session(program).requests[number]


def event(about: str, lost: int = 0) -> Event:
    return Event(kind="test", about=about, lost=lost)


def finish(kernel: Inside, request: Request) -> None:
    kernel.kernel.dispatcher.cancel(request)
    kernel.settle()


def test_a_request_is_answered_once(kernel: Inside, request_: Request) -> None:
    finish(kernel, request_)
    with pytest.raises(AssertionError, match="answered twice"):
        request_.answer(None)


@pytest.mark.parametrize("numbers", [{"path": "h\udcff"}, {"huge": 2**80}])
def test_whatever_its_reasons_hold_a_request_ends(
    kernel: Inside, program: Program, request_: Request, numbers: dict[str, Any]
) -> None:
    request_.because("c\udcff", "text \udcff" + "x" * 10_000_000, **numbers)
    shared = NotFound("lost \udcff", reasons=[{"text": "first \udcff"}])
    kernel.kernel.interrupt(request_, shared)
    kernel.settle()
    error = program.wait(request_.receivers[0]).error
    assert isinstance(error, NotFound) and str(error) == "lost ?"
    assert [reason["text"][:6] for reason in error.reasons] == ["text ?", "first "]
    assert len(shared.reasons) == 1, "it may end other requests too"


def test_reasons_that_cannot_be_sent_make_an_answer_an_error(
    kernel: Inside, program: Program, request_: Request
) -> None:
    request_.because("c", "x", huge=2**80)
    finish(kernel, request_)
    assert isinstance(program.wait(request_.receivers[0]).error, BadArgument)


def test_text_that_is_none_is_answered_escaped(kernel: Inside, program: Program, request_: Request) -> None:
    request_.because("c", "h\udcff")
    finish(kernel, request_)
    answer = program.wait(request_.receivers[0])
    assert answer.error is None and answer.reasons == ["c"]


def test_nothing_follows_the_answer(kernel: Inside, program: Program, request_: Request) -> None:
    finish(kernel, request_)
    before = len(program.wire.inbox)
    request_.progress(1)
    request_.offer(event("late"))
    kernel.settle()
    assert len(program.wire.inbox) == before


def test_progress_goes_to_all_who_asked(program: Program, kernel: Inside, request_: Request) -> None:
    request_.progress(1, 4, "bytes", "weights")
    program.drain()
    answer = program.answers[request_.receivers[0]]
    assert answer.progress == [{"done": 1, "total": 4, "unit": "bytes", "stage": "weights"}]
    finish(kernel, request_)


def test_credit_lets_what_waits_go_in_order(kernel: Inside, program: Program, request_: Request) -> None:
    request_.merge = lambda backlog, item: backlog.append(item)
    for name in "abcd":
        request_.offer(event(name))
    request_.grant(2)
    kernel.settle()
    program.drain()
    answer = program.answers[request_.receivers[0]]
    assert [item["about"] for item in answer.chunks] == ["a", "b", "c"]
    assert request_.stalled is not None
    request_.grant(5)
    request_.offer(event("e"))
    kernel.settle()
    program.drain()
    assert [item["about"] for item in answer.chunks] == ["a", "b", "c", "d", "e"]
    assert request_.stalled is None and request_.credit == 3
    request_.grant(1)
    finish(kernel, request_)


def test_the_rest_is_delivered_at_the_end(kernel: Inside, program: Program, request_: Request) -> None:
    request_.offer(event("a"))
    request_.offer(event("b"))
    finish(kernel, request_)
    program.drain()
    assert [item["about"] for item in program.answers[request_.receivers[0]].chunks] == ["a", "b"]


def test_a_stalled_reader_is_ended_after_a_while(kernel: Inside, program: Program, request_: Request) -> None:
    for name in "abc":
        request_.offer(event(name))
    kernel.advance(59)
    assert not program.done(request_.receivers[0])
    kernel.advance(2)
    error = program.wait(request_.receivers[0]).error
    assert isinstance(error, TimedOut) and "60 s" in str(error)


def test_an_answer_that_cannot_be_sent_is_an_error(program: Program, request_: Request) -> None:
    request_.answer(b"x" * (9 << 20))
    assert isinstance(program.wait(request_.receivers[0]).error, TooLarge)


def test_errors_carry_reasons_and_the_request(kernel: Inside, program: Program, request_: Request) -> None:
    reason = request_.because("test", "because", "a rule", count=3)
    assert reason.at == kernel.wall()
    request_.fail(NotFound("no", reasons=[{"code": "inner"}]))
    body = program.wait(request_.receivers[0]).body
    assert [r["code"] for r in body["reasons"]] == ["test", "inner"] and body["request"] == request_.id
    assert body["reasons"][0]["numbers"] == {"count": 3}


def test_waiting_chunks_of_one_choice_are_joined() -> None:
    backlog: list[Any] = []
    first = TokenLogprob(token=1, text="a", logprob=-1.0)
    for item in (
        Chunk(index=0, text="a", tokens=[1], logprobs=[first]),
        Chunk(index=1, text="x", tokens=[9]),
        Chunk(index=0, text="b", tokens=[2], logprobs=[first]),
        Chunk(index=1, text="y", tokens=[8]),
    ):
        merge_chunks(backlog, item)
    assert [(c.index, c.text, c.tokens) for c in backlog] == [(0, "ab", [1, 2]), (1, "xy", [9, 8])]
    assert backlog[0].logprobs == [first, first] and backlog[1].logprobs is None


def test_joined_chunks_stay_of_modest_size_and_in_order() -> None:
    backlog: list[Any] = []
    for start in range(0, 6000, 1000):
        for index in (0, 1):
            merge_chunks(backlog, Chunk(index=index, text="", tokens=list(range(start, start + 1000))))
    for index in (0, 1):
        mine = [chunk.tokens for chunk in backlog if chunk.index == index]
        assert [len(tokens) for tokens in mine] == [2000, 2000, 2000]
        assert [token for tokens in mine for token in tokens] == list(range(6000))


def test_of_waiting_events_the_newest_is_kept_and_the_others_counted() -> None:
    backlog: list[Any] = []
    for name in "abc":
        drop_events(backlog, event(name))
    assert [(e.about, e.lost) for e in backlog] == [("c", 2)]
    drop_events(backlog, event("d", lost=5))
    assert [(e.about, e.lost) for e in backlog] == [("d", 8)]


def test_a_wait_that_ends_tells_who_waits_for_it(kernel: Inside, request_: Request) -> None:
    ended = kernel.kernel.runner.future()
    request_.ended.append(ended)
    finish(kernel, request_)
    assert ended.done
