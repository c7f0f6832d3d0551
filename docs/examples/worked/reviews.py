"""Reviews of products, made up by a seed: negation, contrast, several aspects, sarcasm that is marked, typos.

Run as a program it is a shop: `python reviews.py --seed 1 --count 600 --drift-at 300` prints a review to a line, and
from the drift on most of them are bad.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import zlib
from dataclasses import asdict, dataclass

LABELS = ("negative", "positive")
LINES = {
    "kitchen": ("kettle", "pan", "toaster", "blender"),
    "audio": ("headphones", "speaker", "microphone", "radio"),
    "clothing": ("jacket", "scarf", "boots", "coat"),
    "software": ("app", "editor", "backup tool", "game"),
}
SHARES = (40, 30, 25, 5)
"""Of the lines of products: one is rare, and shows what that does to its figures."""
_ASPECTS = ("price", "quality", "support", "delivery", "manual", "look", "packaging", "setup", "finish", "size")
_GOOD = (
    "great", "solid", "lovely", "excellent", "reliable", "superb", "useful", "pleasant", "handsome", "fair", "clever",
    "sturdy",
)  # fmt: skip
_BAD = (
    "awful", "flimsy", "useless", "dreadful", "unreliable", "poor", "ugly", "shoddy", "painful", "broken", "clumsy",
    "overpriced",
)  # fmt: skip
_OWN = {
    "software": (("snappy", "stable", "intuitive"), ("laggy", "bloated", "crashing")),
    "clothing": (("warm", "snug", "soft"), ("itchy", "faded", "baggy")),
}
_LOVES = ("I would buy it again", "Worth every cent", "My family is happy with it", "It does what it says")
_HATES = ("I sent it back", "Save your money", "It failed within a week", "I want a refund")
_SARCASM = ("Well done , it {fault} /s", "Just what I needed : it {fault} /s", "{good} work , it {fault} /s")
_FAULTS = ("broke on day one", "arrived without half its parts", "stopped working", "made things worse")
_DISAGREE = 0.03
"""So often two readers do not agree what a review is: nobody can be right about all of them."""


@dataclass(frozen=True)
class Review:
    """What was said about a product of a line, and what it is: `negative` or `positive`."""

    text: str
    label: str
    line: str


def held_out(text: str) -> bool:
    """Whether a review is for judging: by a hash of what it says, without its typos and case."""
    return zlib.crc32(text.lower().encode()) % 5 == 0


def reviews(count: int, seed: int, judged: bool, negative: float = 0.45) -> list[Review]:
    """So many reviews of one side, each once, of which that share is negative."""
    rng = random.Random(f"{seed} {judged}")
    made: dict[str, Review] = {}
    while len(made) < count:
        line = rng.choices(list(LINES), SHARES)[0]
        bad = rng.random() < negative
        text = _text(rng, line, bad)
        if held_out(text) is judged:
            disagreed, written = rng.random() < _DISAGREE, _typos(text, rng)
            made.setdefault(written, Review(written, LABELS[bad is disagreed], line))
    return list(made.values())


def stream(count: int, seed: int, drift_at: int, before: float = 0.3, after: float = 0.75) -> list[Review]:
    """Reviews of which, from one on, more are negative."""
    first, then = reviews(drift_at, seed, True, before), reviews(count - drift_at, seed + 1000, True, after)
    return [*first, *then]


def _text(rng: random.Random, line: str, bad: bool) -> str:
    thing = rng.choice(LINES[line])
    one, other = rng.sample(_ASPECTS, 2)
    own = _OWN.get(line, ((), ()))
    good_word, bad_word = rng.choice((*_GOOD, *own[0] * 2)), rng.choice((*_BAD, *own[1] * 2))
    word, opposite = (bad_word, good_word) if bad else (good_word, bad_word)
    closing = rng.choice(_HATES if bad else _LOVES)
    forms = [
        f"The {thing} is {word} . {closing} .",
        f"The {one} of this {thing} is {word} .",
        f"This {thing} is not {opposite} at all , and the {one} is {word} .",
        f"I would never call the {one} {opposite} .",
        f"The {one} is {opposite} , but the {thing} itself is {word} .",
        f"Although the {one} is {opposite} , the {other} is {word} and that is what counts .",
        f"The {one} is {opposite} and the {other} {word} . All in all : {closing.lower()} .",
        f"I feared it would be {opposite} ; it is not . {closing} .",
        f"Hardly {opposite} , this {thing} .",
        f"{closing} : the {one} of the {thing} is {word} .",
    ]
    if bad and rng.random() < 0.15:
        said = rng.choice(_SARCASM).format(fault=rng.choice(_FAULTS), good=good_word.capitalize())
        return f"{said} . My {thing} has a {good_word} {one} ."
    return rng.choice(forms)


def _typos(text: str, rng: random.Random) -> str:
    words = text.split()
    for place, word in enumerate(words):
        if len(word) > 4 and rng.random() < 0.05:
            at = rng.randrange(1, len(word) - 2)
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def main() -> None:
    """Post reviews, one to a line, until whoever reads has enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("seed", 1), ("count", 600), ("drift-at", 300)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    for review in stream(given.count, given.seed, given.drift_at):
        sys.stdout.write(json.dumps(asdict(review)) + "\n")


if __name__ == "__main__":
    main()
