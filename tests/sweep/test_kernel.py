"""Types of several families through a real kernel: greedy tokens of two requests at once equal the library's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from architectures.build import OTHER_PROMPT, PROMPT, TOKENS, tiny_model
from architectures.reference import greedy
from sweep.report import prepare
from sweep.served import save
from system.kernel_process import KernelProcess, running

pytestmark = pytest.mark.slow
KINDS = ("llama", "gemma3_text", "gpt_oss", "deepseek_v3", "qwen3_moe", "gpt2", "qwen3_next", "bloom")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelProcess]:
    with running(tmp_path_factory.mktemp("k"), drivers="cpu0,models") as kernel, kernel.client() as client:
        client.await_driver("ready", "cpu0")
        yield kernel


@pytest.mark.parametrize("name", KINDS)
def test_tokens_through_the_kernel_are_the_librarys(kernel: KernelProcess, name: str) -> None:
    prepare()
    model = tiny_model(name)
    expected = [list(model.answer.tokens), list(greedy(model.module, OTHER_PROMPT, TOKENS).tokens)]
    save(model, kernel.models / name)
    with kernel.client() as client:
        handle = client.call("load_model", path=f"/models/{name}", device=client.grants["cpu0"])["handle"]
        sampling = {"max_tokens": TOKENS, "ignore_eos": True}
        calls = [
            client.send("infer", model=handle, input={"type": "tokens", "ids": list(prompt)}, sampling=sampling)
            for prompt in (PROMPT, OTHER_PROMPT)
        ]
        answers = [client.wait(number).value["choices"][0]["tokens"] for number in calls]
        assert answers == expected
        client.call("unload_model", model=handle)
