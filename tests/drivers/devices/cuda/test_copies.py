"""The double buffer, with copies that come late."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from late_lanes import LateLanes
from torch import nn

from llmos.drivers.devices.cuda.copies import DoubleBuffer, as_bytes, move


@given(sizes=st.lists(st.integers(0, 40), max_size=12), buffer=st.integers(1, 16))
def test_all_bytes_arrive_whatever_their_number(sizes: list[int], buffer: int) -> None:
    lanes = LateLanes()
    copies = DoubleBuffer(lanes, buffer)
    sources = [torch.randint(0, 255, (size,), dtype=torch.uint8) for size in sizes]
    targets = [torch.zeros_like(source) for source in sources]
    for source, target in zip(sources, targets, strict=True):
        copies.send(source, target)
    copies.finish()
    assert all(torch.equal(source, target) for source, target in zip(sources, targets, strict=True))
    assert lanes.made == [buffer, buffer]


def test_one_buffer_is_filled_while_the_other_is_sent() -> None:
    lanes = LateLanes()
    copies = DoubleBuffer(lanes, 4)
    copies.send(torch.arange(12, dtype=torch.uint8), torch.zeros(12, dtype=torch.uint8))
    # the first is filled again only after it was waited for, and that wait comes after the second was sent
    assert lanes.log == ["send 4", "mark", "send 4", "mark", "wait", "send 4", "mark", "wait"]


def test_small_tensors_share_a_buffer() -> None:
    lanes = LateLanes()
    copies = DoubleBuffer(lanes, 16)
    for _ in range(3):
        copies.send(torch.ones(5, dtype=torch.uint8), torch.zeros(5, dtype=torch.uint8))
    assert lanes.log == ["send 5"] * 3


class Part(nn.Module):
    def __init__(self, tied: nn.Parameter) -> None:
        super().__init__()
        self.tied = tied
        self.own = nn.Parameter(torch.randn(3, 5).t(), requires_grad=False)
        self.register_buffer("scale", torch.tensor(2.5))
        self.register_buffer("nothing", None)


def test_a_module_moves_with_what_is_shared() -> None:
    tied = nn.Parameter(torch.randn(4, 4, dtype=torch.bfloat16), requires_grad=False)
    module = nn.ModuleList([Part(tied), Part(tied)])
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    told: list[tuple[int, int]] = []
    # the CPU by another name is another device
    move(module, torch.device("cpu", 0), LateLanes(), lambda done, total: told.append((done, total)), 7)
    assert module[0].tied is module[1].tied and module[0].tied is not tied
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert told[-1] == (32 + 2 * (60 + 4), 32 + 2 * (60 + 4)) and [done for done, _ in told] == sorted(
        done for done, _ in told
    )


def test_a_module_that_is_there_stays() -> None:
    module = nn.Linear(2, 2)
    weight = module.weight
    move(module, torch.device("cpu"), LateLanes(), lambda done, total: None)
    assert module.weight is weight


def test_bytes_of_a_number() -> None:
    assert as_bytes(torch.tensor(1.0)).tolist() == [0, 0, 128, 63]
