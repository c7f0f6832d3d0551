"""Conversations to tokens, with what the model itself said marked.

Where the chat template marks it (`{% generation %}`), by that. Else by the difference of prefixes: what rendering the
messages through an answer adds to rendering those before it, with the prompt for an answer at the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from .example import IGNORED, Example
from .schema import ANSWERS
from .source import refused

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_REFUSALS = (TemplateError, ValueError, TypeError, KeyError, AttributeError)

Messages = Sequence[Mapping[str, Any]]


def encode(tokenizer: Any, messages: Messages, place: str, tools: Any = None, everything: bool = False,
           ) -> list[Example]:  # fmt: skip
    """A conversation as one example; as one for each answer, where the template renders earlier ones otherwise.

    Args:
        tokenizer: with a chat template.
        messages: with an answer.
        place: file and line, for errors.
        tools: offered in the conversation.
        everything: learn from all tokens, not of answers alone.

    Raises:
        BadArgument: the template refuses the messages.
    """
    chat = _Chat(tokenizer, [_as_text(message) for message in messages], tools or None, place)
    if everything:
        return [spanned(tokenizer, chat.rendered(len(messages)), None)]
    if _MARKED.search(str(tokenizer.chat_template)):
        return [chat.marked()]
    return chat.by_prefixes()


def spanned(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]] | None, special: bool = False) -> Example:
    """A text as an example that learns the tokens that reach into spans of characters, or all.

    `special`: with the tokenizer's own special tokens around it.
    """
    made = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    ids, offsets = made["input_ids"], made["offset_mapping"]
    if spans is None:
        return Example(ids, ids)
    labels = [
        id if any(begin < last and end > first for first, last in spans) else IGNORED
        for id, (begin, end) in zip(ids, offsets, strict=True)
    ]
    return Example(ids, labels)


class _Chat:
    def __init__(self, tokenizer: Any, messages: list[dict[str, Any]], tools: Any, place: str) -> None:
        self._tokenizer, self._messages, self._tools, self._place = tokenizer, messages, tools, place

    def rendered(self, count: int, asking: bool = False) -> str:
        """The first messages as text; `asking` with the prompt for an answer."""
        given = self._messages[:count]
        return str(self._templated(given, tokenize=False, add_generation_prompt=asking)) if given else ""

    def marked(self) -> Example:
        made = self._templated(self._messages, return_dict=True, return_assistant_tokens_mask=True)
        ids, answers = made["input_ids"], made["assistant_masks"]
        if not any(answers):
            raise refused(self._place, "the chat template marks no answer", "set the option train_on to all")
        return Example(ids, [id if own else IGNORED for id, own in zip(ids, answers, strict=True)])

    def by_prefixes(self) -> list[Example]:
        answers = [n for n, message in enumerate(self._messages) if message["role"] == ANSWERS]
        whole = self.rendered(len(self._messages))
        found = [self._span(number) for number in answers]
        if all(whole.startswith(text) for _, _, text in found):
            return [spanned(self._tokenizer, whole, [(first, last) for first, last, _ in found])]
        return [spanned(self._tokenizer, text, [(first, last)]) for first, last, text in found]

    def _span(self, number: int) -> tuple[int, int, str]:
        """Where an answer begins and ends in the text that ends with it, and that text."""
        text, before = self.rendered(number + 1), self.rendered(number)
        if text.startswith(before) and len(before) < len(text):
            first = max(len(before), self._asked(number, text))
            return min(first, len(text) - 1), len(text), text
        why = "the chat template renders what comes before an answer otherwise once the answer is there"
        raise refused(self._place, why, "give the template generation markers, or set the option train_on to all")

    def _asked(self, number: int, text: str) -> int:
        """How much of the text that ends with an answer asks for it."""
        if number:  # a prompt may open a thought that this answer does not have
            return _alike(self.rendered(number, asking=True), text)
        prompt = self.rendered(1, asking=True)[len(text) :]  # templates need a message before the prompt
        return text.find(prompt) + len(prompt) if prompt in text else 0

    def _templated(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        try:
            return self._tokenizer.apply_chat_template(messages, tools=self._tools, **options)
        except _REFUSALS as error:
            want = "mend the messages: their roles and their order"
            raise refused(self._place, f"the chat template refuses these messages: {error}", want) from error


def _alike(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(first), len(second)))


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    """A list of parts as one text: templates of language models would print the list."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": "\n".join(part["text"] for part in content)}
    return dict(message)
