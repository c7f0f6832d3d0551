"""What a program gets does not depend on how it asks: blocking or not, streamed or whole, alone or with others.

A real kernel, the CPU device and a tiny model with a smaller one that guesses for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build, byte_level

from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.userland import aconnect, boot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROMPTS = ("the quick brown fox", "naïve café", "def f(x):", "the lazy dog and the other dog " * 2)
OPTIONS: dict[str, Any] = {"max_tokens": 24, "temperature": 0.9, "seed": 4, "logprobs": 1}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    build(home / "models/llama", tokenizer=byte_level())
    build(home / "models/small", "qwen2", tokenizer=byte_level(), num_hidden_layers=1)
    with boot(drivers=["cpu0", "models", "files"], home=home) as made:
        yield made


def test_blocking_streamed_or_asynchronous(system: Any) -> None:
    address = f"ipc://{system.stat().fields['runtime']}/kernel.sock"

    async def at_once(name: str) -> list[Any]:
        async with aconnect(address) as other:
            model = await other.model(name)
            return await asyncio.gather(*(model.infer(prompt, **OPTIONS) for prompt in PROMPTS))

    with system.load_model("/models/llama") as model:
        blocking = [model.infer(prompt, **OPTIONS) for prompt in PROMPTS]
        together = asyncio.run(at_once(model.info.name))
        for prompt, one, other in zip(PROMPTS, blocking, together, strict=True):
            with model.infer_stream(prompt, **OPTIONS) as stream:
                chunks = list(stream)
            assert one.choices == other.choices == stream.result.choices
            assert "".join(chunk.text for chunk in chunks) == one.text
            assert [token for chunk in chunks for token in chunk.tokens] == list(one.tokens)
            assert len(set(one.tokens)) > 8


def test_with_or_without_a_draft_model(system: Any, tmp_path: Path) -> None:
    draft = {"method": "draft", "tokens": 3}
    with system.load_model("/models/llama", draft="/models/small", name="fast") as model:
        plain = [model.infer(prompt, max_tokens=24) for prompt in PROMPTS]
        guessed = [model.infer(prompt, max_tokens=24, speculative=draft) for prompt in PROMPTS]
        assert [one.choices for one in guessed] == [one.choices for one in plain]
        assert all(one.usage.accepted_tokens == 0 for one in plain)
        weights = sum(row.predicted for row in model.info.bytes if row.what == "weights")
    own = {"draft": "/models/llama", "name": "itself"}
    with system.load_model("/models/llama", **own) as model:
        assert model.infer(PROMPTS[0], max_tokens=25, speculative=draft).usage.accepted_tokens == 18
    with system.load_model("/models/llama") as model:
        alone = sum(row.predicted for row in model.info.bytes if row.what == "weights")
        assert alone < weights < 2 * alone
        with pytest.raises(NotSupported, match="without a draft model"):
            model.infer(PROMPTS[0], speculative=draft)
    folder = build(tmp_path / "elsewhere", tokenizer=byte_level())
    with system.load_model("/models/llama", draft=folder, name="apart") as model:
        assert model.infer(PROMPTS[0], max_tokens=25, speculative=draft).usage.accepted_tokens == 18


def test_with_or_without_the_prefix_cache_and_by_a_choice(system: Any) -> None:
    prompt = "the quick brown fox jumps over the lazy dog " * 2
    found = {}
    for kept in (True, False):
        with system.load_model("/models/llama", prefix_cache=kept, name=f"kept-{kept}") as model:
            first, second = (model.infer(prompt, max_tokens=12) for _ in range(2))
            assert first.choices == second.choices and (second.usage.cached_tokens > 0) == kept
            found[kept] = second.choices
            one = model.infer("the ", max_tokens=30, grammar={"choice": ["fox", "dog and dog"]})
            assert one.text in ("fox", "dog and dog") and one.choices[0].reason == "grammar"
            with pytest.raises(BadArgument, match="exactly one"):
                model.infer("the ", grammar={"choice": ["fox"], "regex": "a"})
    assert found[True] == found[False]
