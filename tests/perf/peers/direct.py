"""The peer of the first-token bench: transformers in one process, no operating system around it.

For each line on standard input, prints the seconds of so many prefills with the choice of one token.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM


def main(folder: str, prompt: list[int], count: int) -> None:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        for _ in sys.stdin:
            seconds = []
            for _ in range(count):
                began = time.perf_counter()
                model(ids, use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()
                seconds.append(time.perf_counter() - began)
            print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
