"""One sequence through a model: parts, cropping, forgetting and copies never change what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from architectures import build as tiny
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CONTEXT, PROMPT, config_of, random_module

from llmos.drivers.engine.decoder import Decoder, SequenceState
from llmos.drivers.engine.loader import Bundle

KINDS = ("llama", "mistral", "mamba", "openai-gpt", "rwkv", "qwen3_next")
tokens = st.lists(st.integers(0, 319), min_size=1, max_size=30)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=KINDS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return Decoder(random_module(config_of(request.param)), CONTEXT, 7)


def run_all(decoder: Decoder, state: SequenceState) -> tuple[torch.Tensor, int]:
    """Run to the end; the last logits and the number of steps."""
    logits, steps = torch.empty(0), 0
    while state.done < state.length:
        logits, steps = decoder.run(state, decoder.reach(state)), steps + 1
    return logits, steps


def fresh(decoder: Decoder, ids: list[int]) -> torch.Tensor:
    state = SequenceState()
    state.append(ids)
    return run_all(decoder, state)[0]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=2e-4, rtol=1e-4)


def test_tokens_may_come_in_any_portions(decoder: Decoder) -> None:
    ids, state = list(PROMPT), SequenceState()
    for start, end in ((0, 9), (9, 10), (10, 24)):
        state.append(ids[start:end])
        logits, _ = run_all(decoder, state)
        assert close(logits, fresh(decoder, ids[:end]))
    assert (state.tokens(), state.done) == (ids, 24)


@pytest.mark.parametrize("length", [1, 5, 17, 23])
def test_rewinding_undoes_tokens(decoder: Decoder, length: int) -> None:
    ids, state = list(PROMPT), SequenceState()
    state.append(ids)
    run_all(decoder, state)
    decoder.rewind(state, length)
    assert state.tokens() == ids[:length] and state.done <= length
    state.append([300, 5])
    assert close(run_all(decoder, state)[0], fresh(decoder, [*ids[:length], 300, 5]))


def test_forgetting_loses_no_tokens(decoder: Decoder) -> None:
    state = SequenceState()
    state.append(PROMPT)
    before, _ = run_all(decoder, state)
    state.forget(state.length)
    assert (state.done, state.cache_bytes(), state.tokens()) == (0, 0, list(PROMPT))
    assert close(run_all(decoder, state)[0], before)


def test_a_failure_in_the_middle_leaves_a_state_that_can_go_on(decoder: Decoder) -> None:
    state = SequenceState()
    state.append(PROMPT[:10])
    run_all(decoder, state)
    state.append(PROMPT[10:])
    kinds = torch.nn.Dropout | torch.nn.Linear
    layer = [module for module in decoder._module.modules() if isinstance(module, kinds)][-2]

    def fail(*given: Any) -> None:
        raise RuntimeError("in the middle")

    hook = layer.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        run_all(decoder, state)
    hook.remove()
    assert state.done == 0
    assert close(run_all(decoder, state)[0], fresh(decoder, list(PROMPT)))


def test_parts_are_bounded_where_the_layers_allow_it() -> None:
    steps = {}
    for kind in KINDS:
        state = SequenceState()
        state.append(PROMPT)
        steps[kind] = run_all(Decoder(random_module(config_of(kind)), CONTEXT, 10), state)[1]
    assert steps == {"llama": 3, "mistral": 3, "openai-gpt": 3, "mamba": 1, "rwkv": 1, "qwen3_next": 1}


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_that_depend_on_the_length_see_all_of_it(kind: str) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}
    if kind == "longrope":
        rope |= {"long_factor": [2.0] * 8, "short_factor": [1.0] * 8, "original_max_position_embeddings": 16}
    decoder = Decoder(random_module(config_of("llama", rope_parameters=rope)), CONTEXT, 5)
    state = SequenceState()
    state.append(PROMPT)
    assert decoder.reach(state) == len(PROMPT)


def test_a_prompt_stays_whole_where_parts_lead_elsewhere() -> None:
    """CPM-Ant puts tokens of its own before every run."""
    decoder = Decoder(tiny.random_module(tiny.config_of("cpmant")), CONTEXT, 5)
    state = SequenceState()
    state.append(PROMPT)
    assert decoder.reach(state) == len(PROMPT)
    decoder.run(state, decoder.reach(state))
    state.append([5, 6, 7])
    assert decoder.reach(state) == len(PROMPT) + 1


def test_a_window_that_has_slid_cannot_go_back_but_still_answers() -> None:
    decoder = Decoder(random_module(config_of("mistral")), CONTEXT, 50)
    state = SequenceState()
    state.append(PROMPT)
    run_all(decoder, state)
    decoder.rewind(state, 20)
    assert state.done == 0
    state.forget(10)
    run_all(decoder, state)
    decoder.rewind(state, 8)
    assert state.done == 8


@given(st.lists(tokens, min_size=1, max_size=8))
def test_a_state_holds_what_was_appended(portions: list[list[int]]) -> None:
    state = SequenceState()
    for portion in portions:
        state.append(portion)
    assert state.tokens() == [token for portion in portions for token in portion]
    assert state.ids(1).tolist() == [[portions[0][0]]]


def test_the_logits_are_those_of_the_model(bundle: Bundle) -> None:
    decoder = Decoder(bundle.module, CONTEXT, 512)
    expected = bundle.module(torch.tensor([PROMPT])).logits[0, -1]
    assert close(fresh(decoder, list(PROMPT)), expected)
