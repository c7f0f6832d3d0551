"""Suites in which ours is compared with itself, or with the library it replaces: the engine's own promises."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from peers.peer import Job, Room

from .arrivals import prompts, texts
from .cells import Cell, gaps, percentile, streams
from .crew import say
from .limits import decode_seconds, ideal_seconds, prefill_seconds
from .models import adapters, causal, encoder, words
from .options import MODULES, Options
from .probe import Probe
from .process import AS_A_HOST, PeerFailed, PeerProcess
from .shapes import ENCODERS, SHAPES, EncoderShape

SAME = 0.99
"""Cosine that two vectors of the same text must have, in bfloat16."""


@contextlib.contextmanager
def peer(name: str, options: Options, folder: Path, context: int, record: bool = False) -> Iterator[PeerProcess]:
    """A process of its own with a model, for the length of a block."""
    process = PeerProcess(name, "", options.threads, dict(AS_A_HOST) if name == "ours" else {})
    try:
        if record:
            process.ask("record")
        rows = max(*options.sizes.concurrent, *options.sizes.adapter_rows)
        process.load(folder, Room(context, rows, rows * context, options.threads))
        yield process
    finally:
        process.close()


def prefix(options: Options, model: str, probe: Probe) -> list[Cell]:
    """Seconds to the first token of a prompt whose first tokens have been seen before, or have not."""
    sizes, shape = options.sizes, SHAPES[model]
    case = f"{sizes.prefix} shared"
    length = sizes.prefix + sizes.tail
    miss, hit = (
        Cell(
            "prefix", model, case, name, "s", less=True,
            ideal=lambda rates, cached=cached: prefill_seconds(shape, rates, length, cached),  # type: ignore[misc]
        )
        for name, cached in (("miss", 0), ("hit", sizes.prefix))
    )  # fmt: skip
    with peer("ours", options, causal(options.folder, shape), sizes.own_context) as ours:
        for round in range(-1, options.rounds):
            probe.measure()
            shared = prompts(300 + round, 1, sizes.prefix, shape.vocabulary)[0]
            tails = prompts(400 + round, 2, sizes.tail, shape.vocabulary)
            for cell, tail in zip((miss, hit), tails, strict=True):
                answer = ours.run([Job(shared + tail, 1)])[0]
                if round >= 0:
                    cell.samples.append(answer.times[0] - answer.submitted)
            say(f"prefix {model}: round {round + 1} of {options.rounds}")
    return [miss, hit]


def gap(options: Options, model: str, probe: Probe) -> list[Cell]:
    """The p95 of the time between two tokens of running streams, before a long prompt comes and during its prefill."""
    sizes, shape = options.sizes, SHAPES[model]
    case = f"{sizes.streams} streams, prompt of {sizes.late}"
    length = sizes.prompt + sizes.before
    ideal = partial(_decode_limit, shape, sizes.streams, length)
    alone = Cell("gap", model, case, "alone", "s", less=True, ideal=ideal)
    arriving = Cell("gap", model, case, "arriving", "s", less=True, ideal=ideal)
    with peer("ours", options, causal(options.folder, shape), sizes.own_context) as ours:
        for round in range(-1, options.rounds):
            probe.measure()
            given = prompts(500 + round, sizes.streams, sizes.prompt, shape.vocabulary)
            late = Job(prompts(600 + round, 1, sizes.late, shape.vocabulary)[0], 1, after=sizes.before)
            answers = ours.run([*(Job(each, sizes.stream) for each in given), late], last=sizes.streams)
            *running, other = answers
            settled = max(answer.times[min(4, sizes.before - 1)] for answer in running)
            during = gaps(running, other.submitted, other.times[0])
            if round >= 0:
                alone.samples.append(percentile(gaps(running, settled, other.submitted), 0.95))
                arriving.samples.append(percentile(during, 0.95))
                arriving.more.setdefault("steps", []).append(len(during) / sizes.streams)
                arriving.more.setdefault("first of it", []).append(other.times[0] - other.submitted)
            say(f"gap {model}: round {round + 1} of {options.rounds}")
    return [alone, arriving]


def _decode_limit(shape: Any, rows: int, length: int, rates: Any) -> float:
    return decode_seconds(shape, rates, rows, length)


def many_adapters(options: Options, model: str, probe: Probe) -> list[Cell]:
    """Tokens a second of a batch in which every adapter has its share, and of the base without any loaded."""
    sizes, shape = options.sizes, SHAPES[model]
    folder = causal(options.folder, shape)
    context = sizes.prompt + sizes.generate + 64
    cells = []
    with (
        peer("ours", options, folder, context) as bare,
        peer("ours", options, folder, context) as adapted,
    ):
        made = adapters(options.folder, shape, sizes.adapters, sizes.rank, MODULES)
        names = adapted.ask("adapt", folders=[str(each) for each in made])
        for rows in sizes.adapter_rows:
            case = f"{rows} requests, {sizes.adapters} adapters of rank {sizes.rank}"
            like = [Job(range(sizes.prompt), sizes.generate)] * rows
            tokens = rows * sizes.generate
            ways = {"base": (bare, [""]), "adapters": (adapted, names), "base beside": (adapted, [""])}
            found = {
                way: Cell(
                    "adapters", model, case, way, "tokens/s",
                    ideal=lambda rates, like=like, n=tokens: n / ideal_seconds(shape, rates, like),  # type: ignore[misc]
                )
                for way in ways
            }  # fmt: skip
            for round in range(-1, options.rounds):
                probe.measure()
                given = prompts(700 + 10 * rows + round, rows, sizes.prompt, shape.vocabulary)
                for way, (process, by) in ways.items():
                    jobs = [Job(p, sizes.generate, adapter=by[at % len(by)]) for at, p in enumerate(given)]
                    figures = streams(process.run(jobs))
                    if round >= 0:
                        found[way].samples.append(figures["total"])
                        found[way].more.setdefault("decode", []).append(figures["decode"])
                say(f"adapters {model} {rows}: round {round + 1} of {options.rounds}")
            cells += found.values()
    return cells


def overhead(options: Options, model: str, probe: Probe) -> list[Cell]:
    """Seconds of a decoding step, and the share of it in which no op is at work."""
    sizes, shape = options.sizes, SHAPES[model]
    cells = []
    with peer("ours", options, causal(options.folder, shape), sizes.own_context, record=True) as ours:
        for rows in sizes.overhead_rows:
            length = sizes.prompt + sizes.overhead_steps
            ideal = partial(_decode_limit, shape, rows, length)
            cell = Cell("overhead", model, f"{rows} rows", "step", "s", less=True, ideal=ideal)
            for round in range(options.rounds):
                probe.measure()
                found = ours.ask("overhead", rows=rows, context=sizes.prompt, steps=sizes.overhead_steps)
                cell.samples.append(percentile(found["plain"], 0.5))
                cell.more.setdefault("lost", []).append(percentile(found["lost"], 0.5))
                for name, seconds in sorted(found["ops"].items(), key=lambda item: -item[1])[:10]:
                    cell.more.setdefault(f"op {name}", []).append(seconds)
                say(f"overhead {model} {rows}: round {round + 1} of {options.rounds}")
            cells.append(cell)
    return cells


def mixed_texts(options: Options, probe: Probe) -> list[Cell]:
    """Texts a second of an encoder, all asked for at once, beside the library's pipeline with one after the other."""
    sizes, shape = options.sizes, ENCODERS[options.sizes.encoder]
    folder, known = encoder(options.folder, shape), words(shape)
    case = f"{sizes.texts} texts of {sizes.text[0]} to {sizes.text[1]} tokens"
    lengths = [len(text.split()) + 2 for text in texts(0, sizes.texts, sizes.text, known)]
    found: dict[str, Cell] = {}
    with (
        peer("ours", options, folder, shape.context) as ours,
        peer("pipeline", options, folder, shape.context) as pipeline,
    ):
        ways = {"ours": ours, "pipeline": pipeline}
        for name in ways:
            found[name] = Cell("encoder", shape.name, case, name, "texts/s", ideal=_text_limit(shape, lengths))
        for round in range(-1, options.rounds):
            given = texts(max(round, 0), sizes.texts, sizes.text, known)
            probe.measure()
            answers = {name: process.ask("embed", texts=given) for name, process in ways.items()}
            for one, other in zip(answers["ours"]["vectors"], answers["pipeline"]["vectors"], strict=True):
                cosine = sum(a * b for a, b in zip(one, other, strict=True))
                if cosine < SAME:
                    raise PeerFailed(f"vectors of ours and of the pipeline differ: cosine {cosine:.3f}")
            if round >= 0:
                for name, answer in answers.items():
                    found[name].samples.append(sizes.texts / answer["seconds"])
            say(f"encoder: round {round + 1} of {options.rounds}")
    return list(found.values())


def _text_limit(shape: EncoderShape, lengths: list[int]) -> Callable[[Any], float]:
    """As if all texts went through as one step: the weights of an encoder are read in no time."""
    return lambda rates: len(lengths) * rates.rate(sum(lengths)) / sum(shape.flops(length) for length in lengths)


def decode_attention(options: Options, probe: Probe) -> list[Cell]:
    """Attention of one query a row over pages in C++, beside SDPA over contiguous keys and values."""
    import ops
    import torch

    length, group = options.sizes.attention
    cells = []
    for rows in (1, 8):
        found = {
            name: Cell("attention", "op", f"{rows} rows, {length} keys, {group} heads a key", name, "s", less=True)
            for name in ("native", "sdpa")
        }
        with torch.inference_mode():
            case = ops.attention("C9", [(1, length)] * rows, 8 * group, 8, 128)
            limits = ops.Limits()
            ops.measure(case, limits, options.rounds)
        for name, cell in found.items():
            cell.samples = list(case.seconds[name])
        cells += found.values()
    return cells
