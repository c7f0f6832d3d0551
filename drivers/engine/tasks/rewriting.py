"""Text to text by an encoder-decoder: summaries, translations, and whatever such a model was trained for."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmos.syscalls.errors import BadArgument

from ...contract import Prompt, Request
from .options import Options
from .text import CUT, Encoded, TextFront, most_tokens
from .writing import Draft, Ending

WRITING: Mapping[str, str] = {
    "min_new_tokens": "the answer has at least so many tokens",
    "no_repeat_ngram_size": "no run of so many tokens comes twice",
    "length_penalty": "with beams: above 0 for longer answers, below for shorter ones",
    **CUT,
}
LANGUAGES: Mapping[str, str] = {
    "source_language": "the language of the text, as the tokenizer names it, for models of several",
    "target_language": "the language to translate into, for models of several",
}


class Rewriting:
    """One text in, one text out. The options are settings of the generation that `Sampling` does not have."""

    tasks: Mapping[str, Mapping[str, str]] = {
        "text2text-generation": WRITING, "summarization": WRITING, "translation": {**LANGUAGES, **WRITING},
    }  # fmt: skip
    chooses = True

    def __init__(self, front: TextFront) -> None:
        self._front = front
        self._accepted = inspect.signature(front.bundle.module.forward).parameters

    def prepare(self, request: Request) -> Draft:
        options = Options(request.task, self.tasks[request.task], request.options)
        settings, most = generation_settings(options), most_tokens(options)
        source, target = options.text("source_language", ""), options.text("target_language", "")
        prefix = self._prefix(request.task, source, target)
        if target and not prefix:
            settings["forced_bos_token_id"] = self._language(target, "target_language")
        with self._speaking("" if prefix else source):
            encoded = self._encoded(request.prompt, prefix, most)
        line = encoded.line
        room = min(request.sampling.max_tokens, self._front.limit - 1)
        return Draft(request, line, line.length, len(encoded.ids), room, (), line.shape, settings)

    def _encoded(self, prompt: Prompt, prefix: str, most: int | None) -> Encoded:
        if not prefix or prompt.ids is not None:
            return self._front.one(prompt, most)[1]
        (text,) = self._front.texts(prompt, "one text or token ids", most=1)
        return self._front.encode(prefix + text, most=most)

    def _prefix(self, task: str, source: str, target: str) -> str:
        """What the model was trained to find before a text of this task, as its configuration tells (T5)."""
        known = getattr(self._front.bundle.module.config, "task_specific_params", None) or {}
        name = f"translation_{source}_to_{target}" if task == "translation" else task
        found = known.get(name) or {}
        return str(found.get("prefix") or "")

    def inputs(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        batch = self._front.collate([draft.content for draft in drafts])
        return {name: value for name, value in batch.items() if name in self._accepted}

    def endings(self, drafts: Sequence[Draft], made: Any) -> Sequence[Ending]:
        raise AssertionError("tokens are chosen one by one")

    @contextlib.contextmanager
    def _speaking(self, language: str) -> Iterator[None]:
        """While texts are marked with a language. Raises BadArgument for one that the tokenizer does not know."""
        tokenizer = self._front.tokenizer
        before = getattr(tokenizer, "src_lang", None)
        if language and language != before:
            self._language(language, "source_language")
            tokenizer.src_lang = language
        try:
            yield
        finally:
            if language and language != before:
                tokenizer.src_lang = before

    def _language(self, language: str, option: str) -> int:
        """The token of a language. Raises BadArgument."""
        tokenizer = self._front.tokenizer
        codes = getattr(tokenizer, "lang_code_to_id", None) or {}
        if language in codes:
            return int(codes[language])
        if not hasattr(tokenizer, "src_lang") or language not in tokenizer.get_vocab():
            want = "a language of the model's tokenizer, for models of several"
            said = f"{option} is {language[:80]!r}, expected {want}"
            raise BadArgument(said, name=option, got=language[:80], want=want)
        return int(tokenizer.convert_tokens_to_ids(language))


def generation_settings(options: Options) -> dict[str, Any]:
    """The options that are settings of the generation. Raises BadArgument."""
    found: dict[str, Any] = {}
    if "min_new_tokens" in options:
        found["min_new_tokens"] = options.whole("min_new_tokens", 0)
    if "no_repeat_ngram_size" in options:
        found["no_repeat_ngram_size"] = options.whole("no_repeat_ngram_size", 0)
    if "length_penalty" in options:
        found["length_penalty"] = options.number("length_penalty", 1.0)
    return found
