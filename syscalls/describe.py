"""Says in words what a type admits, for error texts and manual pages."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import inspect as mi


ANY = mi.AnyType()


@functools.cache
def node_of(cls: Any) -> mi.Type:
    """The inspected form of a Struct or any other type."""
    return mi.type_info(cls)


def words(node: mi.Type) -> str:
    """What the type admits, as a phrase that fits after "expected"."""
    match node:
        case mi.Metadata():
            return words(node.type)
        case mi.IntType():
            return "an integer" + _range(node)
        case mi.FloatType():
            return "a number" + _range(node)
        case mi.StrType():
            return "text" + _length(node, "character")
        case mi.EnumType() | mi.LiteralType():
            return "one of " + ", ".join(choices(node))
        case mi.ListType() | mi.FrozenSetType():
            return f"a list{_length(node, 'item')}, each {words(node.item_type)}"
        case mi.TupleType():
            return f"a list of {', '.join(words(item) for item in node.item_types)}"
        case mi.DictType():
            return f"a map from {words(node.key_type)} to {words(node.value_type)}"
        case mi.UnionType():
            return _union(node)
        case mi.StructType():
            return _struct(node)
        case _:
            return _PLAIN[type(node)]


_PLAIN: Mapping[type[mi.Type], str] = {
    mi.AnyType: "anything", mi.BoolType: "true or false", mi.BytesType: "bytes", mi.NoneType: "nothing (None)"
}  # fmt: skip


def _range(node: mi.IntType | mi.FloatType) -> str:
    if node.ge is not None and node.le is not None:
        return f" from {node.ge} to {node.le}"
    low = f"at least {node.ge}" if node.ge is not None else f"above {node.gt}" if node.gt is not None else ""
    high = f"at most {node.le}" if node.le is not None else f"below {node.lt}" if node.lt is not None else ""
    bounds = " and ".join(part for part in (low, high) if part)
    return f" of {bounds}" if bounds.startswith("at") else f" {bounds}" if bounds else ""


def _length(node: mi.StrType | mi.ListType | mi.FrozenSetType, unit: str) -> str:
    both = (("least", node.min_length), ("most", node.max_length))
    bounds = [(name, size) for name, size in both if size is not None]
    if not bounds:
        return ""
    return " of " + " and ".join(f"at {name} {size} {unit}{'s' if size != 1 else ''}" for name, size in bounds)


def _union(node: mi.UnionType) -> str:
    tagged = [str(t.tag) for t in node.types if isinstance(t, mi.StructType) and t.tag is not None]
    others = [words(t) for t in node.types if not (isinstance(t, mi.StructType) and t.tag is not None)]
    objects = [f"an object of type {either(tagged)}"] if tagged else []
    return either(objects + others)


def _struct(node: mi.StructType) -> str:
    if node.tag is not None:
        return f"an object of type {node.tag}"
    return f"an object {node.cls.__name__}"


def either(names: list[str]) -> str:
    """`a, b or c`."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


def choices(node: mi.EnumType | mi.LiteralType) -> list[str]:
    """The values that an enumeration admits."""
    return [str(m.value) for m in node.cls] if isinstance(node, mi.EnumType) else [str(v) for v in node.values]


def find(node: mi.Type, path: str) -> mi.Type | None:
    """The type at a path of msgspec's error messages, such as `sampling.stop[0]`; None where it leads nowhere."""
    here: mi.Type | None = node
    for part in re.findall(r"[^.\[\]]+|\[[^\]]*\]", path):
        here = None if here is None else _step(here, part)
    return here


def _step(node: mi.Type, part: str) -> mi.Type | None:
    match node:
        case mi.Metadata():
            return _step(node.type, part)
        case mi.UnionType():
            return _step_union(node, part)
        case mi.StructType():
            return next((f.type for f in node.fields if f.encode_name == part), None)
        case mi.ListType() | mi.FrozenSetType() if part.startswith("["):
            return node.item_type
        case mi.TupleType() if part.startswith("["):
            return node.item_types[int(part[1:-1])]
        case mi.DictType() if part.startswith("["):
            return node.value_type
        case _:
            return None


def _step_union(node: mi.UnionType, part: str) -> mi.Type | None:
    tags = [t.tag for t in node.types if isinstance(t, mi.StructType) and t.tag_field == part]
    if tags:
        return mi.LiteralType(tuple(tags))
    found = [step for t in node.types if (step := _step(t, part)) is not None]
    return found[0] if found else None


def field_names(node: mi.Type, value: Any) -> list[str]:
    """The fields that an object of this type may have; in a union, those of the type that `value` says it is."""
    if isinstance(node, mi.UnionType):
        objects = [t for t in node.types if isinstance(t, mi.StructType)]
        named = [t for t in objects if isinstance(value, Mapping) and value.get(t.tag_field) == t.tag]
        return [name for t in named or objects for name in field_names(t, value)]
    return [f.encode_name for f in node.fields] if isinstance(node, mi.StructType) else []


def suggest(name: str, known: Iterable[str]) -> str:
    """For a name that is none of the known ones: the one that is nearest to it, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name[:80], names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"


def key_words(node: mi.Type) -> str:
    """What the keys of a map of this type are."""
    return words(node.key_type) if isinstance(node, mi.DictType) else "text"
