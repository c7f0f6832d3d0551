"""bitsandbytes: the weights that the library itself dequantizes, and those of the formula."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from foreign_checkpoints import Held
from llmos.drivers.formats import bitsandbytes
from llmos.drivers.ops.quantized import Scheme
from llmos.syscalls.errors import BadModel, NotSupported
from torch import Tensor

OUTS, INS = 12, 160


def state(kind: str, **facts: object) -> dict[str, Tensor]:
    text = json.dumps({"quant_type": kind, "blocksize": 64, "shape": [OUTS, INS], "dtype": "bfloat16", **facts})
    return {f"x.weight.quant_state.bitsandbytes__{kind}": torch.tensor(list(text.encode()), dtype=torch.uint8)}


def test_whole_numbers_keep_one_scale_for_each_output() -> None:
    numbers, largest = torch.arange(-128, 128).repeat(OUTS, 1).to(torch.int8), torch.rand(OUTS) + 0.1
    tensors = {"x.weight": numbers, "x.SCB": largest, "x.weight_format": torch.tensor(0, dtype=torch.uint8)}
    (found,) = bitsandbytes.layers({}, Held(tensors))
    assert found.scheme == Scheme(8, 0) and set(found.parts) == set(tensors)
    exact = numbers.double() * largest.double().view(-1, 1) / 127
    torch.testing.assert_close(found.wide().double(), exact, rtol=2**-23, atol=0)
    tensors["x.weight_format"] = torch.tensor(2, dtype=torch.uint8)
    with pytest.raises(NotSupported, match="tiles"):
        list(bitsandbytes.layers({}, Held(tensors)))


@pytest.mark.parametrize("nested", [False, True])
def test_values_of_a_table_times_the_largest_of_each_block(nested: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(0, 16, (OUTS * INS,), generator=generator, dtype=torch.uint8)
    table = torch.linspace(-1, 1, 16) ** 3
    blocks = OUTS * INS // 64
    tensors = {
        "x.weight": (numbers[0::2] << 4 | numbers[1::2]).view(-1, 1), "x.weight.quant_map": table,
        "x.weight.absmax": torch.rand(blocks, generator=generator), **state("nf4"),
    }  # fmt: skip
    largest = tensors["x.weight.absmax"]
    if nested:
        index = torch.randint(0, 256, (blocks,), generator=generator, dtype=torch.uint8)
        values, scale = torch.rand(256, generator=generator), torch.rand(-(-blocks // 16), generator=generator)
        tensors |= {"x.weight.absmax": index, "x.weight.nested_quant_map": values, "x.weight.nested_absmax": scale}
        tensors |= state("nf4", nested_blocksize=16, nested_offset=0.25)
        largest = torch.stack([values[int(at)] * scale[block // 16] + 0.25 for block, at in enumerate(index)])
    (found,) = bitsandbytes.layers({}, Held(tensors))
    wanted = torch.stack([table[int(number)] * largest[at // 64] for at, number in enumerate(numbers)])
    assert found.scheme is None and "nf4" in found.why and set(found.parts) == set(tensors)
    assert torch.equal(found.wide(), wanted.view(OUTS, INS))


def test_what_is_not_read_is_refused() -> None:
    with pytest.raises(NotSupported, match="af4"):
        list(bitsandbytes.layers({}, Held(state("af4"))))
    broken = {"x.weight.quant_state.bitsandbytes__nf4": torch.tensor([1, 2], dtype=torch.uint8)}
    with pytest.raises(BadModel, match="describes no weights"):
        list(bitsandbytes.layers({}, Held(broken)))


@pytest.mark.parametrize("wrong", [{"blocksize": 10**6}, {"blocksize": 0}, {"shape": [10**10, INS]}], ids=str)
def test_sizes_that_the_tensors_do_not_have_are_refused_before_anything_is_made(wrong: dict[str, Any]) -> None:
    held = {**state("nf4", **wrong), "x.weight": torch.zeros(OUTS * INS // 2, 1, dtype=torch.uint8)}
    held["x.weight.absmax"] = torch.ones(OUTS * INS // 64)
    with pytest.raises(BadModel, match=r"has .* elements, not one for each"):
        list(bitsandbytes.layers({}, Held(held)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_the_library_dequantizes_the_same_4_bits(kind: str, nested: bool) -> None:
    library = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(OUTS, 192, generator=torch.Generator().manual_seed(1))  # its own 4 bits err in rows of 160
    packed, facts = library.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
    tensors = {"x.weight": packed} | {f"x.weight.{name}": each for name, each in facts.as_dict(packed=True).items()}
    (found,) = bitsandbytes.layers({}, Held(tensors))
    torch.testing.assert_close(found.wide(), library.dequantize_4bit(packed, facts), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_the_library_dequantizes_the_same_8_bits() -> None:
    library = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(OUTS, INS, generator=torch.Generator().manual_seed(1)).half()
    numbers, largest, _ = library.int8_vectorwise_quant(weight)
    (found,) = bitsandbytes.layers({}, Held({"x.weight": numbers, "x.SCB": largest}))
    wanted = library.int8_vectorwise_dequant(numbers, largest)
    torch.testing.assert_close(found.wide(), wanted.float(), rtol=1e-6, atol=1e-7)
