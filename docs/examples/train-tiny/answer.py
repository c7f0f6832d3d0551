"""Greedy answers of a model to many requests at once, each with the model's own confidence."""

from dataclasses import dataclass

import torch
from tokenizer import prompt_of
from transformers import PreTrainedModel, PreTrainedTokenizerFast

LONGEST = 96  # tokens of a command


@dataclass(frozen=True, slots=True)
class Answer:
    """The command and its probability: the product over its tokens, the end token included."""

    text: str
    confidence: float


@torch.inference_mode()
def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, requests: list[str], batch: int = 64
) -> list[Answer]:
    """One answer per request, in their order."""
    prompts = [tokenizer(prompt_of(request)).input_ids for request in requests]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        results = _greedy(model, tokenizer, [prompts[index] for index in chosen])
        found.update(zip(chosen, results, strict=True))
    return [found[index] for index in range(len(requests))]


def _greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]]) -> list[Answer]:
    width = max(map(len, prompts))
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=LONGEST, do_sample=False, pad_token_id=pad,
        eos_token_id=end, output_logits=True, return_dict_in_generate=True,
    )
    new = out.sequences[:, width:]
    logs = torch.stack(
        [
            logits.float().log_softmax(-1).gather(1, new[:, at : at + 1]).squeeze(1)
            for at, logits in enumerate(out.logits)
        ],
        dim=1,
    )
    before_end = (new == end).cumsum(1) - (new == end).long() == 0
    confidence = (logs * before_end).sum(1).exp()
    return [
        Answer(tokenizer.decode(row[row != pad], skip_special_tokens=True), float(value))
        for row, value in zip(new, confidence, strict=True)
    ]
