"""Wire types to a driver's types and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers import contract, convert
from llmos.drivers.buffers import Buffers
from llmos.syscalls.driver import BufferFile, LocalFile, Located, Work
from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge
from llmos.syscalls.types import (
    Answer, Audio, BufferRef, Chat, EmbedOptions, Embeddings, Grammar, Handle, Image, Inference, Label, Labels,
    LoadOptions, Parts, Quant, Sampling, Scores, Span, Spans, Speculative, Table, TaskResultValue, Tensor, Tensors,
    TensorsOut, Text, Tokens, Transcript, Video,
)  # fmt: skip
from llmos.syscalls.wire import LIMITS, MessageKind, Reply, pack, unpack


def request(work: Work, *, takes: Sequence[str] = ("tensors", "parts")) -> contract.Request:
    return convert.to_request(work, "key", Buffers(), takes=takes)


def test_sampling_has_the_same_fields_and_defaults_on_both_sides() -> None:
    theirs = {info.name: info for info in msgspec.structs.fields(Sampling)}
    ours = [field.name for field in fields(contract.SamplingParams)]
    assert sorted(theirs) == sorted(ours)
    plain, default = convert.to_sampling(Sampling()), contract.SamplingParams()
    for name in ours:
        value, wanted = getattr(plain, name), getattr(default, name)
        assert value == wanted or (not value and not wanted), name


@given(
    st.builds(
        Sampling,
        max_tokens=st.integers(0, 100),
        temperature=st.floats(0, 3),
        stop=st.lists(st.text(min_size=1), max_size=3),
        seed=st.none() | st.integers(0, 99),
        logit_bias=st.dictionaries(st.integers(0, 9), st.floats(-5, 5)),
        grammar=st.none() | st.just(Grammar(regex="a+")),
        speculative=st.none() | st.just(Speculative(tokens=3)),
    )
)
def test_sampling_arrives_as_it_was_sent(sampling: Sampling) -> None:
    out = convert.to_sampling(sampling)
    for name in ("max_tokens", "temperature", "seed", "logit_bias", "stop"):
        assert getattr(out, name) == getattr(sampling, name)
    assert out.grammar == (None if sampling.grammar is None else {"regex": "a+"})
    assert out.speculative == (None if sampling.speculative is None else {"method": "ngram", "tokens": 3})


def test_settings_and_sources() -> None:
    options = LoadOptions(dtype="float16", max_context=9, quant=Quant(width=4), draft="/d", rung="P", pin=True)
    settings = convert.to_settings(options)
    assert (settings.dtype, settings.max_context, settings.draft, settings.rung) == ("float16", 9, "/d", "P")
    assert settings.quant is not None and settings.quant["width"] == 4
    files = [LocalFile(name="w", path="/x/w", bytes=3, offset=1)]
    source = convert.to_source(Located(path="/m", version="2", files=files, manifest={"a": 1}))
    assert source == contract.ModelSource("/m", "2", [contract.SourceFile("w", Path("/x/w"), 3, 1)], {"a": 1})
    small = Located(path="/d", version="1", files=files)
    assert convert.to_source(Located(path="/m", version="2", files=[], draft=small)).draft == contract.ModelSource(
        "/d", "1", [contract.SourceFile("w", Path("/x/w"), 3, 1)]
    )


def test_a_located_model_survives_the_way_out_and_back() -> None:
    manifest = {"files": [{"name": "w", "bytes": 3, "sha256": "f00"}], "context": 7}
    source = contract.ModelSource("/m", "2", [contract.SourceFile("w", Path("/x/w"), 3)], manifest)
    located = convert.from_source(source, "token")
    assert (located.token, located.files[0].sha256) == ("token", "f00")
    assert convert.to_source(located) == source


def test_each_kind_of_input_fills_its_own_field() -> None:
    assert request(Work(id="r", model="m", input=Text(text="x"))).prompt == contract.Prompt(text="x")
    assert request(Work(id="r", model="m", input=Tokens(ids=[1]))).prompt == contract.Prompt(ids=[1])
    chat = Chat(messages=[{"role": "user"}], tools=[{"t": 1}], template_options={"o": 1})
    prompt = request(Work(id="r", model="m", input=chat)).prompt
    assert (prompt.messages, prompt.tools, prompt.template_options) == ([{"role": "user"}], [{"t": 1}], {"o": 1})


PICTURE = b"\x89PNG"


def test_parts_arrive_in_order(folder: Path) -> None:
    sound = folder / "sound"
    sound.write_bytes(b"RIFF....rest")
    parts = Parts(
        parts=[
            Text(text="look"), Image(data=PICTURE), Audio(data=b"RIFF...."), Table(columns=["a"], rows=[[1]]),
            Video(data=BufferRef(buffer=Handle(3), offset=4, length=2)),
        ]
    )  # fmt: skip
    work = Work(
        id="r", model="m", input=parts,
        buffers={"3": BufferFile(path=str(sound), bytes=12)}, options={"top_k": 2},
    )  # fmt: skip
    out = request(work)
    assert out.options == {"top_k": 2} and out.prompt.parts is not None
    text, image, audio, table, video = out.prompt.parts
    assert (text, table) == ("look", contract.TablePart(["a"], [[1]]))
    kinds = [(part.kind, bytes(part.data)) for part in (image, audio, video) if isinstance(part, contract.MediaPart)]
    assert kinds == [("image", PICTURE), ("audio", b"RIFF...."), ("video", b"..")]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Image(), "empty"), (Audio(path="/files/x.wav"), "has the path /files/x.wav"),
        (Image(data=BufferRef(buffer=Handle(9), length=1)), "buffer 9"),
    ],
)  # fmt: skip
def test_a_part_without_its_content_is_refused(part: Image | Audio, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        request(Work(id="r", model="m", input=Parts(parts=[part])))


def test_parts_only_for_devices_that_take_them() -> None:
    with pytest.raises(NotSupported, match="not parts"):
        request(Work(id="r", model="m", input=Parts(parts=[Text(text="x")])), takes=["tensors"])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (contract.LabelsResult([contract.LabelScore("a", 0.5)]), Labels(labels=[Label(label="a", score=0.5)])),
        (
            contract.SpansResult([contract.SpanResult("PER", 0.5, 1, 4, "Bob")]),
            Spans(spans=[Span(label="PER", score=0.5, start=1, end=4, text="Bob")]),
        ),
        (contract.ScoresResult((0.5, 0.25)), Scores(scores=[0.5, 0.25])),
        (contract.AnswerResult("x", 0.5, 1, 2), Answer(text="x", score=0.5, start=1, end=2)),
        (contract.TranscriptResult("hi", ((0.0, 1.0, "hi"),)), Transcript(text="hi", segments=[(0.0, 1.0, "hi")])),
    ],
)
def test_each_kind_of_result_keeps_its_fields(ours: contract.TaskResult, theirs: TaskResultValue) -> None:
    sent = convert.from_done(contract.DoneEvent("r", "t", result=ours), "v")
    body = unpack(pack(MessageKind.END, 1, "submit", Reply(value=sent))).body
    assert msgspec.convert(body["value"], Inference).result == theirs


def test_the_rest_of_a_request() -> None:
    work = Work(
        id="r", model="m", input=Text(text="x"), task="t", context="c", stream=True, tenant="acme",
        embed=EmbedOptions(pooling="last", normalize=False, max_tokens=5),
    )  # fmt: skip
    out = request(work)
    assert (out.id, out.model, out.task, out.context, out.stream, out.tenant) == ("r", "key", "t", "c", True, "acme")
    assert out.embed == contract.EmbedSettings("last", False, 5)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float32", 4), ("float16", 2), ("bfloat16", 2), ("int64", 8), ("int32", 4), ("int8", 1), ("uint8", 1),
        ("bool", 1),
    ],
)  # fmt: skip
def test_tensors_keep_dtype_shape_and_bytes(dtype: str, size: int) -> None:
    tensor = Tensor(dtype=dtype, shape=[2, 3], data=b"x" * 6 * size)
    views = request(Work(id="r", model="m", input=Tensors(named={"a": tensor}))).prompt.tensors
    assert views is not None
    assert (views["a"].dtype, views["a"].shape, bytes(views["a"].data)) == (dtype, (2, 3), b"x" * 6 * size)


def test_tensors_only_for_devices_that_take_them() -> None:
    work = Work(id="r", model="m", input=Tensors(named={}))
    with pytest.raises(NotSupported):
        request(work, takes=())


def test_a_place_in_a_buffer_outside_of_it_is_refused(folder: Path) -> None:
    path = folder / "b"
    path.write_bytes(b"x" * 10)
    place = BufferRef(buffer=Handle(3), offset=8, length=4)
    tensor = Tensor(dtype="uint8", shape=[4], data=place)
    files = {"3": BufferFile(path=str(path), bytes=10)}
    with pytest.raises(BadArgument, match="outside the buffer of 10 bytes"):
        request(Work(id="r", model="m", input=Tensors(named={"a": tensor}), buffers=files))


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_embeddings_are_little_endian_float32(rows: list[list[float]]) -> None:
    result = convert.from_done(contract.DoneEvent("r", "t", embeddings=rows, truncated=[True]), "v").result
    assert isinstance(result, Embeddings) and isinstance(result.tensor.data, bytes)
    assert result.tensor.shape == [len(rows), 3] and result.truncated == [True]
    flat = [value for row in rows for value in row]
    assert list(struct.unpack(f"<{len(flat)}f", result.tensor.data)) == flat


def test_no_embeddings_are_no_rows() -> None:
    result = convert.from_done(contract.DoneEvent("r", "t", embeddings=[]), "v").result
    assert isinstance(result, Embeddings) and result.tensor.shape == [0, 0]


def test_answers_above_the_limit_of_a_message_are_refused() -> None:
    half = LIMITS.message_bytes // 2
    fits = contract.TensorView("uint8", (half,), memoryview(bytes(half)))
    one_more = contract.TensorView("uint8", (half + 1,), memoryview(bytes(half + 1)))
    for event in (
        contract.DoneEvent("r", "t", tensors={"x": fits, "y": one_more}),
        contract.DoneEvent("r", "t", embeddings=[[0.5] * (LIMITS.message_bytes // 8 + 1)] * 2),
    ):
        with pytest.raises(TooLarge, match="ask for less at a time") as caught:
            convert.from_done(event, "v")
        assert caught.value.limit == LIMITS.message_bytes < caught.value.got
    whole = contract.DoneEvent("r", "t", tensors={"x": fits, "y": fits})
    assert isinstance(convert.from_done(whole, "v").result, TensorsOut)


def test_a_result_keeps_everything_on_the_wire() -> None:
    logprobs = [contract.TokenLogprob(5, "é", -0.5, [(5, "é", -0.5), (6, "f", -1.0)])]
    choice = contract.ChoiceResult(1, "é", [5], "stop", logprobs)
    cost = {"prompt_tokens": 3, "cached_tokens": 2, "new_tokens": 1, "device_ns": 9}
    done = contract.DoneEvent("r", "text-generation", [choice], **cost)
    body = _over_the_wire(convert.from_done(done, "v7"))
    assert (body["id"], body["task"], body["model_version"]) == ("r", "text-generation", "v7")
    assert body["choices"] == [
        {"index": 1, "text": "é", "tokens": [5], "reason": "stop",
         "logprobs": [{"token": 5, "text": "é", "logprob": -0.5, "top": [[5, "é", -0.5], [6, "f", -1.0]]}]},
    ]  # fmt: skip
    assert body["usage"] == {**cost, "accepted_tokens": 0}


def test_chunks_keep_everything_on_the_wire() -> None:
    logprobs = [contract.TokenLogprob(5, "a", -0.5)]
    body = _over_the_wire(convert.from_chunk(contract.ChunkEvent("r", "a", [5], 2, logprobs)))
    assert body == {
        "index": 2, "text": "a", "tokens": [5], "logprobs": [{"token": 5, "text": "a", "logprob": -0.5, "top": []}],
    }  # fmt: skip


def test_facts_rows_and_models() -> None:
    facts = contract.Facts("d0", "null", 100, 5, "text", {"tensors": 1})
    assert convert.from_facts(facts).memory_bytes == 100
    assert convert.from_facts(facts, 30).memory_bytes == 30
    assert convert.from_facts(facts).unit == ""
    shared = convert.from_facts(replace(facts, pool="host", unit="cpu"))
    assert (shared.pool, shared.unit) == ("host", "cpu")
    row = contract.Row("weights", "m~2", 1, 2, 3)
    (out,) = convert.from_rows("d0", [row], {"m~2": "m"})
    assert (out.device, out.what, out.owner) == ("d0", "weights", "m")
    assert (out.predicted, out.ledger, out.allocator, out.driver) == (1, 0, 2, 3)
    model = contract.LoadedModel("Echo", ("a",), 9, 8, [row], "F", ("because",), True, 4)
    loaded = convert.from_loaded("d0", model, {})
    assert (loaded.tasks, loaded.rung, loaded.rung_reasons[0].text, loaded.slots) == (["a"], "F", "because", 4)
    assert loaded.rows[0].owner == "m~2"


def test_entries_and_hits() -> None:
    info = contract.FileInfo("/a", "model", 3, "v", 1.5, {"x": 1})
    assert _over_the_wire(convert.from_info(info)) == {
        "path": "/a", "kind": "model", "bytes": 3, "version": "v", "mtime": 1.5, "fields": {"x": 1},
    }  # fmt: skip
    hit = convert.from_found(contract.Found("/a", 0.5, 1, 2, {"y": 2}, "why"))
    assert (hit.path, hit.score, hit.start, hit.end, hit.fields, hit.reason) == ("/a", 0.5, 1, 2, {"y": 2}, "why")


def _over_the_wire(value: Any) -> Any:
    return unpack(pack(MessageKind.REPLY, 1, "", Reply(value=value))).body["value"]
