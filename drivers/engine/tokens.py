"""Prompts to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jinja2 import TemplateError

from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge

from ..contract import Prompt
from .loader import Bundle

RESERVED_OPTIONS = frozenset(
    ("conversation", "messages", "tools", "chat_template", "tokenize", "padding", "truncation", "max_length",
     "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs")
)  # fmt: skip
"""Arguments of `apply_chat_template` that a caller does not choose; every other option reaches the template."""


_MEDIA = {"image": "pictures", "audio": "sounds", "video": "videos"}

CHARACTERS_PER_TOKEN = 16
"""Text longer than this for each token of the context is refused unread: it would take seconds to find out as much."""


SHORTER = "shorten it, or load the model with a larger max_context if it has one"
"""What to try when a prompt does not fit."""


def prepare(bundle: Bundle, prompt: Prompt, continued: bool = False) -> list[int]:
    """The ids of a prompt.

    Text gets the tokenizer's default special tokens, but none when it is `continued` in a conversation. Ids are taken
    as they are. Messages go through the chat template. Raises BadArgument, NotSupported, and TooLarge for text that
    cannot fit.
    """
    if prompt.tensors is not None:
        why = "a language model takes text, token ids or messages"
        raise NotSupported(f"tensors are no input of {bundle.about.architecture}", why=why)
    if prompt.parts is not None:
        prompt = _one_text(bundle, prompt)
    if prompt.messages is not None:
        prompt = replace(prompt, messages=[_as_text(bundle, message) for message in prompt.messages])
    _check_length(bundle, prompt)
    if prompt.messages is not None:
        ids = _chat(bundle, prompt)
    elif prompt.ids is not None:
        ids = list(prompt.ids)
    else:
        ids = bundle.tokenizer(prompt.text or "", add_special_tokens=not continued, verbose=False)["input_ids"]
    _check_range(bundle, ids)
    return ids


def continuing(bundle: Bundle, prompt: Prompt, before: Sequence[int]) -> list[int]:
    """The ids of a prompt after the tokens of a conversation. Messages stand for the whole of it, from its start."""
    ids = prepare(bundle, prompt, continued=bool(before))
    return ids if prompt.messages is not None else [*before, *ids]


def truncated(bundle: Bundle, prompt: Prompt, most: int | None) -> tuple[list[int], bool]:
    """The ids of a prompt, cut to `most`, and whether that took something away. Text keeps its closing special tokens.

    Raises TooLarge when `most` is None and the model's context is exceeded.
    """
    limit = bundle.about.context
    cut = False
    if most is not None and prompt.text is not None:
        enough = min(most, limit) * CHARACTERS_PER_TOKEN
        cut, prompt = len(prompt.text) > enough, replace(prompt, text=prompt.text[:enough])
    ids = prepare(bundle, prompt)
    if most is None:
        if len(ids) > limit:
            raise TooLarge(
                f"the input has {len(ids)} tokens, the model takes {limit}; set max_tokens to truncate it",
                limit=limit, got=len(ids),
            )  # fmt: skip
        return ids, False
    most = min(most, limit)
    if len(ids) <= most:
        return ids, cut
    if prompt.text is not None:
        ids = bundle.tokenizer(prompt.text, truncation=True, max_length=most, verbose=False)["input_ids"]
    return ids[:most], True


def each_text(prompt: Prompt) -> list[Prompt]:
    """The prompts of several texts, one for each part; every other prompt is itself."""
    parts = [part for part in prompt.parts or () if isinstance(part, str)]
    whole = parts and len(parts) == len(prompt.parts or ())
    return [replace(prompt, text=part, parts=None) for part in parts] if whole else [prompt]


def _one_text(bundle: Bundle, prompt: Prompt) -> Prompt:
    name, parts = bundle.about.architecture, prompt.parts or ()
    strange = next((part for part in parts if not isinstance(part, str)), None)
    if strange is not None:
        what = _MEDIA.get(getattr(strange, "kind", ""), "tables")
        why = "a language model takes text, token ids or messages"
        raise NotSupported(f"{what} are no input of {name}: {why}", why=why)
    if len(parts) != 1:
        want = "one text, token ids or messages"
        said = f"{name} takes one text at a time, not {len(parts)}; ask for each by itself"
        raise BadArgument(said, name="input", got=f"{len(parts)} texts", want=want)
    return each_text(prompt)[0]


def _chat(bundle: Bundle, prompt: Prompt) -> list[int]:
    if not bundle.chat:
        said = f"{bundle.about.architecture} has no chat template; send text instead"
        raise BadArgument(said, name="input", got="chat", want="text")
    check_chat(prompt.messages or (), prompt.template_options)
    options: dict[str, Any] = {"add_generation_prompt": True, **prompt.template_options}
    messages = [dict(message) for message in prompt.messages or ()]
    tools = [dict(tool) for tool in prompt.tools] or None
    try:
        return list(
            bundle.tokenizer.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False, **options)
        )
    except (TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadArgument(
            f"the chat template refuses these messages: {error}", name="input", got=str(error)[:200],
            want="messages with role and content",
        ) from error  # fmt: skip


def _as_text(bundle: Bundle, message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose content is text: templates of language models would print a list of parts as it is."""
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return dict(message)
    texts = [part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    if len(texts) < len(content):
        why = "a language model takes messages of text"
        said = f"the content of a message has parts that {bundle.about.architecture} does not read"
        raise NotSupported(said, why=why)
    return {**message, "content": "\n".join(texts)}


def check_chat(messages: Sequence[Mapping[str, Any]], template_options: Mapping[str, Any]) -> None:
    """Raises BadArgument for a chat without messages or roles, and for options that are not the caller's to choose."""
    reserved = sorted(RESERVED_OPTIONS & template_options.keys())
    if reserved:
        raise BadArgument(
            f"the template option {reserved[0]} is not free to choose", name="template_options", got=reserved[0],
            want="options of the chat template",
        )  # fmt: skip
    if not messages or not all(isinstance(message.get("role"), str) for message in messages):
        want = "at least one message, each with a role"
        raise BadArgument(f"a chat is {want}", name="input", got="messages without", want=want)


def _check_length(bundle: Bundle, prompt: Prompt) -> None:
    messages = prompt.messages or ()
    length = len(prompt.text or "") + sum(len(str(value)) for message in messages for value in message.values())
    limit = bundle.about.context
    if length > limit * CHARACTERS_PER_TOKEN:
        got = length // CHARACTERS_PER_TOKEN
        said = f"the prompt has {length} characters, the model takes {limit} tokens; {SHORTER}"
        raise TooLarge(said, limit=limit, got=got)


def _check_range(bundle: Bundle, ids: Sequence[int]) -> None:
    if not ids:
        raise BadArgument("the prompt has no tokens", name="input", got="no tokens", want="at least one token")
    lowest, highest = min(ids), max(ids)
    if lowest < 0 or highest >= bundle.vocabulary:
        wrong = lowest if lowest < 0 else highest
        want = f"0 to {bundle.vocabulary - 1}"
        raise BadArgument(f"token {wrong} is not one of the model's: {want}", name="input", got=str(wrong), want=want)
