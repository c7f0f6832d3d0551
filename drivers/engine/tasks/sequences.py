"""Tasks of sequence classifiers: labels for a text or a pair, labels of one's own choice, scores of documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument

from ...contract import LabelScore, LabelsResult, Request, ScoresResult
from .base import BATCH_TOKENS, Job, Line, Outcome
from .labels import OPTIONS, LabelChooser, function_of, scored
from .options import Options
from .text import CUT, TextFront, most_tokens

TEMPLATE = "This example is {}."


class _Sequences:
    """One logit row for each line."""

    batch_tokens = BATCH_TOKENS

    def __init__(self, front: TextFront) -> None:
        self._front = front
        self._config = front.bundle.module.config

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[Tensor]:
        return list(self._front.forward(module, self._front.collate(lines)).logits.float().cpu())


class TextClassification(_Sequences):
    """Labels for a text, or for two parts read as a pair."""

    name: ClassVar[str] = "text-classification"
    options: ClassVar[Mapping[str, str]] = {**OPTIONS, **CUT}

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        chooser, most = LabelChooser(self._config, options), most_tokens(options)
        if request.prompt.ids is not None:
            _, encoded = self._front.one(request.prompt, most)
        else:
            text, *second = self._front.texts(request.prompt, "a text, or two parts to be read as a pair", most=2)
            encoded = self._front.encode(text, second[0] if second else None, most)
        truncated = (encoded.truncated,)
        return Job(
            [encoded.line], len(encoded.ids), lambda outputs: Outcome(chooser.choose(outputs[0]), truncated=truncated)
        )


class ZeroShotClassification(_Sequences):
    """Labels of the request's choice, by a model of natural language inference: does the text entail the label?

    Yin et al. 2019: each label makes a hypothesis; its score is the model's belief that the text entails it.
    """

    name: ClassVar[str] = "zero-shot-classification"
    options: ClassVar[Mapping[str, str]] = {
        "candidate_labels": "the labels to choose from; needed",
        "hypothesis_template": f"a sentence with {{}} where a label goes; {TEMPLATE!r} by default",
        "multi_label": "true when several labels may hold: each is then scored by itself",
        **CUT,
    }

    @staticmethod
    def entailment(config: Any) -> int | None:
        """The index of the label that means entailment, if the model has one."""
        found = (index for label, index in config.label2id.items() if label.lower().startswith("entail"))
        return next(found, None)

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        labels, most = options.texts("candidate_labels"), most_tokens(options)
        template = hypothesis(options, TEMPLATE)
        several = options.flag("multi_label", default=False) or len(labels) == 1
        (text,) = self._front.texts(request.prompt, "one text", most=1)
        made = [self._front.encode(text, template.replace("{}", label), most, cut="only_first") for label in labels]

        def answer(outputs: Sequence[Tensor]) -> Outcome:
            scores = self._scores(torch.stack(list(outputs)), several).tolist()
            ranked = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
            result = LabelsResult([LabelScore(label, score) for label, score in ranked])
            return Outcome(result, truncated=(any(each.truncated for each in made),))

        return Job([each.line for each in made], sum(len(each.ids) for each in made), answer)

    def _scores(self, logits: Tensor, several: bool) -> Tensor:
        """Of logits [labels, classes]: entailment against contradiction for each, or against each other."""
        entailment = self.entailment(self._config)
        assert entailment is not None
        if several:
            contradiction = -1 if entailment == 0 else 0
            return logits[:, [contradiction, entailment]].softmax(dim=-1)[:, 1]
        return logits[:, entailment].softmax(dim=-1)


class Reranking(_Sequences):
    """Scores of documents for a query, by a cross-encoder with one label. The first part is the query."""

    name: ClassVar[str] = "rerank"
    options: ClassVar[Mapping[str, str]] = {
        "function": "sigmoid or none; by default what the model was trained for",
        "max_tokens": "cut longer documents so that a pair has so many tokens; by default they are refused",
    }

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        most = most_tokens(options)
        function = options.choice("function", function_of(self._config, one_is_sigmoid=True), ("sigmoid", "none"))
        query, *documents = self._front.texts(request.prompt, "a query and at least one document", least=2)
        made = [self._front.encode(query, document, most, cut="only_second") for document in documents]

        def answer(outputs: Sequence[Tensor]) -> Outcome:
            scores = scored(torch.stack(list(outputs))[:, 0], function).tolist()
            return Outcome(ScoresResult(scores), truncated=tuple(each.truncated for each in made))

        return Job([each.line for each in made], sum(len(each.ids) for each in made), answer)


def hypothesis(options: Options, default: str) -> str:
    """The option `hypothesis_template`, which must have a place for the label. Raises BadArgument."""
    template = options.text("hypothesis_template", default)
    if "{}" not in template:
        want = "a sentence with {} where the label goes"
        raise BadArgument(
            f"hypothesis_template is {template[:80]!r}, expected {want}", name="hypothesis_template",
            got=template[:80], want=want,
        )  # fmt: skip
    return template
