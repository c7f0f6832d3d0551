"""Measure a trained model: `python evaluate.py MODEL_FOLDER [--count 1000] [--out metrics.json] [--failures]`.

Commands: exact match on four held-out sets (phrasings of seen templates, unseen templates, each with seen and with
unseen names) and refusals of requests no command can meet. Docstrings: perplexity per token on held-out docstrings,
beside a unigram and a bigram model of the same training tokens. Confidence: the threshold below which an answer is
better refused, and what it costs.
"""

import argparse
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from answer import Answer, answers
from corpus import UNKNOWN, Corpus, Example, docstrings
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

SETS = {
    "phrasings": ("phrasings", False),
    "names": ("train", True),
    "phrasings_and_names": ("phrasings", True),
    "templates": ("templates", False),
    "templates_and_names": ("templates", True),
}
DISCOUNT = 0.75  # of the bigram baseline: absolute discounting, interpolated with the unigram model
WANTED_PRECISION = 0.92
LEVELS = (0.0, 0.3, 0.5, 0.7, 0.9)  # confidence thresholds whose consequences are reported


@dataclass(frozen=True, slots=True)
class Judged:
    """One request with its right answer and the model's."""

    example: Example
    answer: Answer

    @property
    def right(self) -> bool:
        """Whether the answer is the right command, character for character."""
        return self.answer.text == self.example.command


def judge(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, corpus: Corpus, count: int, in_scope: bool
) -> list[Judged]:
    """`count` requests of the corpus that have a command (or have none), answered."""
    examples: list[Example] = []
    while len(examples) < count:
        example = corpus.example()
        if (example.command != UNKNOWN) is in_scope:
            examples.append(example)
    given = answers(model, tokenizer, [example.request for example in examples])
    return [Judged(example, answer) for example, answer in zip(examples, given, strict=True)]


def share(judged: list[Judged]) -> float:
    """The part that is right."""
    return round(sum(one.right for one in judged) / len(judged), 4)


def threshold_of(judged: list[Judged]) -> dict[str, float]:
    """The lowest confidence at which the accepted commands are right as often as wanted."""
    proposed = sorted(
        (one for one in judged if one.answer.text != UNKNOWN), key=lambda one: one.answer.confidence, reverse=True
    )
    best, right = (1.0, 0, 0), 0
    for place, one in enumerate(proposed, 1):
        right += one.right
        if right / place >= WANTED_PRECISION:
            best = (one.answer.confidence, place, right)
    threshold = math.ceil(best[0] * 100) / 100
    return {"threshold": threshold, **at_threshold(judged, threshold)}


def at_threshold(judged: list[Judged], threshold: float) -> dict[str, float]:
    """What a user sees when answers below the threshold are refused."""
    accepted = [one for one in judged if one.answer.text != UNKNOWN and one.answer.confidence >= threshold]
    answerable = [one for one in judged if one.example.command != UNKNOWN]
    outside = [one for one in judged if one.example.command == UNKNOWN]
    return {
        "precision": round(sum(one.right for one in accepted) / max(1, len(accepted)), 4),
        "answered_right": round(sum(one.right for one in accepted) / max(1, len(answerable)), 4),
        "answered_wrong": round(sum(not one.right for one in accepted) / len(judged), 4),
        "out_of_scope_refused": round(1 - sum(one in accepted for one in outside) / max(1, len(outside)), 4),
    }


@torch.inference_mode()
def perplexities(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Perplexity per token of the held-out docstrings, the end token included: model, unigram, bigram."""
    limit, end = model.config.max_position_embeddings, tokenizer.eos_token_id
    train = [[*ids, end] for ids in tokenizer(docstrings(held_out=False)).input_ids]
    held_out = [[*ids, end][: limit - 1] for ids in tokenizer(docstrings(held_out=True)).input_ids]
    total = sum(map(len, held_out))
    loss = 0.0
    for ids in held_out:
        row = torch.tensor([[end, *ids]])
        logits = model(input_ids=row[:, :-1]).logits.float()
        loss += float(torch.nn.functional.cross_entropy(logits[0], row[0, 1:], reduction="sum"))
    unigram, bigram = _baselines(train, held_out, len(tokenizer), end)
    values = {"model": loss, "unigram": unigram, "bigram": bigram}
    return {name: round(math.exp(value / total), 2) for name, value in values.items()} | {"tokens": total}


def _baselines(train: list[list[int]], held_out: list[list[int]], size: int, end: int) -> tuple[float, float]:
    """Total negative log-likelihoods of an add-one unigram and an interpolated bigram model."""
    ones: Counter[int] = Counter()
    pairs: Counter[tuple[int, int]] = Counter()
    for ids in train:
        ones.update(ids)
        pairs.update(zip([end, *ids[:-1]], ids, strict=True))
    firsts: Counter[int] = Counter()
    followers: Counter[int] = Counter()
    for (first, _), count in pairs.items():
        firsts[first] += count
        followers[first] += 1
    every = sum(ones.values()) + size
    unigram = bigram = 0.0
    for ids in held_out:
        for first, second in zip([end, *ids[:-1]], ids, strict=True):
            single = (ones[second] + 1) / every
            seen = firsts[first]
            both = max(pairs[first, second] - DISCOUNT, 0.0) / seen if seen else 0.0
            left = DISCOUNT * followers[first] / seen if seen else 1.0
            unigram -= math.log(single)
            bigram -= math.log(both + left * single)
    return unigram, bigram


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, count: int
) -> tuple[dict[str, object], list[Judged]]:
    """All measurements, and every judged answer."""
    docs = docstrings(held_out=False)
    metrics: dict[str, object] = {}
    everything: list[Judged] = []
    for place, (name, (wording, held_out_names)) in enumerate(SETS.items()):
        judged = judge(model, tokenizer, Corpus(docs, 500 + place, wording, held_out_names), count, in_scope=True)
        metrics[f"exact_match_{name}"] = share(judged)
        everything += judged
    outside = judge(model, tokenizer, Corpus(docs, 600, "templates", held_out_names=True), count // 2, in_scope=False)
    metrics["refused_templates"] = share(outside)
    choosing, reporting = everything[::2] + outside[::2], everything[1::2] + outside[1::2]
    chosen = threshold_of(choosing)
    metrics["confidence"] = {
        "measure": "product of the token probabilities of a greedy answer, its end token included",
        "threshold": chosen["threshold"],
        **at_threshold(reporting, chosen["threshold"]),
        "at": {str(level): at_threshold(reporting, level) for level in LEVELS},
    }
    metrics["docstring_perplexity"] = perplexities(model, tokenizer)
    metrics["requests_per_set"] = count
    return metrics, [*everything, *outside]


def main() -> None:
    """Measure, print and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--failures", action="store_true", help="print the wrong answers")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    metrics, judged = evaluate(model, tokenizer, options.count)
    text = json.dumps(metrics, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    if options.failures:
        for one in judged:
            if not one.right:
                print(f"{one.answer.confidence:.2f}  {one.example.request}\n      right: {one.example.command}")
                print(f"      given: {one.answer.text}")


if __name__ == "__main__":
    main()
