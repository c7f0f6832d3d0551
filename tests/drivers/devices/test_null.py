"""The null device as a device: what a kernel may rely on, without a process around it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.contract import (
    ChunkEvent, DoneEvent, EmbedSettings, FailedEvent, LoadSettings, ModelSource, Overrun, Prompt, Request,
    SamplingParams, SourceFile, StepEvent, TensorView,
)  # fmt: skip
from llmos.drivers.devices.null import CONTEXT_TOKENS, KV_BYTES, MODEL_BYTES, NullDevice
from llmos.syscalls.errors import (
    BadArgument, BadState, DeviceFault, Exists, NoDeviceMemory, NotFound, NotSupported, TooLarge,
)  # fmt: skip


def source(files: list[SourceFile] | None = None, **manifest: Any) -> ModelSource:
    return ModelSource("/models/m", "1", files or [], manifest)


def quiet(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
    """A progress sink that does not care."""


def started(**config: Any) -> NullDevice:
    device = NullDevice()
    device.start("null0", 1, config)
    return device


def loaded(**manifest: Any) -> NullDevice:
    device = started()
    device.load("m", source(**manifest), LoadSettings(), quiet)
    return device


def run(device: NullDevice, *requests: Request) -> dict[str, list[StepEvent]]:
    """Step until all have ended."""
    events: dict[str, list[StepEvent]] = {}
    for request in requests:
        events[request.id] = []
        device.submit(request)
    while not all(any(not isinstance(e, ChunkEvent) for e in found) for found in events.values()):
        for event in device.step():
            events[event.request].append(event)
    return events


def done(device: NullDevice, prompt: Prompt | str, **options: Any) -> DoneEvent:
    prompt = Prompt(text=prompt) if isinstance(prompt, str) else prompt
    event = run(device, Request("r", "m", prompt, **options))["r"][-1]
    if isinstance(event, FailedEvent):
        raise event.error
    assert isinstance(event, DoneEvent)
    return event


def test_it_says_what_it_is() -> None:
    facts = started(memory_bytes=500).facts()
    assert (facts.name, facts.kind, facts.memory_bytes, facts.features["tensors"]) == ("null0", "null", 500, 1)


@pytest.mark.parametrize("wrong", [0, -1, "1", 2.5])
@pytest.mark.parametrize("key", ["memory_bytes", "oom_after", "slots"])
def test_settings_that_make_no_sense_are_refused(key: str, wrong: object) -> None:
    with pytest.raises(BadArgument, match=key):
        started(**{key: wrong})


# ---- models and memory


def test_a_model_weighs_what_its_files_do_or_what_its_manifest_says(folder: Path) -> None:
    device = started()
    files = [SourceFile("w", folder, 3 * MODEL_BYTES), SourceFile("x", folder, 5)]
    for given_source, size in (
        (source(), MODEL_BYTES),
        (source(files), 3 * MODEL_BYTES + 5),
        (source(files, null={"bytes": 0}), 0),
        (source(null={"bytes": 77}), 77),
    ):
        assert [row.predicted for row in device.plan(given_source, LoadSettings())] == [size]
        device.load("m", given_source, LoadSettings(), quiet)
        assert [(row.what, row.owner, row.allocator) for row in device.memory()] == [("weights", "m", size)]
        assert device.unload("m") == size
    assert device.memory() == []


def test_progress_grows_to_the_whole() -> None:
    seen: list[tuple[int, int]] = []
    device = started()
    device.load("m", source(null={"bytes": 100}), LoadSettings(), lambda *given: seen.append(given[:2]))
    assert seen == [(0, 100), (25, 100), (50, 100), (75, 100), (100, 100)]


def test_memory_is_finite_and_refusals_have_numbers() -> None:
    device = started(memory_bytes=1000)
    device.load("a", source(null={"bytes": 900}), LoadSettings(), quiet)
    with pytest.raises(NoDeviceMemory) as caught:
        device.load("b", source(null={"bytes": 200}), LoadSettings(), quiet)
    assert (caught.value.needed, caught.value.free, caught.value.by_whom) == (200, 100, "a")
    device.load("b", source(null={"bytes": 100}), LoadSettings(), quiet)


def test_it_can_run_out_of_memory_it_claims_to_have() -> None:
    device = started(oom_after=50)
    assert device.facts().memory_bytes == 1 << 30
    with pytest.raises(NoDeviceMemory):
        device.load("m", source(null={"bytes": 51}), LoadSettings(), quiet)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (LoadSettings(dtype="float7"), BadArgument),
        (LoadSettings(kv_dtype="float7"), BadArgument),
        (LoadSettings(rung="P"), BadArgument),
        (LoadSettings(quant={"width": 4}), NotSupported),
    ],
)
def test_settings_it_cannot_follow_are_refused(settings: LoadSettings, error: type[Exception]) -> None:
    with pytest.raises(error):
        started().load("m", source(), settings, quiet)


def test_leases_take_room_and_are_files_that_end_with_it(tmp_path: Path) -> None:
    device = started(memory_bytes=10_000)
    given = device.lease("l", 6_000, str(tmp_path / "l"))
    assert (given.kind, given.path) == ("shm", str(tmp_path / "l"))
    with pytest.raises(NoDeviceMemory) as error:
        device.lease("k", 6_000, str(tmp_path / "k"))
    assert (error.value.needed, error.value.free, error.value.by_whom) == (6_000, 4_000, "l")
    assert device.end_lease("l") == 6_000 and device.memory() == []
    device.lease("k", 6_000, str(tmp_path / "k"))
    device.stop()
    assert list(tmp_path.iterdir()) == []


def test_conversations_go_on_after_sleep() -> None:
    device = loaded()
    device.open_context("c", "m", "", 0)
    assert device.sleep("m").contexts == ["c"]


def test_a_sleeping_model_takes_no_room_and_no_requests() -> None:
    device = started(memory_bytes=1000)
    device.load("a", source(null={"bytes": 900}), LoadSettings(), quiet)
    device.sleep("a")
    assert device.memory() == []
    with pytest.raises(BadState, match="sleeps"):
        device.submit(Request("r", "a", Prompt(text="x")))
    device.load("b", source(null={"bytes": 900}), LoadSettings(), quiet)
    with pytest.raises(NoDeviceMemory):
        device.wake("a", quiet)
    device.unload("b")
    device.wake("a", quiet)
    with pytest.raises(BadState):
        device.wake("a", quiet)
    assert device.unload("a") == 900


def test_unknown_names() -> None:
    device = loaded()
    for action in (device.unload, device.sleep, lambda name: device.wake(name, quiet), device.drop_context):
        with pytest.raises(NotFound):
            action("nobody")
    with pytest.raises(Exists):
        device.load("m", source(), LoadSettings(), quiet)
    with pytest.raises(NotFound):
        device.load("a", source(), LoadSettings(), quiet, "nobody")
    device.cancel("nobody")


# ---- text


@given(st.text(max_size=40).filter(lambda text: not text.startswith("!")))
def test_it_echoes_any_text_and_streams_it_in_whole_characters(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    device = loaded()
    request = Request("r", "m", Prompt(text=text), stream=True, sampling=SamplingParams(max_tokens=999))
    events = run(device, request)["r"]
    last = events[-1]
    assert isinstance(last, DoneEvent)
    chunks = [event for event in events if isinstance(event, ChunkEvent)]
    assert "".join(chunk.text for chunk in chunks) == last.choices[0].text == text
    assert [token for chunk in chunks for token in chunk.tokens] == last.choices[0].tokens == [*text.encode(), 256]
    assert (last.prompt_tokens, last.new_tokens) == (len(text.encode()), len(text.encode()) + 1)


@given(st.text("ab ", max_size=30), st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3))
def test_the_stream_never_says_what_a_stop_text_takes_away(text: str, stop: list[str]) -> None:
    sampling = SamplingParams(max_tokens=999, stop=stop)
    events = run(loaded(), Request("r", "m", Prompt(text=text), stream=True, sampling=sampling))["r"]
    last = events[-1]
    assert isinstance(last, DoneEvent)
    said = "".join(event.text for event in events if isinstance(event, ChunkEvent))
    assert said == last.choices[0].text and text.startswith(said)
    assert not any(word in said for word in stop)
    assert last.choices[0].reason == "stop"


def test_the_number_of_tokens_is_kept() -> None:
    device = loaded()
    for sampling, text, reason in (
        (SamplingParams(max_tokens=0), "", "length"),
        (SamplingParams(max_tokens=3), "hel", "length"),
        (SamplingParams(max_tokens=5), "hello", "length"),
        (SamplingParams(max_tokens=6), "hello", "stop"),
        (SamplingParams(max_tokens=8, ignore_eos=True), "hellohel", "length"),
        (SamplingParams(stop_token_ids=[108]), "he", "stop"),
    ):
        choice = done(device, "hello", sampling=sampling).choices[0]
        assert (choice.text, choice.reason) == (text, reason)


def test_a_cut_character_is_said_as_a_replacement() -> None:
    choice = done(loaded(), "é", sampling=SamplingParams(max_tokens=1)).choices[0]
    assert (choice.text, choice.tokens) == ("�", [0xC3])


def test_an_answer_ends_where_the_context_does() -> None:
    device = loaded(context=8)
    choice = done(device, "hello", sampling=SamplingParams(ignore_eos=True)).choices[0]
    assert (choice.text, choice.reason) == ("hel", "length")
    with pytest.raises(TooLarge) as caught:
        device.submit(Request("r", "m", Prompt(text="123456789")))
    assert (caught.value.limit, caught.value.got) == (8, 9)


@pytest.mark.parametrize("manifest", [{}, {"context": 0}, {"context": None}])
def test_a_model_that_states_no_limit_has_none(manifest: dict[str, Any]) -> None:
    device = loaded(**manifest)
    assert device.load("n", source(**manifest), LoadSettings(), quiet).context == 0
    long = "x" * 5_000
    assert done(device, long, sampling=SamplingParams(max_tokens=9_000)).choices[0].text == long
    assert device.open_context("c", "m", "", 0).max_tokens == CONTEXT_TOKENS
    assert device.open_context("d", "m", "", 5000).max_tokens == 5000
    limited = device.load("l", source(**manifest), LoadSettings(max_context=8), quiet)
    assert limited.context == 8 and device.open_context("e", "l", "", 5000).max_tokens == 8


def test_choices_are_equal_and_log_probabilities_certain() -> None:
    choices = done(loaded(), "hi", sampling=SamplingParams(n=2, logprobs=1)).choices
    assert [choice.index for choice in choices] == [0, 1]
    assert choices[0].text == choices[1].text == "hi"
    assert choices[0].logprobs is not None
    assert [(entry.token, entry.text, entry.logprob) for entry in choices[0].logprobs] == [
        (104, "h", 0.0), (105, "i", 0.0), (256, "", 0.0),
    ]  # fmt: skip
    assert choices[0].logprobs[0].top == [(104, "h", 0.0)]


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        (Prompt(ids=[257]), BadArgument),
        (Prompt(ids=[-1]), BadArgument),
        (Prompt(messages=[]), BadArgument),
        (Prompt(messages=[{"role": "user", "content": [{"image": 1}]}]), BadArgument),
        (Prompt(text="!dance; x"), BadArgument),
    ],
)
def test_prompts_that_make_no_sense(prompt: Prompt, error: type[Exception]) -> None:
    device = loaded()
    with pytest.raises(error):
        device.submit(Request("r", "m", prompt))
    assert device.step() == []


@pytest.mark.parametrize(
    ("sampling", "error"),
    [
        ({"max_tokens": -1}, BadArgument), ({"top_p": 0.0}, BadArgument), ({"n": 0}, BadArgument),
        ({"temperature": float("nan")}, BadArgument), ({"grammar": {"regex": "a"}}, NotSupported),
        ({"prompt_logprobs": 1}, NotSupported),
    ],
)  # fmt: skip
def test_sampling_that_makes_no_sense(sampling: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(sampling))):
        loaded().submit(Request("r", "m", Prompt(text="x"), sampling=SamplingParams(**sampling)))


def test_requests_advance_together_one_token_a_step() -> None:
    device = loaded()
    for name in ("a", "b"):
        device.submit(Request(name, "m", Prompt(text="xyz"), stream=True))
    assert [(e.request, e.text) for e in device.step() if isinstance(e, ChunkEvent)] == [("a", "x"), ("b", "x")]
    with pytest.raises(Exists):
        device.submit(Request("a", "m", Prompt(text="x")))


def test_a_cancel_ends_at_the_next_step_with_what_there_is() -> None:
    device = loaded()
    device.submit(Request("r", "m", Prompt(text="hello")))
    device.step()
    device.cancel("r")
    (event,) = device.step()
    assert isinstance(event, DoneEvent)
    assert (event.choices[0].text, event.choices[0].reason) == ("h", "cancelled")
    assert device.step() == []


def test_an_unknown_task() -> None:
    with pytest.raises(NotSupported, match="paint"):
        loaded().submit(Request("r", "m", Prompt(text="x"), task="paint"))


# ---- embeddings, tensors, conversations


def test_embeddings_depend_on_the_text_and_the_pooling() -> None:
    device = loaded()
    rows = {
        (text, pooling): done(device, text, task="feature-extraction", embed=EmbedSettings(pooling)).embeddings
        for text in ("ab", "ba")
        for pooling in ("mean", "cls", "last")
    }
    assert rows["ab", "mean"] == rows["ba", "mean"]
    assert rows["ab", "cls"] == rows["ba", "last"] != rows["ab", "last"]
    row = rows["ab", "mean"]
    assert row is not None and abs(sum(value * value for value in row[0]) - 1) < 1e-9
    raw = done(device, "ab", embed=EmbedSettings(normalize=False)).embeddings
    assert raw is not None and abs(sum(value * value for value in raw[0]) - 1) > 1e-3


def test_a_long_text_is_embedded_only_when_it_may_be_cut() -> None:
    device = loaded(context=4)
    with pytest.raises(TooLarge):
        device.submit(Request("r", "m", Prompt(text="12345"), task="feature-extraction"))
    event = done(device, "12345", task="feature-extraction", embed=EmbedSettings(max_tokens=3))
    assert event.truncated == [True]
    assert event.embeddings == done(device, "123", task="feature-extraction").embeddings
    with pytest.raises(BadArgument, match="sideways"):
        device.submit(Request("r", "m", Prompt(text="x"), embed=EmbedSettings("sideways")))


def test_small_tensors_come_back_and_large_ones_as_a_sum() -> None:
    small = TensorView("float32", (1,), memoryview(b"1234"))
    large = TensorView("uint8", (300_000,), memoryview(bytes(300_000)))
    out = done(loaded(), Prompt(tensors={"s": small, "l": large})).tensors
    assert out is not None and out["s"] is small and "l" not in out
    assert bytes(out["l.crc32"].data) == zlib.crc32(bytes(300_000)).to_bytes(8, "little")
    copied = done(loaded(), Prompt(tensors={"l": large}), task="copy").tensors
    assert copied is not None and list(copied) == ["l.bytes"]
    assert bytes(copied["l.bytes"].data) == (300_000).to_bytes(8, "little")


def test_a_touch_reads_one_byte_of_each_page() -> None:
    pages = TensorView("uint8", (3 * 4096 + 1,), memoryview(bytes([1, *bytes(4095)] * 3 + [5])))
    touched = done(loaded(), Prompt(tensors={"p": pages}), task="touch").tensors
    assert touched is not None and list(touched) == ["p.sum"]
    assert bytes(touched["p.sum"].data) == (8).to_bytes(8, "little")


def test_a_conversation_remembers_and_a_fork_goes_its_own_way() -> None:
    device = loaded()
    assert device.open_context("c", "m", "", 50).bytes == 50 * KV_BYTES
    first = done(device, "one", context="c")
    assert (first.cached_tokens, first.prompt_tokens) == (0, 3)
    assert device.open_context("d", "m", "c", 50).tokens == 7
    assert done(device, "x", context="d").cached_tokens == 7
    assert done(device, "two", context="c").cached_tokens == 7
    with pytest.raises(TooLarge):
        device.submit(Request("r", "m", Prompt(text="x" * 50), context="c"))
    with pytest.raises(BadState, match="more than"):
        device.open_context("e", "m", "c", 5)
    assert device.unload("m") == MODEL_BYTES + 100 * KV_BYTES
    with pytest.raises(NotFound):
        device.drop_context("c")


def test_a_conversation_belongs_to_its_model() -> None:
    device = loaded()
    device.load("other", source(), LoadSettings(), quiet)
    device.open_context("c", "m", "", 0)
    with pytest.raises(BadState):
        device.open_context("d", "other", "c", 0)
    with pytest.raises(BadState):
        device.submit(Request("r", "other", Prompt(text="x"), context="c"))
    with pytest.raises(Exists):
        device.open_context("c", "m", "", 0)
    with pytest.raises(NotFound):
        device.submit(Request("r", "m", Prompt(text="x"), context="nobody"))


def test_stopping_gives_everything_back() -> None:
    device = loaded()
    device.open_context("c", "m", "", 10)
    device.stop()
    assert device.memory() == [] and device.step() == []


# ---- faults that need no process of their own (`test_null_faults.py` and `test_host.py` have the others)


def test_slow_steps_are_declared() -> None:
    device = loaded()
    device.submit(Request("r", "m", Prompt(text="!slow 30; x")))
    assert device.step_seconds() == 0.03
    assert started(faults=["slow 40 @step"]).step_seconds() == 0.04


def test_an_error_on_order_concerns_one_request() -> None:
    device = loaded()
    bad, good = Request("bad", "m", Prompt(text="!oom @step 2; hello")), Request("good", "m", Prompt(text="hi"))
    events = run(device, bad, good)
    assert isinstance(events["bad"][-1], FailedEvent) and isinstance(events["good"][-1], DoneEvent)
    short = run(device, Request("short", "m", Prompt(text="!oom 5000; hello")))["short"][-1]
    assert isinstance(short, FailedEvent) and short.overrun == Overrun(0, 5000)


def test_faults_of_the_device_escape() -> None:
    device = loaded()
    device.submit(Request("r", "m", Prompt(text="!fault device; x")))
    with pytest.raises(DeviceFault):
        device.step()


def test_a_manifest_may_order_faults() -> None:
    device = started()
    with pytest.raises(NoDeviceMemory):
        device.load("m", source(null={"faults": ["oom"]}), LoadSettings(), quiet)
    device.load("m", source(null={"faults": ["oom @step 2"]}), LoadSettings(), quiet)
    with pytest.raises(NoDeviceMemory):
        done(device, "hello")


def test_the_configuration_may_order_faults_once_in_all(folder: Path) -> None:
    config = {"faults": ["fault"], "once": str(folder / "marker")}
    with pytest.raises(RuntimeError):
        started(**config)
    assert (folder / "marker").exists()
    started(**config)


def test_the_configuration_may_order_a_fault_at_a_step_of_the_process() -> None:
    device = started(faults=["fault @step 3"])
    device.load("m", source(), LoadSettings(), quiet)
    device.submit(Request("r", "m", Prompt(text="hello")))
    device.step()
    device.step()
    with pytest.raises(RuntimeError):
        device.step()


def test_a_late_answer_ignores_its_cancel() -> None:
    device = loaded()
    device.submit(Request("r", "m", Prompt(text="!late 60; hi")))
    device.cancel("r")
    assert device.step() == []
    while not (events := device.step()):
        pass
    assert isinstance(events[0], DoneEvent) and events[0].choices[0].reason == "cancelled"
