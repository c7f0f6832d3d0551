"""The peers of the first-token bench: a model in one process, no operating system around it.

`transformers` is the model called directly; `engine` is our own device, driven by hand. For each line on standard
input, prints the seconds of so many prefills with the choice of one token. No prompt is like another, so that none is
known already.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


def transformers(folder: Path) -> Callable[[list[int]], None]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()

    def first(prompt: list[int]) -> None:
        with torch.inference_mode():
            model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()

    return first


def engine(folder: Path) -> Callable[[list[int]], None]:
    from .ours import MODEL, silent, source

    from llmos.drivers.contract import DoneEvent, LoadSettings, Prompt, Request, SamplingParams
    from llmos.drivers.devices.cpu import CpuDevice

    device = CpuDevice()
    device.start("cpu0", 1, {})
    device.load(MODEL, source(folder), LoadSettings(), silent)

    def first(prompt: list[int]) -> None:
        sampling = SamplingParams(max_tokens=1, temperature=0.0)
        device.submit(Request("r", MODEL, Prompt(ids=prompt), sampling=sampling, stream=True))
        while not any(isinstance(event, DoneEvent) for event in device.step()):
            pass

    return first


def main(kind: str, folder: str, prompt: list[int], count: int) -> None:
    torch.set_num_threads(1)
    first = {"transformers": transformers, "engine": engine}[kind](Path(folder))
    for start, _ in enumerate(sys.stdin):
        seconds = []
        for number in range(start * count, (start + 1) * count):
            began = time.perf_counter()
            first([number, *prompt])
            seconds.append(time.perf_counter() - began)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]))
