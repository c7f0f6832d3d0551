"""The training text of the bundled model: requests with their commands, and docstrings of the standard library.

Run it to see samples: `python corpus.py 20`.
"""

import argparse
import ast
import random
import re
import sys
import sysconfig
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grammar
from names import Names, Value

from llmos.userland.cli.table import COMMANDS

HERE = Path(__file__).parent
UNKNOWN = "unknown"
RESERVED = {"pydoc_data"}  # its topics are kept for experiments with text the model has never seen
LEFT_OUT = {"test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages", "this", "antigravity", "pdb"}
DOC_HELD_OUT_SHARE = 20

BEFORE = (
    "please", "can you", "could you", "would you", "can you please", "could you please", "i want you to", "hey,",
    "i'd like you to", "llmos,", "ok,", "go ahead and", "you should", "now", "let's", "we should", "i want to",
    "kindly",
)
BEFORE_HELD_OUT = ("would you mind to", "be so good and", "it would be nice if you could")
AFTER = ("please", "for me", "thanks", "thank you", "if you can", "if possible", ", will you", "ok?", "then")


@dataclass(frozen=True, slots=True)
class Example:
    """A request and the one right command."""

    request: str
    command: str
    phrasing: str
    intent: str


class Corpus:
    """Draws examples. `wording` is "train", "phrasings" (the rest of seen templates) or "templates" (unseen ones)."""

    def __init__(self, docs: list[str], seed: int, wording: str = "train", held_out_names: bool = False) -> None:
        self.rng = random.Random(seed)
        self.wording = wording
        self.intents = grammar.read_grammar(HERE)
        self.seen = grammar.always_seen(self.intents)
        commands = [command.name for command in COMMANDS]
        self.sentences = sentences(docs)
        avoid = frozenset(grammar.vocabulary(self.intents) | set(commands))
        self.names = Names(self.rng, held_out_names, common_words(docs, avoid), commands, avoid)
        self.weights = [_weight(intent) for intent in self.intents]

    def example(self) -> Example:
        """One example, of any intent."""
        while True:
            example = self.of(self.rng.choices(self.intents, self.weights)[0])
            if example is not None:
                return example

    def of(self, intent: grammar.Intent) -> Example | None:
        """One example of this intent, or None where this side of the split has no phrasing of it."""
        rng = self.rng
        if intent.command == UNKNOWN and self.wording == "train" and rng.random() < 0.2:
            sentence = rng.choice(self.sentences)
            return Example(sentence, UNKNOWN, sentence, UNKNOWN)
        phrase = self._phrase(intent.templates, self.wording)
        if phrase is None:
            return None
        template, phrasing = phrase
        clauses = self._clauses(intent)
        texts = [phrasing, *(text for _, text in clauses)]
        request, command = self._fill(texts, [intent.command, *(clause.command for clause, _ in clauses)], intent)
        return Example(self._finish(request, template.mood), command, " + ".join(texts), intent.command)

    def _phrase(self, templates: list[grammar.Template], wording: str) -> tuple[grammar.Template, str] | None:
        candidates = [template for template in templates if template.held_out is (wording == "templates")]
        for _ in range(100 if candidates else 0):
            template = self.rng.choice(candidates)
            phrasing = grammar.expand(template.node, self.rng)
            if grammar.is_held_out(template, phrasing, self.seen) is (wording != "train"):
                return template, phrasing
        return None

    def _clauses(self, intent: grammar.Intent) -> list[tuple[grammar.Clause, str]]:
        """A few clauses; one that has no phrasing on this side of the split is said as in training."""
        rng = self.rng
        if not intent.clauses or rng.random() < 0.45:
            return []
        count = min(len(intent.clauses), rng.choice((1, 1, 1, 2, 2, 3)))
        found = []
        for clause in rng.sample(intent.clauses, count):
            phrase = self._phrase(clause.templates, self.wording) or self._phrase(clause.templates, "train")
            assert phrase is not None, f"every clause has a phrasing for training: {clause.command}"
            found.append((clause, phrase[1]))
        return found

    def _fill(self, texts: list[str], commands: list[str], intent: grammar.Intent) -> tuple[str, str]:
        said, written = [], []
        for text, command in zip(texts, commands, strict=True):
            slots = set(re.findall(r"\{(\w+)\}", f"{text} {command}"))
            values = {slot: self.names.draw(slot) for slot in sorted(slots)}
            if "q" in values and (len(texts) > 1 or not text.endswith("{q}")):
                values["q"] = Value(f'"{values["q"].written}"', values["q"].written)
            said.append(self._typo(text).format(**{slot: value.said for slot, value in values.items()}))
            written.append(command.format(**{slot: value.written for slot, value in values.items()}))
        order = [clause.command for clause in intent.clauses]
        rest = sorted(zip(commands[1:], written[1:], strict=True), key=lambda pair: order.index(pair[0]))
        return " ".join(said), _join(written[0], [text for _, text in rest])

    def _typo(self, text: str) -> str:
        """Sometimes one slip of the fingers, never inside a slot."""
        rng = self.rng
        words = text.split(" ")
        places = [index for index, word in enumerate(words) if len(word) > 3 and word.isalpha()]
        if self.wording != "train" or not places or rng.random() > 0.08:
            return text
        place = rng.choice(places)
        word = words[place]
        at = rng.randrange(1, len(word) - 1)
        words[place] = rng.choice(
            (
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            )
        )
        return " ".join(words)

    def _finish(self, text: str, mood: str) -> str:
        rng = self.rng
        if not mood:
            if rng.random() < 0.35:
                polite = BEFORE_HELD_OUT if self.wording == "templates" and rng.random() < 0.3 else BEFORE
                text = f"{rng.choice(polite)} {text}"
            if rng.random() < 0.12:
                text = f"{text} {rng.choice(AFTER)}".replace(" ,", ",")
        if rng.random() < 0.3:
            text = text[0].upper() + text[1:] if text.split(" ")[0].strip(",").isalpha() else text
        if mood == "?":
            return text + ("?" if rng.random() < 0.55 else "")
        return text + rng.choice(("", "", "", "", "", "", ".", "!")) if text[-1].isalpha() else text


def _join(command: str, clauses: list[str]) -> str:
    """The canonical form: the positional arguments first, then the options in the order of the command table."""
    words, _, options = command.partition(" -")
    options = f" -{options}" if options else ""
    extra = "".join(f" {clause}" for clause in clauses if not clause.startswith("-"))
    return words + extra + options + "".join(f" {clause}" for clause in clauses if clause.startswith("-"))


def _weight(intent: grammar.Intent) -> float:
    if intent.command == UNKNOWN:
        return 12.0
    return 1.0 + 0.5 * len(re.findall(r"\{", intent.command)) + 0.25 * len(intent.clauses)


def common_words(docs: list[str], without: frozenset[str]) -> list[str]:
    """Plain lower-case words of the docstrings, the most frequent first, without the words the grammar uses."""
    counts = Counter(word for doc in docs for word in re.findall(r"(?<![\w.])[a-z]{3,11}(?![\w(.])", doc))
    return [word for word, _ in counts.most_common(4000) if word not in without][:3000]


def sentences(docs: list[str]) -> list[str]:
    """First lines of docstrings that read like a sentence: requests that no command can meet."""
    first = (doc.split("\n", 1)[0].strip() for doc in docs)
    return [line for line in first if 12 <= len(line) <= 70 and line.count(" ") >= 2]


def docstrings(held_out: bool) -> list[str]:
    """Docstrings of the standard library, each once, read from source and, for built-in modules, from the objects."""
    found = dict.fromkeys(doc for doc in (*_source_docs(), *_builtin_docs()) if len(doc) >= 40)
    return [doc for doc in found if (zlib.crc32(doc.encode()) % DOC_HELD_OUT_SHARE == 0) is held_out]


def _source_docs() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(library.rglob("*.py")):
        if set(path.relative_to(library).with_suffix("").parts) & (RESERVED | LEFT_OUT):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:  # files that are wrong on purpose, for tools that must cope with them
            continue
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield (ast.get_docstring(node) or "").strip()


def _builtin_docs() -> Iterator[str]:
    for name in sorted(sys.builtin_module_names):
        module = __import__(name)
        for holder in (module, *(value for value in vars(module).values() if isinstance(value, type))):
            for value in (holder, *vars(holder).values()):
                doc = getattr(value, "__doc__", None)
                if isinstance(doc, str):
                    yield doc.strip()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("count", type=int, nargs="?", default=20)
    arguments.add_argument("--wording", default="train", choices=("train", "phrasings", "templates"))
    arguments.add_argument("--held-out-names", action="store_true")
    options = arguments.parse_args()
    corpus = Corpus(docstrings(held_out=False), seed=0, wording=options.wording, held_out_names=options.held_out_names)
    for _ in range(options.count):
        example = corpus.example()
        print(f"{example.request}\n    {example.command}")
