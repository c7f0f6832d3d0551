"""The runner that stands for single requests says why there are none, and holds nothing."""

from __future__ import annotations

import pytest
from llmos.drivers.engine.parallel.refusing import RefusingRunner
from llmos.drivers.engine.runner import Conversation, Runner
from llmos.syscalls.errors import NotSupported
from tiny_models import ask


def test_requests_are_refused_with_the_reason_and_nothing_is_held() -> None:
    runner: Runner = RefusingRunner()
    conversation = Conversation("c", "m", 10)
    with pytest.raises(NotSupported, match="split among ranks") as refused:
        runner.submit(ask("a", beams=2))
    assert "pages alone" in refused.value.why
    assert not runner.busy
    assert not (runner.requests() or runner.cancel(["r"]) or runner.step())
    assert runner.kv_bytes() + runner.conversation_bytes(conversation) + runner.forget(conversation) == 0
    assert runner.step_seconds() == 0.0
    runner.fork(conversation, conversation)
    runner.close()
