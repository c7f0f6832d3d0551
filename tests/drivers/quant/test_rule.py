"""Which layers are quantized."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.ops.quantized import Scheme
from llmos.drivers.quant.rule import SIBLINGS, Wish, kept, schemes, together, wider
from llmos.syscalls.errors import BadArgument

W4, W8 = Scheme(4, 128), Scheme(8, 128)


def test_a_wish_has_the_fields_of_the_contract_and_refuses_others() -> None:
    wish = Wish.of({"width": 4, "group": 64, "shift": True, "keep": ["*.down_proj"]})
    assert wish.scheme() == Scheme(4, 64, shift=True) and wish.keep == ["*.down_proj"]
    with pytest.raises(BadArgument, match="widht"):
        Wish.of({"widht": 4})
    with pytest.raises(BadArgument, match="no scheme"):
        Wish.of({"width": 4, "kind": "float"})


@pytest.mark.parametrize(
    ("fields", "short"),
    [
        ({"width": 4}, "w4-g128"), ({"width": 4, "activations": "model"}, "w4a16-g128"),
        ({"width": 8, "group": 0, "activations": "int8"}, "w8a8"),
        ({"width": 8, "group": 0}, "w8"), ({"kind": "float", "group": 0}, "fp8"),
    ],
)  # fmt: skip
def test_short_names(fields: dict[str, object], short: str) -> None:
    assert Wish.of(fields).short == short


def test_heads_are_wider_unless_asked() -> None:
    modules = {"model.layers.0.mlp.down_proj": (256, 640), "lm_head": (3072, 256)}
    assert schemes(modules, Wish(4)) == {"model.layers.0.mlp.down_proj": W4, "lm_head": W8}
    assert schemes(modules, Wish(4, head=4))["lm_head"] == W4
    assert "lm_head" not in schemes(modules, Wish(4, head=16))
    assert schemes(modules, Wish(8, head=4))["lm_head"] == W8
    assert schemes(modules, Wish(4), heads={"model.layers.0.mlp.down_proj"}) == {
        "model.layers.0.mlp.down_proj": W8, "lm_head": W4,
    }  # fmt: skip
    assert schemes(modules, Wish(4, shift=True))["lm_head"] == W8, "8 bits need no shift"


def test_routers_classifiers_and_what_spares_nothing_stay() -> None:
    modules = {
        "layers.0.mlp.gate": (64, 256), "score": (3, 256), "layers.0.mlp.down_proj": (256, 640), "narrow": (256, 16),
    }  # fmt: skip
    assert list(schemes(modules, Wish(4))) == ["layers.0.mlp.down_proj"]


def test_layers_are_kept_by_name_pattern_or_last_part_and_siblings_with_them() -> None:
    modules = {f"layers.{n}.self_attn.{part}": (64, 256) for n in range(2) for part in ("q_proj", "k_proj", "v_proj")}
    modules |= {f"layers.{n}.self_attn.o_proj": (64, 256) for n in range(2)}
    assert kept("a.b.o_proj", ["o_proj"]) and kept("a.b.o_proj", ["a.*"]) and not kept("a.b.o_proj", ["proj"])
    found = schemes(modules, Wish(4, keep=["layers.1.self_attn.k_proj", "layers.0.*.o_proj"]))
    assert sorted(found) == [
        "layers.0.self_attn.k_proj", "layers.0.self_attn.q_proj", "layers.0.self_attn.v_proj",
        "layers.1.self_attn.o_proj",
    ]  # fmt: skip


@given(st.lists(st.sampled_from([f"m.{n}.{part}" for n in range(3) for group in SIBLINGS for part in (*group, "x")])))
def test_each_layer_goes_together_with_its_siblings_alone(names: list[str]) -> None:
    names = list(dict.fromkeys(names))
    units = together(names)
    assert sorted(name for unit in units.values() for name in unit) == sorted(names)
    for lead, unit in units.items():
        assert unit[0] == lead and len({name.rpartition(".")[0] for name in unit}) == 1
        if len(unit) > 1:
            assert any(all(name.rpartition(".")[2] in group for name in unit) for group in SIBLINGS)


def test_wider_has_eight_bits_without_a_shift() -> None:
    assert wider(Scheme(4, 32, shift=True)) == Scheme(8, 32)
    assert wider(Scheme(8, 0, "float")) == Scheme(8, 0, "float")
