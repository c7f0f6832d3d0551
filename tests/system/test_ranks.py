"""Models split among ranks, through the kernel: a real host process, real rank processes, the tokens of one process."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import transformers
from llmos.syscalls.errors import NotSupported, PeerGone
from lora_folders import base_of, save_adapter
from system.kernel_process import KernelProcess, eventually, kill, running
from system.raw_client import RawClient
from tiny_models import build, byte_level, greedy

TEXT = "the quick brown fox"
COUNT = 24
RANK = "llmos.drivers.engine.parallel.rank"
CONFIG = "[drivers.cpu0.config]\nranks = {}\n"


def expected(folder: Path) -> tuple[list[int], str]:
    """What transformers generates in this process: tokens and text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(TEXT)["input_ids"]
    tokens, _ = greedy(base_of(folder), prompt, COUNT)
    return tokens, tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def answer(client: RawClient, model: int, **more: Any) -> list[int]:
    choice = client.infer(model, TEXT, temperature=0.0, max_tokens=COUNT, **more)["choices"][0]
    tokens: list[int] = choice["tokens"]
    return tokens


def ranks_of(client: RawClient) -> Sequence[psutil.Process]:
    """The rank processes of the device's host."""
    children = psutil.Process(client.host("cpu0")).children()
    return [child for child in children if RANK in child.cmdline()]


@contextmanager
def device(folder: Path, ranks: int = 2) -> Iterator[tuple[KernelProcess, RawClient]]:
    """A kernel whose processor has so many ranks."""
    with running(folder, CONFIG.format(ranks), drivers="cpu0,models") as kernel, kernel.client() as client:
        client.await_driver("ready", "cpu0")
        yield kernel, client


def make(folder: Path, name: str = "llama", **changes: Any) -> Path:
    return build(folder / "home/models/m", name, byte_level(), **changes)


@pytest.mark.slow
def test_two_ranks_give_the_tokens_of_one(folder: Path) -> None:
    tokens, _ = expected(make(folder))
    with device(folder) as (_, client):
        model = client.load("m", "cpu0")
        assert len(ranks_of(client)) == 1
        assert answer(client, model) == tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen2", {}), ("qwen3", {}), ("mixtral", {}), ("gemma2", {}), ("phi3", {}),
        ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    ],
)  # fmt: skip
def test_other_families_give_the_same_tokens(folder: Path, name: str, changes: dict[str, Any]) -> None:
    tokens, _ = expected(make(folder, name, **changes))
    with device(folder) as (_, client):
        model = client.load("m", "cpu0")
        assert answer(client, model) == tokens


@pytest.mark.slow
def test_four_ranks_serve_many_requests_together(folder: Path) -> None:
    tokens, _ = expected(make(folder))
    with device(folder, 4) as (_, client):
        model = client.load("m", "cpu0")
        assert len(ranks_of(client)) == 3
        sampling = {"temperature": 0.0, "max_tokens": COUNT}
        asked = [client.start(model, TEXT, **sampling) for _ in range(6)]
        assert all(client.wait(number).value["choices"][0]["tokens"] == tokens for number in asked)


@pytest.mark.slow
def test_sleep_wake_and_unload_reach_every_rank(folder: Path) -> None:
    tokens, _ = expected(make(folder))
    with device(folder) as (_, client):
        model = client.load("m", "cpu0")
        client.call("control_object", handle=model, action="sleep", options={})
        assert client.call("stat_object", handle=model)["state"] == "asleep"
        assert answer(client, model) == tokens
        client.call("unload_model", model=model)
        again = client.load("m", "cpu0")
        assert answer(client, again) == tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, "killed by signal 9"), (signal.SIGSTOP, "no sign of life")]
)
def test_a_lost_rank_ends_the_host_with_the_cause_and_all_comes_back(
    folder: Path, number: signal.Signals, cause: str
) -> None:
    tokens, _ = expected(make(folder))
    with device(folder) as (_, client):
        model = client.load("m", "cpu0")
        (rank,) = ranks_of(client)
        with client.driver_goes_through("backoff", "starting", "ready", name="cpu0"):
            rank.send_signal(number)
        said = client.driver("cpu0")["fields"]["cause"]
        assert cause in said
        assert f"rank 1 (process {rank.pid})" in said
        assert not rank.is_running()
        assert answer(client, model) == tokens


@pytest.mark.slow
def test_a_rank_that_is_lost_in_a_stream_ends_it(folder: Path) -> None:
    make(folder)
    with device(folder) as (_, client):
        model = client.load("m", "cpu0")
        stream = client.start(model, TEXT, "infer_stream", temperature=0.0, max_tokens=100)
        client.first_chunk(stream)
        (rank,) = ranks_of(client)
        rank.kill()
        error = client.wait(stream).error
        assert isinstance(error, PeerGone)
        assert "rank 1" in str(error)
        client.await_driver("ready", "cpu0")


@pytest.mark.slow
def test_ranks_end_with_the_host(folder: Path) -> None:
    make(folder)
    with device(folder) as (kernel, client):
        client.load("m", "cpu0")
        (rank,) = ranks_of(client)
        kill(client.host("cpu0"))
        eventually(kernel, lambda: not rank.is_running(), lambda: rank)
        client.await_driver("ready", "cpu0")


@pytest.mark.slow
def test_what_ranks_do_not_do_is_refused_with_the_reason(folder: Path) -> None:
    base = make(folder)
    build(folder / "home/models/gpt2", "gpt2", byte_level())
    save_adapter(base_of(base), folder / "home/models/adapter")
    with device(folder) as (_, client):
        with pytest.raises(NotSupported, match="GPT2LMHeadModel has no tensor-parallel plan"):
            client.load("gpt2", "cpu0")
        model = client.load("m", "cpu0")
        with pytest.raises(NotSupported, match="split among ranks"):
            client.call("load_model", path="/models/adapter", device=client.grants["cpu0"], base=model)
        with pytest.raises(NotSupported, match="split among ranks"):
            client.infer(model, TEXT, beams=2, max_tokens=4)
        assert len(answer(client, model)) == COUNT
