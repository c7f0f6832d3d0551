"""The function that transformers calls: what it refuses, and that it is the library's own attention otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from llmos.drivers.engine import attention
from llmos.drivers.engine.attention import Layer, Recorder, Refused, Step, StepTensors

Q, K, V = (torch.randn(1, heads, 5, 4, generator=torch.Generator().manual_seed(1)) for heads in (4, 2, 2))


class Called:
    """Stands for the ops and notes what they are given."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.written: list[Any] = []

    def write(self, *given: Any) -> None:
        self.written.append(given)

    def attend(self, q: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        self.options = options
        return q


def layer(called: Called, step: Step | None = None) -> Layer:
    none = torch.empty(0)
    return Layer(none, none, step or Step(StepTensors(none, none, none, none)), called.write, called.attend)


def attend(module: Any, **options: Any) -> Any:
    return attention.paged_attention(module, Q, K, V, options.pop("mask", None), **options)


def test_what_is_asked_reaches_the_op_and_the_shape_is_the_librarys() -> None:
    module, called = nn.Module(), Called()
    attention.attach(module, layer(called))
    sinks = torch.ones(4)
    out, weights = attend(module, scaling=0.3, sliding_window=7, softcap=2.0, s_aux=sinks, dropout=0.0)
    assert out.shape == (1, 5, 4, 4) and weights is None
    assert torch.equal(out[0], Q[0].transpose(0, 1))
    assert called.options == {"scale": 0.3, "window": 7, "softcap": 2.0, "sinks": sinks}
    k, v = called.written[0][:2]
    assert torch.equal(k, K[0].transpose(0, 1)) and torch.equal(v, V[0].transpose(0, 1))


def test_without_a_word_about_it_the_scale_is_that_of_the_width() -> None:
    module, called = nn.Module(), Called()
    attention.attach(module, layer(called))
    attend(module)
    assert called.options == {"scale": 0.5, "window": 0, "softcap": 0.0, "sinks": None}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"indices": torch.zeros(1)}, "indices"), ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"is_causal": False}, "causal"), ({"mask": torch.zeros(1)}, "mask"), ({"new_thing": 1.0}, "new_thing"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused(options: dict[str, Any], why: str) -> None:
    module = nn.Module()
    attention.attach(module, layer(Called()))
    with pytest.raises(Refused, match=why):
        attend(module, **options)


def test_what_says_nothing_is_not_refused() -> None:
    module = nn.Module()
    attention.attach(module, layer(Called()))
    attend(module, indices=None, output_attentions=False, position_ids=torch.zeros(1), is_causal=True)


def test_an_attention_that_looks_ahead_is_refused() -> None:
    module = nn.Module()
    module.is_causal = False  # type: ignore[assignment]
    attention.attach(module, layer(Called()))
    with pytest.raises(Refused, match="causal"):
        attend(module)


def test_a_layer_without_pages_is_refused() -> None:
    with pytest.raises(Refused, match="not seen"):
        attend(nn.Module())


def test_a_module_that_attends_twice_has_pages_for_each_time() -> None:
    module, step = nn.Module(), Step(StepTensors(*(torch.empty(0) for _ in range(4))))
    one, two = Called(), Called()
    attention.attach_all([module, module], [layer(one, step), layer(two, step)])
    for number in (1, 2):
        step.number = number
        attend(module)
        attend(module)
        assert len(one.written) == len(two.written) == number


def test_the_layers_are_found_in_the_order_of_their_calls_and_left_as_they_were() -> None:
    model = nn.Sequential(nn.Module(), nn.Module())
    order = (model[1], model[0], model[1])
    found = attention.record(model, 100, lambda: [attend(module) for module in order])
    assert [id(module) for module in found.modules] == [id(module) for module in order]
    assert [(shape.heads, shape.key_width, shape.value_width) for shape in found.shapes] == [(2, 4, 4)] * 3
    assert isinstance(found, Recorder)
    with pytest.raises(Refused, match="not seen"):
        attend(model[0])
