"""Ids of requests and traces."""

from __future__ import annotations

import pytest

from llmos.userland.gateway.core.ids import request_id_from, trace_from

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_clients_own_id_is_kept() -> None:
    assert request_id_from("my-id_1.2") == "my-id_1.2"


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "line\nbreak", "é", 'quo"te'])
def test_another_is_made(given: str | None) -> None:
    made = request_id_from(given)
    assert made.startswith("req-") and len(made) == 28 and made != request_id_from(given)


def test_a_trace_goes_on_with_a_span_of_ours() -> None:
    trace = trace_from(f"00-{TRACE}-{SPAN}-01")
    assert trace is not None and (trace.trace, trace.parent, trace.flags) == (TRACE, SPAN, "01")
    assert trace.span != SPAN and trace.header() == f"00-{TRACE}-{trace.span}-01"
    assert trace_from(f"cc-{TRACE}-{SPAN}-01-what-comes-later") is not None


@pytest.mark.parametrize(
    "given",
    [
        None, "", "00", f"00-{TRACE}-{SPAN}", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more",
    ],
)  # fmt: skip
def test_no_trace(given: str | None) -> None:
    assert trace_from(given) is None
