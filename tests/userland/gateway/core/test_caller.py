"""What a caller may do."""

from __future__ import annotations

import pytest

from llmos.syscalls.errors import Denied
from llmos.userland.gateway.core.caller import Caller, KeyLimits


def caller(*scopes: str, models: tuple[str, ...] = (), **limits: int) -> Caller:
    return Caller("k", "ada", "key-k", frozenset(scopes), models, KeyLimits(**limits))


def test_a_scope_that_is_missing_is_named() -> None:
    caller("infer").need("infer")
    with pytest.raises(Denied) as raised:
        caller("infer").need("files")
    assert raised.value.missing == "files" and "infer" in str(raised.value)


def test_admin_may_do_everything() -> None:
    caller("admin").need("files")
    assert caller("admin").admin and not caller("infer").admin


def test_models_by_pattern() -> None:
    assert caller().may_use("anything")
    some = caller(models=("tiny*", "org/x"))
    assert some.may_use("tiny-2") and some.may_use("org/x") and not some.may_use("org/y") and not some.may_use("Tiny")


def test_priority_is_bounded_by_the_key() -> None:
    assert caller().priority(1000) == 100 and caller().priority(-1000) == -100 and caller().priority(7) == 7
    assert caller(priority_max=3).priority(9) == 3 and caller("admin").priority(1000) == 1000
