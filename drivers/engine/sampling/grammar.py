"""Answers that follow a grammar (JSON Schema, regular expression, Lark grammar, choice), through llguidance.

A grammar sees a token as its bytes. Which of the tokens that fit are taken is the model's choice: forced text is not
cut into the tokenizer's preferred tokens. An answer may end where the grammar may, by one of the request's end tokens,
and it is finished where nothing else can follow.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmos.syscalls.errors import BadArgument, Internal, LlmosError, NotSupported

from ..detokenizer import Vocabulary
from .pieces import Pieces, pieces
from .schema import Schema, dumped, refusal

if TYPE_CHECKING:
    from llguidance import LLMatcher

KINDS = ("json_schema", "regex", "lark", "choice")
KEPT = 64
"""Compiled grammars kept for one tokenizer."""

SPACES = r"[\x20\x0A\x0D\x09]{1,24}"
"""White space allowed in JSON at one place: enough to indent, and no endless amount."""

MOST_ITEMS = 500
"""States that a Lark grammar may be in at once: an ambiguous one takes time quadratic in it for each token."""

ASCII = "dws"
r"""Character classes of a regular expression that are of ASCII: libraries disagree on what `\w` is beyond that."""

STRICT: Mapping[str, object] = {"lenient": False, "coerce_one_of": False}
NO_FORCING = '\n%llguidance {"no_forcing": true}\n'


class Grammar:
    """The state of one answer under a grammar; see `chooser.Constraint`. `ends` may come where the grammar may end."""

    def __init__(self, matcher: LLMatcher, end: int, ends: frozenset[int], ended: int = 0) -> None:
        self._matcher = matcher
        self._end = end
        self._ends = ends
        self._ended = ended

    @property
    def finished(self) -> bool:
        """Whether the answer ended, or nothing but its end may follow."""
        if self._ended > 0 or self._matcher.is_stopped():
            return True
        return not self._ends and self._matcher.is_accepting() and not self._known()[: self._end].any()

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        if token in self._ends and self._matcher.is_accepting():
            return True
        return token < self._end and self._matcher.validate_tokens([token]) == 1

    def mask(self, size: int) -> Tensor:
        """Which of `size` tokens may come next; bool [size], on the CPU. Raises BadArgument when none may."""
        known = self._known()
        allowed = numpy.zeros(size, dtype=bool)
        width = min(size, self._end)
        allowed[:width] = known[:width]
        if known[self._end]:
            allowed[[token for token in self._ends if token < size]] = True
        if not allowed.any():
            want = "a grammar that the model's tokens can follow"
            said = "no token of the model can follow here, by the grammar"
            raise BadArgument(said, name="grammar", got="no token fits", want=want)
        return torch.from_numpy(allowed)

    def advance(self, token: int) -> None:
        """The token came. Raises Internal for one that is not allowed, BadArgument when the grammar is too complex."""
        if not self.allows(token):
            raise Internal(f"token {token} came although the grammar does not allow it")
        if token in self._ends and self._matcher.is_accepting():
            self._ended += 1
            return
        self._matcher.consume_token(token)
        self._check()

    def rollback(self, count: int) -> None:
        """Take the last `count` tokens back."""
        ended = min(count, self._ended)
        self._ended -= ended
        if count > ended:
            self._matcher.rollback(count - ended)
            self._check()

    def copy(self) -> Grammar:
        """The same state, to go on from independently."""
        return Grammar(self._matcher.deep_copy(), self._end, self._ends, self._ended)

    def _known(self) -> NDArray[numpy.bool_]:
        """Which tokens of the tokenizer may come next, and behind them whether the answer may end."""
        bits = numpy.frombuffer(self._matcher.compute_bitmask(), dtype=numpy.uint8)
        self._check()
        return numpy.unpackbits(bits, bitorder="little", count=self._end + 1).view(numpy.bool_)

    def _check(self) -> None:
        if self._matcher.is_error():
            said = f"the grammar cannot be followed: {_short(self._matcher.get_error())}"
            raise BadArgument(said, name="grammar", got="too complex a state", want="a simpler grammar")


class _Words:
    """A tokenizer as llguidance wants it, with one token more: the end, which stands for all end tokens."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, found: Pieces) -> None:
        self.eos_token_id = len(found.bytes_of)
        self.tokens = [*found.bytes_of, b"<end of grammar>"]
        self.special_token_ids = [*found.special, self.eos_token_id]

    def __call__(self, text: bytes) -> list[int]:
        raise NotImplementedError("only forced text is tokenized, and nothing is forced")


class GrammarCompiler:
    """Compiles grammars for one tokenizer and keeps the last ones. Any thread."""

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._words: Any = None
        self._end = 0
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = Lock()

    def start(self, grammar: Mapping[str, Any], ends: Sequence[int] | frozenset[int] = ()) -> Future[Grammar]:
        """As `compile`, on a thread of its own. Raises BadArgument at once for what is no grammar at all."""
        _only(grammar)
        worker = ThreadPoolExecutor(1, "grammar")
        made = worker.submit(self.compile, grammar, ends)
        worker.shutdown(wait=False)
        return made

    def compile(self, grammar: Mapping[str, Any], ends: Sequence[int] | frozenset[int] = ()) -> Grammar:
        """A fresh state of a grammar; the first one for a tokenizer takes a second or two with a large vocabulary.

        The grammar is `{"json_schema": {...}}`, `{"regex": "..."}`, `{"lark": "..."}` or `{"choice": ["...", ...]}`.
        A regular expression is one of Rust's regex crate without look-around, matched against the whole answer, with
        `\\d`, `\\w` and `\\s` of ASCII. `ends` are the tokens that end the answer; without them it goes on until
        nothing can follow.

        Raises:
            BadArgument: not a grammar, with what is wrong in it.
            NotSupported: what cannot be enforced, with keyword and place; a tokenizer whose tokens have no bytes;
                llguidance is not installed.
        """
        kind, source = _only(grammar)
        key = f"{kind}:{dumped(source) if kind == 'json_schema' else json.dumps(source)}"
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                found = self._compile(kind, source)
                self._kept[key] = found
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return Grammar(found.deep_copy(), self._end, frozenset(ends))

    def _compile(self, kind: str, source: Any) -> LLMatcher:
        guidance = _library()
        limits = guidance.LLParserLimits(max_items_in_row=MOST_ITEMS if kind == "lark" else None, verbose_errors=False)
        if self._words is None:
            words = _Words(pieces(self._tokenizer, self._vocabulary))
            self._words, self._end = guidance.LLTokenizer(words), words.eos_token_id
        if kind == "json_schema":
            refused = _refusal(source)
            if refused is not None:
                raise refused
        text = _lark(kind, source) + NO_FORCING
        matcher: LLMatcher = guidance.LLMatcher(self._words, text, log_level=0, limits=limits)
        if matcher.is_error():
            said = _short(matcher.get_error())
            name = f"grammar.{kind}"
            raise BadArgument(f"{name} is wrong: {said}", name=name, got=str(source)[:200], want=said)
        matcher.deep_copy().compute_bitmask()  # the first mask is the slow one, and copies share what it found
        return matcher


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        why = "the package llguidance is not installed: pip install llguidance"
        raise NotSupported(f"structured output is not available: {why}", why=why) from error
    return llguidance


def _only(grammar: Mapping[str, Any]) -> tuple[str, Any]:
    """The one kind of grammar that is set, of the right type."""
    given = {kind: source for kind, source in grammar.items() if source is not None}
    want = "exactly one of " + ", ".join(KINDS)
    if len(given) != 1 or not given.keys() <= set(KINDS):
        got = ", ".join(given) or "none"
        raise BadArgument(f"grammar has {got}; expected {want}", name="grammar", got=got, want=want)
    ((kind, source),) = given.items()
    types: Mapping[str, tuple[type, str]] = {
        "json_schema": (Mapping, "a JSON schema"), "choice": (list, "a list of texts, none of them empty"),
    }  # fmt: skip
    wanted, want = types.get(kind, (str, "text"))
    right = isinstance(source, wanted) and (kind == "json_schema" or bool(source))
    if not right or (kind == "choice" and not all(isinstance(each, str) and each for each in source)):
        name = f"grammar.{kind}"
        raise BadArgument(f"{name} is {source!r:.80}; expected {want}", name=name, got=str(source)[:80], want=want)
    return kind, source


def _lark(kind: str, source: Any) -> str:
    if kind == "lark":
        return str(source)
    if kind == "json_schema":
        return f"start: %json {dumped({**source, 'x-guidance': _options(source)})}"
    pattern = source if kind == "regex" else "|".join(_quoted(each) for each in source)
    return f"start: /{_library().regex_to_lark(pattern, ASCII)}/"


def _quoted(text: str) -> str:
    """A regular expression of just this text."""
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


def _refusal(schema: Schema) -> LlmosError | None:
    guidance = _library()
    limits = guidance.LLParserLimits(verbose_errors=False)

    def compiles(part: Schema) -> str:
        text = guidance.LLMatcher.grammar_from_json_schema(dumped({**part, "x-guidance": _options(schema)}))
        return str(guidance.LLMatcher.validate_grammar(text, limits=limits))

    return refusal(schema, compiles)


def _options(schema: Schema) -> dict[str, Any]:
    """How the JSON may be written, as the schema's own `x-guidance` says, but without leaving anything out."""
    given = schema.get("x-guidance", {})
    chosen = given if isinstance(given, Mapping) else {}
    spaces = {} if "whitespace_flexible" in chosen else {"whitespace_pattern": SPACES}
    return {**spaces, **chosen, **STRICT}


def _short(message: str) -> str:
    """The message without the grammar's text."""
    return " ".join(message.split("\n   1 |")[0].split())[:500]
