"""The objects of both faces, on a real kernel with the null device: every test runs with the sync and the async one."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from system.model_folder import write_model

from llmos.syscalls.errors import (
    BadArgument, BadHandle, BadState, Exists, LlmosError, NotFound, NotSupported, TimedOut,
)  # fmt: skip
from llmos.syscalls.types import Sampling, Tensor, Tensors, Text
from llmos.userland import async_objects, objects
from llmos.userland.aio import AsyncClient
from llmos.userland.private import PrivateKernel

NAMES = ("Mount", "Lease", "Buffer", "File", "Task", "Context", "Model", "System")


@pytest.mark.parametrize("name", NAMES)
def test_the_two_faces_have_the_same_methods_with_the_same_arguments(name: str) -> None:
    sync, twin = getattr(objects, name), getattr(async_objects, f"Async{name}")

    def methods(cls: type) -> dict[str, str]:
        found = {n: getattr(cls, n) for n in dir(cls) if not n.startswith("_")}
        return {n: str(inspect.signature(f)) for n, f in found.items() if callable(f)}

    assert methods(sync) == {n: s.replace("Async", "") for n, s in methods(twin).items()}
    assert all(getattr(sync, n).__doc__ for n in methods(sync))


def test_a_model_answers_whole_and_in_pieces(face: Any) -> None:
    with face.load_model("/models/null", device="null0") as model:
        whole = model.infer("hello there", max_tokens=20)
        assert whole.text
        with model.infer_stream("hello there", max_tokens=20) as stream:
            pieces = "".join(chunk.text for chunk in stream)
            assert pieces == whole.text == stream.result.text


def test_inputs_are_plain_python(face: Any) -> None:
    with face.load_model("/models/null", device="null0") as model:
        assert model.infer([5, 6], max_tokens=4, ignore_eos=True).usage.prompt_tokens == 2
        assert model.infer([{"role": "user", "content": "hi"}], max_tokens=4).choices
        assert model.infer(Text(text="hi"), sampling=Sampling(max_tokens=2)).choices
        assert model.infer("hi", sampling="model", max_tokens=2).choices
        with pytest.raises(BadArgument, match="input is a float"):
            model.infer(3.5)
        with pytest.raises(BadArgument, match="did you mean max_tokens"):
            model.infer("hi", max_token=3)
        with pytest.raises(BadArgument, match="max_tokens"):
            model.infer("hi", max_tokens=-1)


def test_tensors_larger_than_what_goes_into_a_call_come_back(face: Any) -> None:
    content = bytes(range(256)) * 512
    with face.load_model("/models/null", device="null0") as model:
        named = {name: Tensor(dtype="uint8", shape=[len(content)], data=content) for name in "ab"}
        result = model.infer(Tensors(named=named)).result
        assert [bytes(result.named[name].data) == content for name in "ab"] == [True, True]


def test_embeddings_come_as_tensors(face: Any) -> None:
    with face.load_model("/models/null", device="null0") as model:
        tensor = model.embed("hello").result.tensor
        assert len(tensor.data) == 4 * tensor.shape[0] * tensor.shape[1]


def test_a_loaded_model_is_found_by_name_id_and_path(face: Any) -> None:
    loaded = face.load_model("/models/null", device="null0", name="one", pin=True)
    found = [face.model(name) for name in ("one", loaded.info.id, "/models/null")]
    assert {model.info.id for model in found} == {loaded.info.id}
    assert found[0].info.context == loaded.info.context
    assert [info.name for info in face.models()] == ["one"]
    with pytest.raises(NotFound, match=r"no model is called 'two'; there is one"):
        face.model("two")


def test_objects_that_share_a_handle_close_it_with_the_last_of_them(face: Any) -> None:
    first = face.load_model("/models/null", device="null0")
    second = face.load_model("/models/null", device="null0")
    assert first.handle == second.handle
    first.close()
    first.close()
    assert second.infer("hi", max_tokens=2).choices
    with pytest.raises(BadHandle, match="is closed"):
        first.infer("hi")
    second.close()


def test_states_of_a_model(face: Any) -> None:
    model = face.load_model("/models/null", device="null0")
    assert model.sleep().state == "asleep"
    told: list[Any] = []
    assert model.wake(on_progress=told.append).state == "awake"
    assert [(progress.done == progress.total, progress.unit) for progress in told] == [(True, "bytes")]
    assert model.pin().fields["pinned"] is True
    assert model.unpin().fields["pinned"] is False
    assert model.keep_alive(30).fields["keep_alive"] == 30
    assert model.stat().id == model.info.id
    assert model.unload().bytes > 0
    assert face.models() == []


def test_a_plan_loads_nothing(face: Any) -> None:
    plan = face.plan_model("/models/null", device="null0").plan
    assert plan.fits and plan.needed > 0
    assert face.models() == []


def test_a_folder_of_this_machine_is_mounted_once_and_loaded(face: Any, folder: Path) -> None:
    write_model(folder / "mine")
    model = face.load_model(folder / "mine", device="null0")
    assert model.info.path == "/mnt/mine"
    assert face.namespace_path(f"file:{folder}/mine") == "/mnt/mine"
    assert [m.fields["source"] for m in face.mounts() if m.name == "/mnt/mine"] == [str(folder / "mine")]
    write_model(folder / "other/mine")
    assert face.namespace_path(f"file:{folder}/other/mine") == "/mnt/mine-2"
    with pytest.raises(NotFound, match="there is no folder"):
        face.load_model(folder / "nothing")


def test_a_conversation_is_opened_continued_and_dropped(face: Any) -> None:
    with face.load_model("/models/null", device="null0") as model:
        context = model.open_context()
        model.infer("hello", context=context, max_tokens=2)
        assert context.stat().fields["model"] == model.info.id
        copy = model.open_context(parent=context)
        assert copy.info.parent == context.info.id
        assert context.drop().state != "open"
        copy.close()


def test_files_are_written_read_listed_and_removed(face: Any) -> None:
    content = bytes(range(256)) * 2000
    assert face.write("/home/a.bin", content) == len(content)
    assert face.read("/home/a.bin") == content
    with pytest.raises(Exists):
        face.write("/home/a.bin", b"", mode="x")
    face.write("/home/a.bin", b"end", mode="a")
    with face.open("/home/a.bin") as file:
        assert file.read(3) == content[:3]
        assert file.read(3) == content[3:6]
        assert file.read() == content[6:] + b"end"
        assert file.read() == b""
    with face.open("/home/b.txt", "w") as file:
        file.write(b"one ")
        file.write(b"two")
    assert face.read("/home/b.txt") == b"one two"
    assert [entry.path for entry in face.list("/home")] == ["/home/a.bin", "/home/b.txt"]
    assert face.stat_path("/home/b.txt").bytes == 7
    for path in ("/home/a.bin", "/home/b.txt"):
        face.remove(path)
    assert face.list("/home") == []


def test_mounts_end_when_they_are_closed_or_unmounted(face: Any, folder: Path) -> None:
    write_model(folder / "m/one")
    with face.mount(folder / "m", "/models/more"):
        assert [entry.path for entry in face.list("/models/more")] == ["/models/more/one"]
    with pytest.raises(LlmosError):
        face.stat_path("/models/more/one")
    face.mount(folder / "m", "/models/more")
    face.unmount("/models/more")
    with pytest.raises(NotFound, match="no mount is called"):
        face.unmount("/models/more")


def test_a_name_goes_back_to_the_version_before_and_what_is_loaded_goes_along(face: Any) -> None:
    newest = face.stat_path("/models/two").version
    with face.load_model("/models/two", device="null0", name="both") as model:
        told = face.rollback("/models/two", reload=True).fields["report"]["reloaded"]
        before = face.stat_path("/models/two").version
        assert before != newest and told == [{"model": "both", "from": newest, "to": before}]
        assert face.stat(model.handle).fields["version"] == before
    face.rollback(f"/models/two@{newest}")
    assert face.stat_path("/models/two").version == newest
    mount, inner = face.mount_of("/models/two@x")
    assert (mount.fields["path"], inner) == ("/models", "two@x")
    with pytest.raises(NotFound, match="nothing is mounted at /nowhere/two"):
        face.rollback("/nowhere/two")


def test_buffers_and_leases(face: Any) -> None:
    with face.buffer(1000) as buffer:
        buffer.write_bytes(b"abc", offset=10)
        assert buffer.read_bytes(3, 10) == b"abc"
        assert len(buffer.read_bytes()) == 1000
        assert buffer.ref(10, 3).length == 3
        with pytest.raises(BadArgument):
            buffer.write_bytes(b"abc", offset=999)
    with face.lease(1 << 20, device="null0", ttl=60) as lease:
        assert lease.info.bytes == 1 << 20


def test_programs_are_spawned_and_waited_for(face: Any) -> None:
    task = face.spawn(["/bin/sh", "-c", "exit 3"])
    assert task.wait().exit == 3
    slow = face.spawn(["/bin/sleep", "60"])
    assert face.task(slow.info.id).pause().state == "paused"
    assert slow.resume().state == "running"
    with pytest.raises(TimedOut):
        slow.wait(0.01)
    assert slow.cancel(grace=0).state in ("cancelled", "failed")


def test_the_system_tells_of_itself(face: Any) -> None:
    assert face.stat().fields["version"]
    assert [info.name for info in face.devices()] == ["null0"]
    assert {info.name for info in face.drivers()} == {"null0", "models", "files"}
    assert face.session in [info.id for info in face.sessions()]
    assert "llmos_sessions" in face.metrics("llmos_")
    assert face.journal(limit=3)
    face.load_model("/models/null", device="null0")
    assert any("null0" in reason.text for reason in face.why("null"))
    assert face.why("nobody") == []


def test_events_arrive_while_they_are_watched(face: Any) -> None:
    with face.watch(["model"]) as events:
        face.load_model("/models/null", device="null0")
        assert next(events).kind == "model"


def test_models_are_searched(face: Any) -> None:
    [hit] = face.search("/models", "null", filters={"fits": "null0"}, limit=1)
    assert hit.path == "/models/null" and hit.reason.startswith('its name is "null"')


def test_what_the_kernel_does_not_offer_it_says(face: Any) -> None:
    with pytest.raises(NotSupported):
        face.search("/home", "x")
    with pytest.raises(NotSupported):
        face.transform(["/models/null"], "/models/new", {"kind": "distil"})


def test_a_model_is_tuned(face: Any) -> None:
    face.write("/home/data.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    with face.load_model("/models/null", device="null0") as model:
        plan = model.plan_tune({"method": "lora", "batch_size": 1}, "/home/data.jsonl", "/models/tuned")
        assert plan.steps == 2 and plan.needed <= plan.free
        with pytest.raises(BadArgument, match="did you mean epochs"):
            model.tune({"method": "lora", "epoch": 3}, "/home/data.jsonl", "/models/tuned")
        with model.tune({"method": "lora", "batch_size": 1}, "/home/data.jsonl", "/models/tuned") as task:
            result = task.wait(timeout=30)
            assert result.state == "done" and result.value["path"] == "/models/tuned"
            assert task.progress()["done"] == 2
            with pytest.raises(BadState):
                task.checkpoint()
        face.remove("/models/tuned")


def test_a_task_tells_how_far_it_is(system: objects.System, folder: Path) -> None:
    system.write("/home/data.jsonl", b'{"text": "one"}\n' * 8)
    recipe = {"method": "lora", "batch_size": 1, "options": {"hold": [3, str(folder / "go")]}}
    with system.load_model("/models/null", device="null0") as model:
        task = model.tune(recipe, "/home/data.jsonl", "/models/tuned", work_class="batch")
        states = []
        for told in task:
            states.append(told["state"])
            (folder / "go").touch()
    assert states[0] == "running" and states[-1] == "done" and list(task) == []
    system.remove("/models/tuned")


def test_a_task_tells_an_async_program_how_far_it_is(kernel: PrivateKernel, folder: Path) -> None:
    async def follow() -> list[str]:
        async with async_objects.AsyncSystem(await AsyncClient.connect(kernel.address)) as system:
            await system.write("/home/data.jsonl", b'{"text": "one"}\n' * 8)
            recipe = {"method": "lora", "batch_size": 1, "options": {"hold": [3, str(folder / "go")]}}
            model = await system.load_model("/models/null", device="null0")
            task = await model.tune(recipe, "/home/data.jsonl", "/models/tuned")
            states = []
            async for told in task:
                states.append(told["state"])
                (folder / "go").touch()
            assert [told async for told in task] == []
            await system.remove("/models/tuned")
            await model.unload()
            return states

    states = asyncio.run(follow())
    assert states[0] == "running" and states[-1] == "done"


def test_a_request_that_is_not_in_flight_cannot_be_cancelled(face: Any) -> None:
    with pytest.raises(NotFound):
        face.cancel("r-nothing")
