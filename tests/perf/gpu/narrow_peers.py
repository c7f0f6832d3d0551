"""Other kernels for weights of 4 bits: torch's own, and those of packages where they are installed.

Each is held to the product of the weights that it was given before it is timed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .clock import copies, seconds
from .quantized import aimed, few_tokens
from .setting import Found, Setting

DTYPE = torch.bfloat16
GROUP = 128
FARTHEST = 0.2
"""Of the size of the product, what rounding weights to 4 bits may change it."""

Product = Callable[[Tensor], Tensor]
Make = Callable[[Tensor], Product]
"""From weights [N, K] to what multiplies x [T, K] by them."""


def run(setting: Setting) -> Iterator[Found]:
    """For each number of tokens, the seconds of each. Raises RuntimeError for one that computes something else."""
    outs, ins = aimed(setting)
    for tokens in few_tokens(setting):
        x = torch.randn(tokens, ins, device=setting.device, dtype=DTYPE)
        yield {str(tokens): {name: measured(setting, name, make, x, outs) for name, make in makers(setting)}}


def makers(setting: Setting) -> Iterator[tuple[str, Make]]:
    """Those that this device can use."""
    if setting.device != "cuda":
        yield "torch", of_torch_on_cpu
        return
    yield "torch", of_torch
    if importlib.util.find_spec("bitsandbytes"):
        yield "bitsandbytes", of_bitsandbytes


def measured(setting: Setting, name: str, make: Make, x: Tensor, outs: int) -> float:
    ins = x.shape[1]
    count = copies(outs * ins // 2, setting.device)
    products = []
    for _ in range(count):
        weight = (torch.randn(outs, ins, device=setting.device) * ins**-0.5).to(DTYPE)
        products.append(make(weight))
    wanted, found = F.linear(x, weight).float(), products[-1](x).float()
    off = float((found - wanted).norm() / wanted.norm())
    if not off < FARTHEST:
        raise RuntimeError(f"{name} is off by {off:.2f} of the product of {tuple(x.shape)} and {outs} outputs")
    with torch.no_grad():
        return seconds([lambda product=product: product(x) for product in products], setting.device)


def grouped(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Numbers 0 to 15 [N, K] int32, and [K / group, N, 2] of scale and what the number 8 stands for, here 0."""
    parts = weight.float().view(weight.shape[0], -1, group)
    scale = parts.abs().amax(-1, keepdim=True) / 7
    numbers = ((parts / scale).round() + 8).clamp(0, 15).to(torch.int32).view(weight.shape)
    both = torch.stack((scale[..., 0], torch.zeros_like(scale[..., 0])), dim=-1)
    return numbers, both.transpose(0, 1).to(DTYPE).contiguous()


def of_torch(weight: Tensor) -> Product:
    """torch's kernel for 4 bits (tinygemm)."""
    numbers, scales = grouped(weight, GROUP)
    bytes = (numbers[:, ::2] << 4 | numbers[:, 1::2]).to(torch.uint8)
    packed = torch._convert_weight_to_int4pack(bytes, 8)
    return lambda x: torch._weight_int4pack_mm(x, packed, GROUP, scales)


def of_torch_on_cpu(weight: Tensor) -> Product:
    """The same for processors, with what differs."""
    group = min(GROUP, weight.shape[1])
    numbers, scales = grouped(weight, group)
    packed = torch._convert_weight_to_int4pack_for_cpu(numbers, 1)
    return lambda x: torch._weight_int4pack_mm_for_cpu(x, packed, group, scales)


def of_bitsandbytes(weight: Tensor) -> Product:
    """nf4 of bitsandbytes, in blocks of 128."""
    library = importlib.import_module("bitsandbytes")
    packed, state = library.functional.quantize_4bit(weight, blocksize=GROUP, quant_type="nf4")
    return lambda x: library.matmul_4bit(x, packed.t(), quant_state=state)
