"""Whether what came of tuning is good enough: a condition over its figures, written as in Python.

`eval_loss < 0.98 * eval_loss_before and eval_accuracy >= 0.8`: names are those of figures, compared and reckoned with
`+ - * /`, joined by `and`, `or`, `not`. Nothing is executed: the condition is read as a tree, and the tree is walked.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Number, Reason

LONGEST = 500
"""Characters of a condition."""
LARGEST = 1e300
"""Numbers are smaller."""
DEEPEST = 50
"""Parts of a condition in each other."""
PROMOTED, CANDIDATE = "tune.promoted", "tune.candidate"
"""What a result is."""
WANT = "a condition such as eval_loss < eval_loss_before"

_RECKONED: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_COMPARED: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A checked condition."""

    text: str
    tree: ast.expr
    names: tuple[str, ...]
    """The figures that it is about, in order."""

    @classmethod
    def of(cls, text: str) -> Rule:
        """Raises BadArgument: it is no such condition; with the place of the mistake."""
        if len(text) > LONGEST:
            raise _refused(text[:40] + "...", f"has {len(text)} characters, at most {LONGEST} are read")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            place = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
            raise _refused(text, f"cannot be read{place}") from None
        if _depth(tree) > DEEPEST:
            raise _refused(text, f"is nested more than {DEEPEST} deep")
        names: dict[str, None] = {}
        if not _is_truth(tree, text, names):
            raise _refused(text, "is a number, not a condition")
        return cls(text, tree, tuple(names))

    def judge(self, figures: Mapping[str, float]) -> Reason:
        """`tune.promoted` or `tune.candidate`, with the figures that decided it."""
        figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        numbers: dict[str, Number] = {name: figures[name] for name in self.names if name in figures}
        rule = f"promote_if {self.text}"
        missing = [name for name in self.names if name not in figures]
        if missing:
            known = ", ".join(sorted(figures)) or "none"
            text = f"it is not promoted: {', '.join(missing)} is not known; figures here: {known}"
            return Reason(code=CANDIDATE, text=text, numbers=numbers, rule=rule, change="correct promote_if")
        said = ", ".join(f"{name} {figures[name]:g}" for name in self.names) or "no figures"
        try:
            holds = bool(_value(self.tree, figures))
        except ZeroDivisionError:
            holds, said = False, f"{said}; it divides by zero"
        if holds:
            return Reason(code=PROMOTED, text=f"it is promoted: {said}", numbers=numbers, rule=rule)
        return Reason(
            code=CANDIDATE, text=f"it is not promoted: {said}", numbers=numbers, rule=rule,
            change="load it by its own name, or make it current: llmos rollback NAME@VERSION",
        )  # fmt: skip


def _is_truth(node: ast.expr, text: str, names: dict[str, None]) -> bool:
    """Whether a part is true or false, else it is a number; its names are noted. Raises BadArgument."""

    def need(part: ast.expr, truth: bool) -> bool:
        if _is_truth(part, text, names) != truth:
            what = ("a condition", "a number") if truth else ("a number", "a condition")
            raise _refused(text, f"needs {what[0]}, not {what[1]}, in {ast.unparse(part)!r}")
        return truth

    match node:
        case ast.BoolOp(values=parts):
            for part in parts:
                need(part, True)
            return True
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return need(part, True)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=part):
            return need(part, False)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _RECKONED:
            return need(left, False) or need(right, False)
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARED for op in ops):
            for part in (left, *others):
                need(part, False)
            return True
        case ast.Name(id=name):
            names[name] = None
            return False
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and abs(value) < LARGEST:
            return False
    what = "no figure, number, comparison, + - * /, and, or, not"
    raise _refused(text, f"has {ast.unparse(node)!r}, which is {what}")


def _value(node: Any, figures: Mapping[str, float]) -> float | bool:
    """Of a checked part."""
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, figures) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, figures) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _value(part, figures)
        case ast.UnaryOp(op=op, operand=part):
            value = _value(part, figures)
            return -value if isinstance(op, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right):
            return _RECKONED[type(op)](_value(left, figures), _value(right, figures))
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_value(part, figures) for part in (left, *others)]
            return all(
                _COMPARED[type(op)](one, other) for op, one, other in zip(ops, values, values[1:], strict=False)
            )
        case ast.Name(id=name):
            return figures[name]
    return float(node.value)


def _depth(tree: ast.expr) -> int:
    """How many parts are in each other at most; without recursion, since it is to bound that."""
    deepest, waiting = 0, [(1, tree)]
    while waiting:
        depth, part = waiting.pop()
        deepest = max(deepest, depth)
        waiting += [(depth + 1, child) for child in ast.iter_child_nodes(part) if isinstance(child, ast.expr)]
    return deepest


def _refused(text: str, why: str) -> BadArgument:
    return BadArgument(f"promote_if {text!r} {why}; it is {WANT}", name="promote_if", got=text, want=WANT)
