"""Random values for the slots of the grammar: names, paths, ids, numbers, from spaces far too large to memorise.

Every part of a name belongs to one side of a fixed split (a checksum decides), so that no part of a held-out name ever
occurs in training.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_SHARE = 8  # one name part in this many is kept out of training


def _read_pools() -> dict[str, list[str]]:
    """The word lists beside this file: a line `[name]`, then words."""
    text = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8")
    sections = (section.partition("]") for section in text.split("[")[1:])
    return {name: words.split() for name, _, words in sections}



_POOLS = _read_pools()
NOUNS, FAMILIES = _POOLS["nouns"], _POOLS["families"]
TAILS = ("instruct", "chat", "base", "it", "hf", "v0.1", "v0.3", "preview", "large", "small", "code", "sft", "dpo")
CODAS = ["", "", "", "", "n", "r", "s", "l", "x", "m", "t", "k", "nd", "rk", "st", "th", "ck"]
ROOTS = ("/models", "/data", "/knowledge", "/home", "/dev", "/proc", "/sys")
ENDINGS = ("", "", "", ".txt", ".md", ".json", ".jsonl", ".csv", ".py", ".log", ".toml")
HOST_ROOTS = ("~", ".", "..", "/srv", "/mnt", "/opt", "/tmp", "/home", "~/work", "~/models")
DEVICES = ("cpu", "cpu", "cpu", "cuda", "cuda", "null", "xpu", "npu", "rocm", "mps", "tpu", "hpu", "gpu")
UNITS = {"s": ("s", " seconds", " secs"), "m": ("m", " minutes", " min"), "h": ("h", " hours"), "d": ("d", " days")}
DTYPES = {
    "float32": ("float32", "fp32", "f32"), "bfloat16": ("bfloat16", "bf16"),
    "float16": ("float16", "fp16", "f16", "half"),
}
SPELLED = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "twelve": 12,
    "twenty": 20, "thirty": 30, "fifty": 50, "hundred": 100,
}
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Value:
    """What a slot stands for: as the person says it, and as the command needs it."""

    said: str
    written: str


def is_held_out(part: str) -> bool:
    """Which side of the split a part of a name is on."""
    return zlib.crc32(part.lower().encode()) % HELD_OUT_SHARE == 0


class Names:
    """Draws slot values.

    `held_out` says from which side of the split, `words` is the pool for free text, and no name is one of the words
    to `avoid`, which are those the requests themselves are made of.
    """

    def __init__(
        self, rng: random.Random, held_out: bool, words: list[str], commands: list[str], avoid: frozenset[str]
    ) -> None:
        self.rng = rng
        self.held_out = held_out
        self.words = words
        self.commands = commands
        self.avoid = avoid
        self._kinds: dict[str, Callable[[], Value]] = {
            "m": self.model_path, "n": self.loaded, "p": lambda: same(self.path()), "s": lambda: same(self.source()),
            "d": lambda: same(self.device()), "v": lambda: same(self.driver()), "t": lambda: same(self.task()),
            "r": lambda: same(self.request()), "o": lambda: same(self.object()), "a": lambda: same(self.alias()),
            "ver": lambda: same(self.version()), "fs": lambda: same(self.filesystem()),
            "x": lambda: same(self.prefix()), "c": lambda: same(rng.choice(self.commands)),
            "w": lambda: same(self.word()), "i": self.number, "f": self.decimal, "u": self.duration,
            "dt": self.dtype, "q": self.text, "level": lambda: same(rng.choice(LEVELS)),
            "levels": lambda: rng.choice((Value("errors", "error"), Value("warnings", "warning"))),
        }

    def draw(self, kind: str) -> Value:
        """A value for the slot; the digits that tell two slots of one template apart are ignored."""
        return self._kinds[kind.rstrip("0123456789")]()

    def part(self, make: Callable[[], str]) -> str:
        """One part of a name from this side of the split."""
        while True:
            part = make()
            if is_held_out(part) is self.held_out and part.lower() not in self.avoid:
                return part

    def syllables(self) -> str:
        rng = self.rng
        onsets, nuclei = _POOLS["onsets"], _POOLS["nuclei"]
        count = rng.choice((1, 2, 2, 3))
        return "".join(rng.choice(onsets) + rng.choice(nuclei) + rng.choice(CODAS) for _ in range(count))

    def noun(self) -> str:
        return self.rng.choice(NOUNS) if self.rng.random() < 0.45 else self.syllables()

    def _name(self) -> str:
        rng = self.rng
        style = rng.random()
        if style < 0.40:
            name = self.noun()
        elif style < 0.62:
            name = self.noun() + rng.choice("--_.") + (self.noun() if rng.random() < 0.5 else str(rng.randint(1, 99)))
        elif style < 0.85:
            size = rng.choice((str(rng.randint(1, 99)), f"{rng.randint(0, 9)}.{rng.randint(1, 9)}"))
            name = rng.choice(FAMILIES) + rng.choice(("-", "", "", f"-{rng.randint(1, 4)}-", f"{rng.randint(1, 4)}-"))
            name += f"{size}{rng.choice('bbbm')}" + (f"-{rng.choice(TAILS)}" if rng.random() < 0.4 else "")
        elif style < 0.93:
            name = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(rng.randint(3, 9)))
        else:
            name = f"{self.noun()}{rng.choice('-_')}{self.noun()}{rng.choice('-_')}{rng.choice(TAILS)}"
        case = rng.random()
        return name.title() if case < 0.08 else name.upper() if case < 0.10 else name

    def name(self) -> str:
        return self.part(self._name)

    def model(self) -> str:
        org = f"{self.part(self.noun)}/" if self.rng.random() < 0.3 else ""
        mark = self.rng.random()
        end = f"@v{self.rng.randint(1, 30)}" if mark < 0.1 else f"@{self.alias()}" if mark < 0.15 else ""
        return org + self.name() + end

    def model_path(self) -> Value:
        style = self.rng.random()
        if style < 0.82:
            name = self.model()
            return Value(name, f"/models/{name}")
        return same(f"/models/{self.model()}" if style < 0.92 else self.source())

    def loaded(self) -> Value:
        return same(self.model() if self.rng.random() < 0.25 else self.name())

    def path(self) -> str:
        rng = self.rng
        root = rng.choice(ROOTS[:4] if rng.random() < 0.8 else ROOTS)
        depth = rng.choice((0, 1, 1, 1, 2, 2, 3))
        if depth == 0:
            return root
        return "/".join([root, *(self.name() for _ in range(depth))]) + rng.choice(ENDINGS)

    def source(self) -> str:
        return "/".join([self.rng.choice(HOST_ROOTS), *(self.name() for _ in range(self.rng.choice((1, 1, 2))))])

    def device(self) -> str:
        kind = self.rng.choice(DEVICES) if self.rng.random() < 0.85 else self.part(self.syllables)
        return f"{kind}{self.rng.choice((0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 12))}"

    def driver(self) -> str:
        style = self.rng.random()
        if style < 0.35:
            return self.device()
        return self.rng.choice(("models", "knowledge", "data", "cpu", "null", "cuda")) if style < 0.6 else self.name()

    def _id(self, heads: tuple[str, ...]) -> str:
        rng = self.rng
        tail = str(rng.randint(0, 10 ** rng.randint(1, 5)))
        if rng.random() < 0.25:
            tail = f"{rng.getrandbits(4 * rng.randint(4, 8)):x}"
        return rng.choice(heads) + tail

    def task(self) -> str:
        return self.part(lambda: self._id(("t-", "t-", "t", "task-", "task", "job-", "tune-", "job", "k")))

    def request(self) -> str:
        if self.rng.random() < 0.4:
            return self.task()
        return self.part(lambda: self._id(("r", "r-", "r", "req-", "request-", "q-", "r_")))

    def object(self) -> str:
        style = self.rng.random()
        if style < 0.35:
            return self.task()
        if style < 0.55:
            return self.request()
        return self.loaded().said if style < 0.8 else self.device()

    def alias(self) -> str:
        if self.rng.random() < 0.55:
            return self.rng.choice(_POOLS["aliases"])
        return self.part(self.noun)

    def version(self) -> str:
        rng = self.rng
        style = rng.random()
        if style < 0.6:
            return f"v{rng.randint(1, 60)}"
        return f"{rng.randint(0, 9)}.{rng.randint(0, 20)}" if style < 0.8 else self.alias()

    def filesystem(self) -> str:
        return self.rng.choice(("models", "data", "knowledge")) if self.rng.random() < 0.7 else self.part(self.noun)

    def prefix(self) -> str:
        head = self.rng.choice(_POOLS["metrics"])
        head = head if self.rng.random() < 0.6 else self.part(self.syllables)
        return head + self.rng.choice(("", ".", ".", f".{self.part(self.syllables)}"))

    def word(self) -> str:
        return self.rng.choice(self.words) if self.rng.random() < 0.75 else self.part(self.noun)

    def number(self) -> Value:
        rng = self.rng
        if rng.random() < 0.08:
            said = rng.choice(tuple(SPELLED))
            return Value(said, str(SPELLED[said]))
        if rng.random() < 0.3:
            return same(str(rng.choice((5, 10, 20, 30, 50, 100, 200, 256, 500, 512, 1000, 1024, 2048, 4096))))
        return same(str(rng.randint(2, 10 ** rng.randint(1, 4))))

    def decimal(self) -> Value:
        text = self.rng.choice((f"0.{self.rng.randint(1, 99)}", f"{self.rng.randint(0, 2)}.{self.rng.randint(0, 9)}"))
        return same(text)

    def duration(self) -> Value:
        unit = self.rng.choice("ssmmmmhhhd")
        number = self.number()
        said = self.rng.choice(UNITS[unit])
        if number.said != number.written and not said.startswith(" "):
            said = UNITS[unit][1]
        return Value(f"{number.said}{said}", f"{number.written}{unit}")

    def dtype(self) -> Value:
        written = self.rng.choice(tuple(DTYPES))
        return Value(self.rng.choice(DTYPES[written]), written)

    def text(self) -> Value:
        words = " ".join(self.word() for _ in range(self.rng.choice((1, 1, 2, 2, 3, 4, 5, 6))))
        quote = self.rng.choice(('"', '"', "'", ""))
        return Value(f"{quote}{words}{quote}", words)


def same(text: str) -> Value:
    """A value that is said as it is written."""
    return Value(text, text)
