"""Hypothesis strategies derived from the contract: any value that a type, and so any message that a call, admits."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from hypothesis import strategies as st
from llmos.syscalls.spec import CallSpec
from msgspec import inspect as mi

INT64 = (-(2**63), 2**63 - 1)

PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(*INT64) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=6,
)
"""Anything that msgpack carries, as this project uses it."""

MAPS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(st.text(), PLAIN, max_size=4)


def values(node: mi.Type) -> st.SearchStrategy[Any]:
    """Plain values that convert to a type."""
    match node:
        case mi.Metadata():
            return values(node.type)
        case mi.AnyType():
            return PLAIN
        case mi.NoneType():
            return st.none()
        case mi.BoolType():
            return st.booleans()
        case mi.IntType():
            return st.integers(*_bounds(node, 1))
        case mi.FloatType():
            low, high = _bounds(node, 0)
            above, below = node.gt is not None, node.lt is not None
            return st.floats(low, high, allow_nan=False, exclude_min=above, exclude_max=below)
        case mi.StrType():
            return st.text(min_size=node.min_length or 0, max_size=min(node.max_length or 20, 20))
        case mi.BytesType():
            return st.binary(max_size=20)
        case mi.EnumType():
            return st.sampled_from([member.value for member in node.cls])
        case mi.LiteralType():
            return st.sampled_from(node.values)
        case mi.ListType():
            return st.lists(values(node.item_type), min_size=node.min_length or 0, max_size=3)
        case mi.FrozenSetType():
            return st.lists(values(node.item_type), max_size=3, unique=True)
        case mi.TupleType():
            return st.tuples(*map(values, node.item_types)).map(list)
        case mi.DictType():
            return st.dictionaries(values(node.key_type), values(node.value_type), max_size=3)
        case mi.UnionType():
            return st.one_of(*map(values, node.types))
        case mi.StructType():
            return _struct(node.cls)
    raise AssertionError(f"no strategy for {node}")


def _bounds(node: mi.IntType | mi.FloatType, step: int) -> tuple[Any, Any]:
    low = node.ge if node.ge is not None else node.gt + step if node.gt is not None else None
    high = node.le if node.le is not None else node.lt - step if node.lt is not None else None
    if step:
        return (INT64[0] if low is None else int(low)), (INT64[1] if high is None else int(high))
    return low, high


@cache
def _struct(cls: type) -> st.SearchStrategy[Any]:
    """The same one each time, since a type may have fields of its own kind."""
    node = mi.type_info(cls)
    assert isinstance(node, mi.StructType)
    return st.deferred(lambda: _objects(node))


def _objects(node: mi.StructType) -> st.SearchStrategy[dict[str, Any]]:
    """Maps of the required fields and any of the others."""
    tag = {node.tag_field: st.just(node.tag)} if node.tag_field else {}
    required = {f.encode_name: values(f.type) for f in node.fields if f.required}
    optional = {f.encode_name: values(f.type) for f in node.fields if not f.required}
    return st.fixed_dictionaries({**tag, **required}, optional=optional)


def of(cls: Any) -> st.SearchStrategy[Any]:
    """Plain values that convert to a type of the contract."""
    return st.deferred(lambda: values(mi.type_info(cls)))


def bodies(spec: CallSpec) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies of messages that make the call."""
    return of(spec.cls)


def same(one: Any, other: Any) -> bool:
    """Equality that takes a float and the integer of the same value, a list and a tuple for the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)
