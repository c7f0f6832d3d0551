"""The table of transformations, and their options."""

from __future__ import annotations

import pytest

from llmos.drivers.transform import kinds
from llmos.syscalls.errors import BadArgument, NotSupported


@pytest.mark.parametrize("name", kinds.KINDS)
def test_every_kind_has_what_does_it(name: str) -> None:
    kind, run = kinds.find(name)
    assert callable(run) and kind is kinds.KINDS[name]


def test_an_unknown_kind_is_refused_with_what_there_is() -> None:
    with pytest.raises(NotSupported, match="did you mean 'quantize'"):
        kinds.find("quantise")


def test_options_are_those_of_the_kind_and_of_all() -> None:
    known = {"density": (float, int), "deep": bool}
    given = {"replace": True, "density": 1, "deep": False}
    assert kinds.options_of({"kind": "merge", "options": given}, known) == given
    assert kinds.options_of({"kind": "merge"}, known) == {}
    with pytest.raises(BadArgument, match="merge has no option 'dense'; did you mean 'density'"):
        kinds.options_of({"kind": "merge", "options": {"dense": 1}}, known)
    for wrong, said in (({"density": True}, "float or int"), ({"deep": 1}, "it takes bool"), ({"alias": 3}, "str")):
        with pytest.raises(BadArgument, match=said):
            kinds.options_of({"options": wrong}, known)
