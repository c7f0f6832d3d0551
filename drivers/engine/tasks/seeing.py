"""Pictures and text to text, by a vision-language model through its processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge

from ...contract import MediaPart, Prompt, Request
from .. import media, tokens
from ..loader import FAILURES, Bundle
from .options import Options
from .rewriting import WRITING, generation_settings
from .text import TRIALS, close
from .writing import Draft, Ending

NAME = "image-text-to-text"
PLACE = "<image>"
"""Where a picture stands in a text, when the processor does not say."""

PROBE = "fox"
"""A message that tells whether a template writes a text, or only lists of items."""

REFUSALS = (ValueError, TypeError, IndexError, KeyError, AttributeError)
"""What a processor raises for pictures and texts that do not fit each other."""


class Seeing:
    """Pictures and texts in their order, or a chat with pictures, and what the model says to them.

    Parts become one message of a chat where the model has a chat template; without one, a picture stands in the text
    where its part does.
    """

    tasks: Mapping[str, Mapping[str, str]] = {
        NAME: {
            "chat": "false to give the parts to the model as they are; by default they are a message, if it has chats",
            **{name: what for name, what in WRITING.items() if name != "max_tokens"},
        }
    }
    chooses = True

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._processor = bundle, bundle.processor
        self._template = getattr(bundle.processor, "chat_template", None) or bundle.tokenizer.chat_template
        self._lists = bool(self._template) and not self._writes_texts()
        self._both = bool(getattr(bundle.module.config, "is_encoder_decoder", False))
        self._pads = False

    def settle(self, module: Any) -> None:
        """Find out whether prompts of different lengths may be padded at the left, with a token of each of two."""
        if self._bundle.tokenizer.pad_token_id is None:
            return
        try:
            made = [self._processed(text, ()) for text in TRIALS]
            alone = [_first_logits(module, each) for each in made]
            both = _first_logits(module, self._stacked(made))
        except (*FAILURES, BadArgument):
            return  # it needs a picture: prompts of one length only share a flight
        self._pads = close(both, torch.cat(alone))

    def prepare(self, request: Request) -> Draft:
        options = Options(request.task, self.tasks[NAME], request.options)
        settings, chat = generation_settings(options), options.flag("chat", default=bool(self._template))
        made = self._read(request.prompt, chat)
        ids: list[int] = made["input_ids"][0].tolist() if "input_ids" in made else []
        limit = self._bundle.about.context
        if len(ids) >= limit:
            said = f"the prompt has {len(ids)} tokens with its pictures, the model takes {limit}"
            raise TooLarge(said, limit=limit, got=len(ids))
        room = min(request.sampling.max_tokens, limit - (1 if self._both else len(ids)))
        shapes = tuple((name, value.shape[1:]) for name, value in made.items() if not self._textual(name, made))
        group = (shapes, None if self._pads else len(ids))
        return Draft(request, made, max(1, len(ids)), len(ids), room, () if self._both else ids, group, settings)

    def inputs(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        return self._stacked([draft.content for draft in drafts])

    def endings(self, drafts: Sequence[Draft], made: Any) -> Sequence[Ending]:
        raise AssertionError("tokens are chosen one by one")

    def _read(self, prompt: Prompt, chat: bool) -> dict[str, Tensor]:
        if prompt.tensors is not None:
            why = "it takes text, pictures, token ids or a chat"
            raise NotSupported(f"tensors are no input of {self._bundle.about.architecture}: {why}", why=why)
        if prompt.ids is not None or (prompt.messages is None and prompt.parts is None):
            ids = torch.tensor([tokens.prepare(self._bundle, prompt)])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if prompt.messages is not None:
            messages, pictures = _with_pictures(prompt.messages)
            return self._processed(self._templated(messages, prompt), pictures)
        texts, pictures = self._parts(prompt)
        if chat:
            content = [{"type": "text", "text": text} if isinstance(text, str) else {"type": "image"} for text in texts]
            return self._processed(self._templated([{"role": "user", "content": content}], prompt), pictures)
        place = str(getattr(self._processor, "image_token", None) or PLACE)
        placed = any(isinstance(text, str) and place in text for text in texts)
        plain = [text if isinstance(text, str) else "" if placed else place for text in texts]
        return self._processed("".join(plain), pictures)

    def _parts(self, prompt: Prompt) -> tuple[list[str | None], list[Any]]:
        """The texts of the parts in order, None where a picture stands, and the pictures."""
        parts = prompt.parts or ()
        pictures = [part for part in parts if isinstance(part, MediaPart) and part.kind == "image"]
        want = "pictures and texts"
        if not parts or len(pictures) + sum(isinstance(part, str) for part in parts) < len(parts):
            raise BadArgument(f"the input must be {want}", name="input", got=media.kinds_of(parts), want=want)
        return [part if isinstance(part, str) else None for part in parts], [media.picture(p.data) for p in pictures]

    def _templated(self, messages: Sequence[Mapping[str, Any]], prompt: Prompt) -> str:
        if not self._template:
            said = f"{self._bundle.about.architecture} has no chat template; send parts instead"
            raise BadArgument(said, name="input", got="chat", want="parts")
        tokens.check_chat(messages, prompt.template_options)
        if self._lists:
            messages = [_listed(message) for message in messages]
        options = {"add_generation_prompt": True, **prompt.template_options}
        tools = [dict(tool) for tool in prompt.tools] or None
        try:
            return str(
                self._processor.apply_chat_template(
                    list(messages), chat_template=self._template, tools=tools, tokenize=False, **options
                )
            )
        except (TemplateError, *REFUSALS) as error:
            said, want = f"the chat template refuses these messages: {error}", "messages with role and content"
            raise BadArgument(said, name="input", got=str(error)[:200], want=want) from error

    def _writes_texts(self) -> bool:
        """Whether the template writes a message whose content is a text: many skip it, and take lists only."""
        message = {"role": "user", "content": PROBE}
        try:
            made = self._processor.apply_chat_template([message], chat_template=self._template, tokenize=False)
        except (TemplateError, *REFUSALS):
            return False
        return PROBE in str(made)

    def _processed(self, text: str, pictures: Sequence[Any]) -> dict[str, Tensor]:
        """What the model reads. Raises BadArgument for pictures and text that do not fit each other."""
        given = {"images": list(pictures)} if pictures else {}
        try:
            made = self._processor(**given, **({"text": text} if text else {}), return_tensors="pt")
        except REFUSALS as error:
            said = f"the pictures and the text do not fit each other: {str(error).partition(chr(10))[0][:200]}"
            raise BadArgument(said, name="input", got=f"{len(pictures)} pictures", want="one place for each") from error
        dtype = self._bundle.about.dtype
        tensors = {name: value for name, value in made.items() if isinstance(value, Tensor)}
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}

    def _stacked(self, made: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Some inputs as one batch: texts padded at the left, pictures one after the other."""
        if len(made) == 1:
            return made[0]
        size = max(each["input_ids"].shape[1] for each in made)
        batch = {}
        for name in made[0]:
            if self._textual(name, made[0]):
                filler = self._bundle.tokenizer.pad_token_id if name == "input_ids" else 0
                every = [each[name] for each in made]
                rows = [torch.nn.functional.pad(one, (size - one.shape[1], 0), value=filler) for one in every]
            else:
                rows = [each[name] for each in made]
            batch[name] = torch.cat(rows)
        return batch

    def _textual(self, name: str, made: Mapping[str, Tensor]) -> bool:
        """Whether there is a number for each token."""
        return "input_ids" in made and made[name].shape == made["input_ids"].shape


def _with_pictures(messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Messages as templates take them, and the pictures in them: items of `type` image with their bytes as `data`."""
    pictures, told = [], []
    for message in messages:
        content = message.get("content")
        items = []
        for item in content if isinstance(content, list) else ():
            if not isinstance(item, Mapping):
                want = "a map with its type"
                raise BadArgument(f"an item of a message is {want}", name="input", got=repr(item)[:80], want=want)
            if item.get("type") == "image":
                data = item.get("data")
                if not isinstance(data, bytes):
                    got, want = repr(data)[:80], "its bytes as data"
                    raise BadArgument(f"a picture in a message needs {want}", name="input", got=got, want=want)
                pictures.append(media.picture(memoryview(data)))
                items.append({"type": "image"})
            elif isinstance(item.get("text"), str):
                items.append(dict(item))
            else:
                got, want = str(item.get("type"))[:80], "pictures and texts"
                raise BadArgument(f"an item of a message is {got}, expected {want}", name="input", got=got, want=want)
        told.append({**message, "content": items} if isinstance(content, list) else dict(message))
    return told, pictures


def _listed(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else dict(message)


def _first_logits(module: Any, given: Mapping[str, Tensor]) -> Tensor:
    """The logits of the first new token [prompts, vocabulary]."""
    placed = {name: value.to(module.device) for name, value in given.items()}
    made = module.generate(
        **placed, max_new_tokens=1, do_sample=False, num_beams=1, return_dict_in_generate=True, output_logits=True
    )
    logits: Tensor = made.logits[0].cpu()
    return logits
