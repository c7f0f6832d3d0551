"""How a request ended, as reasons with the numbers of its answer or error."""

from __future__ import annotations

import pytest
from msgspec import to_builtins

from llmos.kernel.advice.outcome import answered, ended
from llmos.syscalls.errors import Busy, Cancelled, LlmosError, NoDeviceMemory, OverQuota, PeerGone, TimedOut
from llmos.syscalls.types import Inference, Reason, Timing, Usage


def test_an_inference_is_told_with_the_figures_of_its_answer() -> None:
    usage = Usage(prompt_tokens=3, cached_tokens=1, new_tokens=5)
    timing = Timing(queued=200_000_000, first=1_000_000_000, total=1_500_000_000)
    reason = answered("infer", Inference(id="r", task="t", model_version="1", usage=usage, timing=timing), 1.6)
    assert reason.code == "request.done" and reason.numbers == {
        "total_s": 1.5, "waited_s": 0.2, "first_token_s": 1.0, "prompt_tokens": 3, "cached_tokens": 1, "new_tokens": 5,
    }  # fmt: skip
    assert "after 1.500 s" in reason.text and "waited 0.200 s" in reason.text and "5 new tokens" in reason.text
    whole = Inference(id="r", task="t", model_version="1", usage=usage, timing=Timing(queued=0, first=0, total=1))
    assert "first_token_s" not in answered("infer", whole, 0.0).numbers, "it did not stream"
    assert answered("load_model", object(), 1.6).numbers == {"total_s": 1.6}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Busy("full", retry_after_ms=5), "request.refused"),
        (Cancelled("c"), "request.cancelled"),
        (TimedOut("t"), "request.expired"),
        (PeerGone("p", tokens_done=3), "request.failed"),
    ],
)
def test_each_error_has_its_code_and_its_numbers(error: LlmosError, code: str) -> None:
    (reason,) = ended("infer", error, 0.25)
    fields = {name: value for name, value in error.fields().items() if value}
    assert (reason.code, reason.rule) == (code, type(error).__name__)
    assert reason.numbers == {"after_s": 0.25, **fields} and str(error) in reason.text


def test_a_quota_says_which_and_sentences_stay_in_the_text() -> None:
    (reason,) = ended("infer", OverQuota("used up", what="tokens_per_minute", limit=9, retry_after_ms=4), 0.0)
    assert reason.numbers == {"after_s": 0.0, "what": "tokens_per_minute", "limit": 9, "retry_after_ms": 4}
    (reason,) = ended("load_model", NoDeviceMemory("no room", needed=7, by_whom="weights of fox"), 0.0)
    assert reason.numbers == {"after_s": 0.0, "needed": 7}


def test_what_was_decided_before_comes_first_and_nonsense_is_left_out() -> None:
    before = Reason(code="memory.refused", text="no room", numbers={"needed": 7})
    error = NoDeviceMemory("no room", reasons=[to_builtins(before), {"code": 5}, {"text": "x"}])
    assert ended("load_model", error, 0.0)[0] == before and len(ended("load_model", error, 0.0)) == 2
