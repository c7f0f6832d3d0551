"""The grammar of requests: reads the template files and expands one template at a time, at random.

A phrasing is a template with its alternatives chosen and its slots still open. Held out are all phrasings of the
templates marked "!", and of the other templates one phrasing in ten (a checksum decides).
"""

import itertools
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FILES = ("requests.txt", "requests_models.txt", "requests_rest.txt", "requests_more.txt")
HELD_OUT_SHARE = 10  # one phrasing in this many is kept out of training
ENOUGH = 8  # templates with fewer phrasings than this keep all of them in training

_TOKEN = re.compile(r"[()\[\]|]|\{\w+\}|[^()\[\]|{}]+")

Node = str | list["Node"] | tuple["Node", ...]  # text or {slot}; a sequence; alternatives


@dataclass(frozen=True, slots=True)
class Template:
    """One line of the grammar. `mood` is "?" for a question, "." for a statement, "" for an order."""

    node: Node
    mood: str
    held_out: bool
    phrasings: int


@dataclass(slots=True)
class Clause:
    """An option of a command and the ways to ask for it."""

    command: str
    templates: list[Template] = field(default_factory=list)


@dataclass(slots=True)
class Intent:
    """A command with open slots, the templates that ask for it and the clauses that may follow them."""

    command: str
    templates: list[Template] = field(default_factory=list)
    clauses: list[Clause] = field(default_factory=list)


def read_grammar(folder: Path) -> list[Intent]:
    """All intents of the template files in the folder; one that is opened again is continued."""
    intents: dict[str, Intent] = {}
    macros: dict[str, str] = {}
    intent = Intent("")
    templates = intent.templates
    for file in FILES:
        for line in (folder / file).read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                continue
            if line.startswith("$"):
                name, _, text = line.partition(" = ")
                macros[name] = text
            elif line.startswith("= "):
                intent = intents.setdefault(line[2:], Intent(line[2:]))
                templates = intent.templates
            elif line.startswith("+ "):
                intent.clauses.append(Clause(line[2:]))
                templates = intent.clauses[-1].templates
            else:
                templates.append(_template(line, macros))
    return list(intents.values())


def _template(line: str, macros: dict[str, str]) -> Template:
    held_out = line.startswith("!")
    line = line.lstrip("!")
    mood = "?" if line.endswith("?") else "." if line.startswith(".") else ""
    line = line.strip(".").removesuffix("?")
    for name, text in macros.items():
        line = line.replace(name, text)
    node = _parse(_TOKEN.findall(line))
    return Template(node, mood, held_out, _count(node))


def _parse(tokens: list[str]) -> Node:
    """Parse tokens up to a closing bracket (which is consumed) into alternatives or one sequence."""
    options: list[Node] = []
    current: list[Node] = []
    while tokens:
        token = tokens.pop(0)
        if token in ")]":
            break
        if token == "|":
            options.append(current)
            current = []
        elif token == "(":
            current.append(_parse(tokens))
        elif token == "[":
            current.append((_parse(tokens), ""))
        else:
            current.append(token)
    options.append(current)
    return tuple(options) if len(options) > 1 else options[0]


def _count(node: Node) -> int:
    if isinstance(node, str):
        return 1
    if isinstance(node, tuple):
        return sum(_count(option) for option in node)
    product = 1
    for item in node:
        product *= _count(item)
    return product


def expand(node: Node, rng: random.Random) -> str:
    """One random phrasing, its slots still open."""
    if isinstance(node, str):
        return node
    if isinstance(node, tuple):
        return expand(rng.choice(node), rng)
    return " ".join("".join(expand(item, rng) for item in node).split())


def expansions(node: Node) -> Iterator[str]:
    """All phrasings of a (small) template."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, tuple):
        for option in node:
            yield from expansions(option)
    else:
        for parts in itertools.product(*(list(expansions(item)) for item in node)):
            yield " ".join("".join(parts).split())


def always_seen(intents: list[Intent]) -> frozenset[str]:
    """The phrasings of the templates that are too small to hold anything out."""
    groups = (group for intent in intents for group in (intent, *intent.clauses))
    small = (t for group in groups for t in group.templates if not t.held_out and t.phrasings < ENOUGH)
    return frozenset(phrasing for template in small for phrasing in expansions(template.node))


def is_held_out(template: Template, phrasing: str, seen: frozenset[str]) -> bool:
    """Whether this phrasing of the template is kept out of training; `seen` comes from `always_seen`."""
    if template.held_out:
        return True
    return phrasing not in seen and zlib.crc32(phrasing.encode()) % HELD_OUT_SHARE == 0


def vocabulary(intents: list[Intent]) -> set[str]:
    """Every word the templates themselves can say."""
    found: set[str] = set()

    def walk(node: Node) -> None:
        if isinstance(node, str):
            found.update(re.findall(r"[a-z]+", "" if node.startswith("{") else node))
        else:
            for item in node:
                walk(item)

    for intent in intents:
        for group in (intent, *intent.clauses):
            for template in group.templates:
                walk(template.node)
    return found
