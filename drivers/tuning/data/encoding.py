"""Checked rows to examples: every text is tokenized once, and what is learned from it is settled here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmos.syscalls.errors import BadArgument

from ..recipe import Recipe
from ..words import PROMPTS
from . import chat
from .base import Base
from .example import IGNORED, Example
from .labels import Labels
from .schema import Record
from .source import refused

Texts = Sequence[Mapping[str, Any]] | str


class Encoding:
    """Makes the examples of a row. One that is too long is refused, cut, dropped or split, as the recipe says."""

    def __init__(self, base: Base, recipe: Recipe, schema: str, labels: Labels, texts: bool = False) -> None:
        """
        Args:
            base: the tokenizer and the context.
            recipe: `max_length`, `long`, `train_on`.
            schema: of the rows.
            labels: of classes.
            texts: whether rows are whole files of text, which are split where the recipe does not say otherwise.

        Raises:
            BadArgument: `max_length` is more than the context; rows of this schema cannot be split.
            BadModel: the schema needs a chat template and there is none.
        """
        self._tokenizer, self._base, self._labels = base.tokenizer, base, labels
        self._everything = recipe.train_on == "all"
        self._ends = frozenset((base.tokenizer.eos_token_id, base.tokenizer.sep_token_id)) - {None}
        self._long = recipe.long or ("split" if texts and schema == "text" else "refuse")
        self._choices = 0
        """Of each row, once one is known."""
        self.counts: Counter[str] = Counter(dropped=0, cut=0, split=0)
        before = recipe.virtual_tokens if recipe.method in PROMPTS else 0
        room = base.context - before
        self.limit = recipe.max_length or max(1, room)
        if self.limit > room:
            want = f"at most {room}" if room > 0 else f"fewer virtual_tokens than {base.context}"
            said = f"max_length is {self.limit}, {base.name} takes {base.context} tokens"
            said += f", {before} of which are learned before each text" if before else ""
            raise BadArgument(f"{said}; it is {want}", name="max_length", got=str(self.limit), want=want)
        ways = {"text": ("cut", "drop", "split"), "answer": ("drop",), "tags": ("drop",)}.get(schema, ("cut", "drop"))
        self._ways = " or ".join((", ".join(ways[:-1]), ways[-1])) if len(ways) > 1 else ways[0]
        if self._long not in ("refuse", *ways):
            want = f"refuse, {self._ways}"
            said = f"rows of {schema} cannot be {self._long}; long is {want}"
            raise BadArgument(said, name="long", got=self._long, want=want)
        if schema == "messages":
            base.check_chat()
        if recipe.contrast == "triplet" and schema != "triple":
            want = "rows with a negative"
            said = f"contrast triplet needs {want} beside anchor and positive; without, take infonce"
            raise BadArgument(said, name="contrast", got="triplet", want=want)
        makers: Mapping[str, Callable[[Record, str], list[Example]]] = {
            "text": self._text, "completion": self._completion, "messages": self._messages, "label": self._row,
            "labels": self._row, "score": self._row, "tags": self._tags, "answer": self._answer,
            "triple": self._near_and_far, "pair": self._near_and_far, "preference": self._preference,
            "choice": self._choice,
        }  # fmt: skip
        otherwise = {"seq2seq": self._rewriting, "masked-lm": self._hidden}
        self._make = otherwise.get(recipe.objective, makers[schema])

    def __call__(self, record: Record, place: str, spare: bool = False) -> list[Example]:
        """The examples of one row, none longer than the limit; none at all when it was dropped.

        Args:
            record: the row.
            place: file and line, for errors.
            spare: it is a copy, which may be dropped where a row would be refused.

        Raises:
            BadArgument: with file and line, and what to try.
        """
        long = "drop" if spare and self._long == "refuse" else self._long
        fitting = [short for example in self._make(record, place) for short in self._fitted(example, place, long)]
        return [example for example in fitting if self._teaches(example)]

    def _teaches(self, example: Example) -> bool:
        """Whether anything is left to learn: a cut may have taken the whole answer, of a pair of them either one."""
        read = (example,) if example.aligned and example.others else ()  # a text that is only read teaches by the other
        if all(each.whole or each.learned for each in (example, *example.others) if each not in read):
            return True
        self.counts["dropped"] += 1
        return False

    def _fitted(self, example: Example, place: str, long: str) -> list[Example]:
        longest = max(len(example), *(len(other) for other in example.others), 0)
        if longest <= self.limit:
            return [example]
        if long == "refuse":
            want = f"shorten it, raise max_length, or set the option long to {self._ways}"
            raise refused(place, f"{longest} tokens, at most {self.limit} fit", want)
        if long == "drop":
            self.counts["dropped"] += 1
            return []
        if long == "cut":
            self.counts["cut"] += 1
            return [self._cut(example)]
        self.counts["split"] += 1
        return [_part(example, range(len(example))[n : n + self.limit]) for n in range(0, len(example), self.limit)]

    def _cut(self, example: Example) -> Example:
        """The first tokens; what the tokenizer puts at the end stays there, where a text does not go on behind it."""
        others, last = tuple(map(self._cut, example.others)), len(example) - 1
        if last < self.limit:
            return replace(example, others=others)
        closed = (example.whole or example.aligned) and example.tokens[last] in self._ends
        kept = [*range(self.limit - 1), last] if closed else range(self.limit)
        return replace(_part(example, kept), others=others)

    def _text(self, record: Record, place: str) -> list[Example]:
        return [self._ended(chat.spanned(self._tokenizer, record["text"], None, special=True))]

    def _hidden(self, record: Record, place: str) -> list[Example]:
        """Every token may be hidden and is learned by itself, but for those that the tokenizer puts around a text."""
        made = self._tokenizer(record["text"], return_special_tokens_mask=True, verbose=False)
        pairs = zip(made["input_ids"], made["special_tokens_mask"], strict=True)
        return [Example(made["input_ids"], [IGNORED if special else id for id, special in pairs], aligned=True)]

    def _completion(self, record: Record, place: str) -> list[Example]:
        return [self._said(record["prompt"], record["completion"])]

    def _said(self, prompt: str, answer: str) -> Example:
        """A prompt as it is sent when the model serves, what it is to answer, and the end."""
        spans = None if self._everything else [(len(prompt), len(prompt) + len(answer))]
        return self._ended(chat.spanned(self._tokenizer, prompt + answer, spans, special=True))

    def _messages(self, record: Record, place: str) -> list[Example]:
        return chat.encode(self._tokenizer, record["messages"], place, record.get("tools"), self._everything)

    def _rewriting(self, record: Record, place: str) -> list[Example]:
        """Two texts: the second is what the decoder learns."""
        given = self._tokenizer(record["prompt"], verbose=False)["input_ids"]
        told = self._tokenizer(text_target=record["completion"], verbose=False)["input_ids"]
        answer = Example(told, told, aligned=True)
        return [Example(given, [IGNORED] * len(given), others=(answer,), aligned=True)]

    def _row(self, record: Record, place: str) -> list[Example]:
        """One or two texts and what is said of them."""
        made = self._tokenizer(record["text"], record.get("text_pair"), return_token_type_ids=True, verbose=False)
        kinds = made["token_type_ids"] if "text_pair" in record else ()
        return [Example(made["input_ids"], self._labels.of_row(record, place), whole=True, kinds=kinds)]

    def _tags(self, record: Record, place: str) -> list[Example]:
        """The first token of each word has the word's tag."""
        made = self._tokenizer(record["tokens"], is_split_into_words=True, verbose=False)
        tags = [self._labels.number(tag, place) for tag in record["tags"]]
        words = made.word_ids()
        labels = [
            IGNORED if word is None or (place_ and words[place_ - 1] == word) else tags[word]
            for place_, word in enumerate(words)
        ]
        return [Example(made["input_ids"], labels, aligned=True)]

    def _answer(self, record: Record, place: str) -> list[Example]:
        """The first and the last token of the answer in question and context."""
        context, answers = record["context"], record["answers"]
        if isinstance(answers, str):
            text, start = answers, context.find(answers)
        else:
            text, start = answers["text"][0], answers["answer_start"][0]
        if start < 0 or context[start : start + len(text)] != text:
            raise refused(place, "the answer does not stand in the context where it should", "mend answer_start", text)
        made = self._tokenizer(record["question"], context, return_offsets_mapping=True, verbose=False)
        inside = [
            n for n, (of, (begin, end)) in enumerate(zip(made.sequence_ids(), made["offset_mapping"], strict=True))
            if of == 1 and begin < start + len(text) and end > start
        ]  # fmt: skip
        if not inside:
            raise refused(place, "the answer has no token of its own", "give a longer one", text)
        kinds = made.get("token_type_ids", ())
        return [Example(made["input_ids"], (inside[0], inside[-1]), whole=True, kinds=kinds)]

    def _near_and_far(self, record: Record, place: str) -> list[Example]:
        names = [name for name in ("anchor", "positive", "negative") if name in record]
        made = [Example(self._tokenizer(record[name], verbose=False)["input_ids"], (0,), whole=True) for name in names]
        return [replace(made[0], others=tuple(made[1:]))]

    def _preference(self, record: Record, place: str) -> list[Example]:
        both = [self._preferred(record.get("prompt"), record[name], place) for name in ("chosen", "rejected")]
        return [replace(both[0], others=(both[1],))]

    def _choice(self, record: Record, place: str) -> list[Example]:
        """The right answer first."""
        choices, answer = record["choices"], record["answer"]
        right = choices.index(answer) if answer in choices else answer
        if not isinstance(right, int) or not 0 <= right < len(choices):
            want = f"one of the choices, or its number from 0 to {len(choices) - 1}"
            raise refused(place, "the answer is none of the choices", f"make it {want}", answer)
        self._choices = self._choices or len(choices)
        if len(choices) != self._choices:
            want = "give each row as many"
            raise refused(place, f"{len(choices)} choices, the rows before have {self._choices}", want)
        made = [self._said(record["prompt"], each) for each in choices]
        return [replace(made[right], others=(*made[:right], *made[right + 1 :]))]

    def _preferred(self, prompt: Texts | None, answer: Texts, place: str) -> Example:
        if isinstance(answer, str) and (prompt is None or isinstance(prompt, str)):
            return self._said(prompt or "", answer)
        self._base.check_chat()
        before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt or ())
        said = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else list(answer)
        # of several answers the last is the one that is judged
        return chat.encode(self._tokenizer, [*before, *said], place)[-1]

    def _ended(self, example: Example) -> Example:
        """With the token that ends a text, learned too, where the model has one."""
        end = self._tokenizer.eos_token_id
        if end is None or (example.tokens and example.tokens[-1] == end):
            return example
        return Example([*example.tokens, end], [*example.labels, end])


def _part(example: Example, places: Sequence[int]) -> Example:
    """Some tokens of an example."""
    labels = example.labels if example.whole else [example.labels[place] for place in places]
    kinds = [example.kinds[place] for place in places] if example.kinds else ()
    return replace(example, tokens=[example.tokens[place] for place in places], labels=labels, kinds=kinds)
