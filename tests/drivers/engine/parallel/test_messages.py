"""Each direction has messages of its own, and each has a name of its own, by which it is written."""

from __future__ import annotations

from typing import get_args

from llmos.drivers.engine.parallel.messages import Order, Said


def test_no_message_goes_both_ways() -> None:
    orders, says = get_args(Order), get_args(Said)
    assert not set(orders) & set(says)
    assert len({kind.__name__ for kind in (*orders, *says)}) == len(orders) + len(says) == 13


def test_every_message_is_frozen() -> None:
    assert all(kind.__dataclass_params__.frozen for kind in (*get_args(Order), *get_args(Said)))
