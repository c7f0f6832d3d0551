"""Large bytes go through buffers, small ones do not. The whole way is in test_client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos.syscalls import calls
from llmos.syscalls.errors import NoResources
from llmos.syscalls.types import (
    Buffer, BufferOut, BufferRef, Data, Done, Embeddings, Handle, Image, Inference, ObjectInfo, Parts, Tensor,
    TensorOut, Tensors, TensorsOut, Text,
)  # fmt: skip
from llmos.userland import bulk

LARGE = bytes(range(256)) * 300
SYSTEM = Handle(2)


def run(flow: Any, answers: Any) -> tuple[Any, list[Any]]:
    """Run a flow with a function that answers its calls; result and calls."""
    made = []
    answer: Any = None
    while True:
        try:
            step = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
        except StopIteration as stop:
            return stop.value, made
        made.append(step.call)
        answer = answers(step.call)


@pytest.fixture
def memory(folder: Path) -> Any:
    """Answers of a kernel that gives buffers."""

    def answer(call: Any) -> Any:
        if isinstance(call, calls.AllocBuffer):
            path = folder / "b"
            path.write_bytes(bytes(call.bytes))
            return Buffer(handle=Handle(7), id="b", name="b", path=str(path), bytes=call.bytes)
        if isinstance(call, calls.StatObject):
            return ObjectInfo(id="b", kind="buffer", name="b", state="open", fields={"path": str(folder / "b")})
        return Done()

    return answer


def test_only_large_bytes_are_bulky() -> None:
    def image(data: bytes) -> calls.Infer:
        return calls.Infer(model=Handle(1), input=Parts(parts=[Text(text="x"), Image(data=data)]))

    assert bulk.is_bulky(image(LARGE)) and not bulk.is_bulky(image(b"small"))
    assert not bulk.is_bulky(calls.Infer(model=Handle(1), input=Text(text="x" * 100_000)))
    assert not bulk.is_bulky(calls.WriteFile(file=Handle(1), offset=0, data=BufferRef(buffer=Handle(2), length=99)))
    assert not bulk.is_bulky(calls.ListDir(path="/"))


def test_parts_and_tensors_are_moved_and_the_rest_stays(memory: Any, folder: Path) -> None:
    parts = Parts(parts=[Text(text="x"), Image(data=LARGE), Image(data=b"small")])
    (moved, buffers), _ = run(bulk.move(calls.Infer(model=Handle(1), input=parts), SYSTEM), memory)
    assert moved.input.parts == [
        Text(text="x"), Image(data=BufferRef(buffer=Handle(7), length=len(LARGE))), Image(data=b"small")
    ]
    assert buffers == [7] and (folder / "b").read_bytes() == LARGE
    large = Tensor(dtype="uint8", shape=[len(LARGE)], data=LARGE)
    named = {"a": large, "b": Tensor(dtype="uint8", shape=[1], data=b"x")}
    (moved, _), _ = run(bulk.move(calls.Infer(model=Handle(1), input=Tensors(named=named)), SYSTEM), memory)
    assert isinstance(moved.input.named["a"].data, BufferRef) and moved.input.named["b"].data == b"x"


def test_buffers_made_before_a_failure_are_freed(memory: Any) -> None:
    given = Parts(parts=[Image(data=LARGE), Image(data=LARGE)])
    allocated: list[int] = []

    def scarce(call: Any) -> Any:
        if isinstance(call, calls.AllocBuffer):
            allocated.append(call.bytes)
            if len(allocated) == 2:
                return NoResources("no room")
        return memory(call)

    with pytest.raises(NoResources):
        run(bulk.send(calls.Infer(model=Handle(1), input=given), SYSTEM), scarce)
    closing: list[Any] = []
    allocated.clear()
    flow = bulk.move(calls.Infer(model=Handle(1), input=given), SYSTEM)
    answer: Any = None
    with pytest.raises(NoResources):
        while True:
            step = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
            closing.append(step.call)
            answer = scarce(step.call)
    assert closing[-1] == calls.CloseHandle(handle=Handle(7))


def test_tensors_of_a_result_are_copied_out(memory: Any, folder: Path) -> None:
    (folder / "b").write_bytes(LARGE)
    there = TensorOut(dtype="uint8", shape=[4], data=BufferOut(buffer=Handle(7), offset=1, length=4))
    for result in (Embeddings(tensor=there), TensorsOut(named={"x": there})):
        inference = Inference(id="r", task="t", model_version="v", result=result)
        assert bulk.is_elsewhere(inference)
        fetched, made = run(bulk.fetch(inference), memory)
        tensor = fetched.result.tensor if isinstance(result, Embeddings) else fetched.result.named["x"]
        assert tensor.data == bytes([1, 2, 3, 4])
        assert made[-1] == calls.CloseHandle(handle=Handle(7))
    assert not bulk.is_elsewhere(Inference(id="r", task="t", model_version="v"))
    assert not bulk.is_elsewhere(Data(data=b"x", eof=True)) and not bulk.is_elsewhere(Done())


def test_an_empty_buffer_is_freed_too(memory: Any) -> None:
    data = Data(data=BufferOut(buffer=Handle(7), length=0), eof=True, path="/nowhere")
    fetched, made = run(bulk.fetch(data), memory)
    assert fetched.data == b"" and made == [calls.CloseHandle(handle=Handle(7))]


def test_a_timeout_becomes_a_deadline() -> None:
    call = calls.ListDir(path="/")
    assert bulk.with_timeout(call, None) is call
    assert bulk.with_timeout(call, 5).deadline is not None
