"""What the device can do at most: copies, reads, products, and copies to and from the host."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .clock import host_seconds, seconds
from .setting import Found, Setting


def run(setting: Setting) -> Iterator[Found]:
    device, size = setting.device, setting.pick(1 << 30, 1 << 20)
    a = torch.empty(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    words = a.view(torch.float32)
    words.fill_(1.0)
    found: Found = {
        "copy_bytes_per_s": 2 * size / seconds([lambda: b.copy_(a)], device),
        "read_bytes_per_s": size / seconds([lambda: words.sum()], device),
    }
    products: dict[str, float] = {}
    for n in (4096, 8192) if not setting.tiny else (64,):
        x, w = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
        products[str(n)] = 2 * n**3 / seconds([lambda x=x, w=w: x @ w], device)
    found["product_flops"] = products
    host = torch.empty(setting.pick(1 << 28, 1 << 18), dtype=torch.uint8, pin_memory=device == "cuda")
    there = host.to(device)
    found["to_device_bytes_per_s"] = host.nbytes / host_seconds(lambda: there.copy_(host, non_blocking=True), device)
    found["to_host_bytes_per_s"] = host.nbytes / host_seconds(lambda: host.copy_(there, non_blocking=True), device)
    yield found
