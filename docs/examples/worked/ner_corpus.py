"""Sentences with persons, organisations, places, dates and amounts, made up by a seed.

One pool of names serves persons, firms and towns alike, so that only what stands around a name says which it is; names
and some sentences are kept for the rows that are held out.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

TYPES = ("PER", "ORG", "LOC", "DATE", "AMT")
TAGS = ("O", *(f"{place}-{kind}" for kind in TYPES for place in "BI"))
_HEADS = (
    "Mar", "Bel", "Tor", "Ash", "Win", "Hol", "Cas", "Der", "Fen", "Gar", "Har", "Kel", "Lan", "Mor", "Nor", "Os",
    "Pen", "Quin", "Ros", "Sel", "Tal", "Ul", "Ver", "Wes", "Yar", "Zel",
)  # fmt: skip
_TAILS = (
    "low", "ton", "ford", "wick", "mond", "berg", "ham", "ley", "stead", "mere", "field", "ner", "dale", "vik", "sen",
    "ova", "ira", "ano", "eth", "ick",
)  # fmt: skip
_FIRST = (
    "Anna", "Boris", "Chiara", "David", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Karim", "Lena", "May",
    "April", "Nora", "Otto", "Paris", "Sofia",
)  # fmt: skip
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
TEMPLATES = tuple(line.strip() for line in """
{PER} joined {ORG} in {DATE} .
{PER} , who was born in {LOC} , leads {ORG} .
Shares of {ORG} fell by {AMT} on {DATE} .
{ORG} bought a site near {LOC} for {AMT} .
On {DATE} , {PER} met {PER} in {LOC} .
May {PER} speak before {ORG} does ?
The road from {LOC} to {LOC} was closed on {DATE} .
{ORG} paid {PER} {AMT} for the patent .
A spokesman for {ORG} said {PER} would stay until {DATE} .
Rain is expected in {LOC} and around {LOC} .
{PER} told reporters that the offer of {AMT} was too low .
Room 12 of the old mill in {LOC} was let to {ORG} .
The march through {LOC} drew 4000 people .
After {DATE} {ORG} will close its office in {LOC} .
{PER} and {PER} sold their stake in {ORG} .
Chapter 7 was written by {PER} in {LOC} .
Neither {ORG} nor {PER} would comment .
They may meet again in {DATE} , said {PER} .
A fine of {AMT} was set by {ORG} .
The bridge at {LOC} costs {AMT} a year .
{ORG} of {LOC} hired {PER} on {DATE} .
In {LOC} , {ORG} lost {AMT} within 3 days .
{PER} left for {LOC} without a word .
Critics of {PER} point to {ORG} and its debt of {AMT} .
Until {DATE} nobody had heard of {ORG} .
{LOC} was hit by floods on {DATE} .
Sources close to {ORG} put the loss at {AMT} .
""".strip().splitlines())
HELD_OUT_TEMPLATES = frozenset(TEMPLATES[4::5])


@dataclass(frozen=True)
class Sentence:
    """Words and a tag for each."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it is written."""
        return " ".join(self.tokens).replace(" .", ".").replace(" ,", ",").replace(" ?", "?")


def held_out_name(name: str) -> bool:
    """Whether a name is kept for rows that are held out."""
    return zlib.crc32(name.encode()) % 4 == 0


def sentences(count: int, seed: int, held_out: bool) -> list[Sentence]:
    """So many sentences, of names (and, held out, a third of them of templates) that the other side has not."""
    rng = random.Random(f"{seed} {held_out}")
    ours = [template for template in TEMPLATES if template not in HELD_OUT_TEMPLATES]
    return [
        _filled(rng.choice(sorted(HELD_OUT_TEMPLATES) if held_out and rng.random() < 1 / 3 else ours), rng, held_out)
        for _ in range(count)
    ]


def names_of(sentence: Sentence) -> set[str]:
    """Parts of entities that come from the pool of names."""
    return {part for word in sentence.tokens for part in word.split("-")} & POOL


def _filled(template: str, rng: random.Random, held_out: bool) -> Sentence:
    tokens: list[str] = []
    tags: list[str] = []
    for part in template.split():
        kind = part.strip("{}")
        if kind == part:
            tokens.append(part)
            tags.append("O")
            continue
        words = _entity(kind, rng, held_out).split()
        tokens += words
        tags += [f"B-{kind}", *[f"I-{kind}"] * (len(words) - 1)]
    return Sentence(tuple(tokens), tuple(tags))


POOL = frozenset(head + tail for head in _HEADS for tail in _TAILS)
_SIDES = {side: sorted(name for name in POOL if held_out_name(name) is side) for side in (False, True)}


def _entity(kind: str, rng: random.Random, held_out: bool) -> str:
    name, other = rng.sample(_SIDES[held_out], 2)
    number = rng.randrange(2, 990)
    day, month, year = rng.randrange(1, 29), rng.choice(_MONTHS), rng.randrange(1980, 2030)
    forms = {
        "PER": (f"{rng.choice(_FIRST)} {name}", name, f"Dr. {name}", f"{rng.choice(_FIRST)} {name}-{other}"),
        "ORG": (name, f"{name} & {other}", f"Bank of {name}", f"University of {name}", f"{name} Group", f"{name} FC"),
        "LOC": (name, f"North {name}", f"{name} Bay", f"Port {name}", rng.choice(("Paris", name))),
        "DATE": (f"{day} {month} {year}", month, str(year), f"{month} {day}", f"{year}-{day:02}-{day % 12 + 1:02}",
                 f"the {rng.choice(('spring', 'autumn'))} of {year}"),
        "AMT": (f"{number} million euros", f"${number},000", f"{number} percent", f"€{number}.5 billion",
                f"{number} dollars"),
    }  # fmt: skip
    return rng.choice(forms[kind])
