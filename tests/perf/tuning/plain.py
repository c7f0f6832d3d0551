"""LoRA as PEFT and transformers.Trainer do it, in a process of its own: prints tokens per second and memory as JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import peft
import psutil
import torch
import transformers

from .work import LENGTH, TARGETS


class Watch(transformers.TrainerCallback):
    """Times from the end of the first step on, as the first one makes what all need."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def main(model: str, data: str, batch: int, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    module = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    loaded = psutil.Process().memory_info().rss
    settings = peft.LoraConfig(r=8, lora_alpha=16, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    rows = [json.loads(line)["text"] for line in (Path(data) / "rows.jsonl").read_text().splitlines()]
    ids = (tokenizer(text + tokenizer.eos_token, truncation=True, max_length=LENGTH).input_ids for text in rows)
    given = [{"input_ids": each} for each in ids]
    pad = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    seen: list[int] = []

    def collate(batch: list[dict[str, Any]]) -> Any:
        seen.append(sum(len(row["input_ids"]) for row in batch))
        return pad(batch)

    watch = Watch()
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=batch, learning_rate=2e-4,
        use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=10**6, seed=0,
    )  # fmt: skip
    transformers.Trainer(
        peft.get_peft_model(module, settings), arguments, train_dataset=given, data_collator=collate, callbacks=[watch]
    ).train()
    tokens, seconds = sum(seen[1 : len(watch.times)]), watch.times[-1] - watch.times[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tokens_per_s": tokens / seconds, "peak": peak, "loaded": loaded, "tokens": tokens}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
