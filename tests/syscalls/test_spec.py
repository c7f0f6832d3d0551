"""What is derived from a call's class, and what bad arguments are told."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from llmos.syscalls import calls
from llmos.syscalls.driver import HOST_CALLS
from llmos.syscalls.errors import COMMON, BadArgument, Busy, LlmosError, TooLarge
from llmos.syscalls.spec import COMMON_ARGUMENTS, SYSCALLS, Call, Stream, Table, check
from llmos.syscalls.types import Chunk, Done, Handle, Inference, Kind, Right, Text

SCRATCH = Table()


class Sample(Call[Done], name="sample", table=SCRATCH, errors=(Busy, TooLarge)):
    """A call for these tests."""

    model: Annotated[Handle, Kind.MODEL, Right.RUN, Right.READ, "which model"]
    any_kind: Annotated[Handle | None, Right.DUP] = None
    plain: Handle = Handle(0)
    words: list[str] = []  # noqa: RUF012
    undocumented: int = 3


class Flow(Call[Stream[Chunk, Inference]], name="flow", table=SCRATCH):
    """Another."""


def test_a_call_is_described() -> None:
    spec = SCRATCH["sample"]
    assert (spec.name, spec.cls, spec.result, spec.item, spec.streams) == ("sample", Sample, Done, None, False)
    assert spec.doc == "A call for these tests."
    model, any_kind, plain, words, undocumented = spec.fields
    assert (model.name, model.kind, model.rights, model.doc, model.required, model.is_handle) == (
        "model", Kind.MODEL, (Right.RUN, Right.READ), "which model", True, True
    )  # fmt: skip
    assert (any_kind.kind, any_kind.rights, any_kind.required, any_kind.default) == (None, (Right.DUP,), False, None)
    assert plain.is_handle and plain.default == 0
    assert (words.default, words.is_handle) == ([], False)
    assert (undocumented.doc, undocumented.default) == ("", 3)


def test_every_handle_is_found_whatever_its_kind() -> None:
    assert [f.name for f in SCRATCH["sample"].handles] == ["model", "any_kind", "plain"]
    for name in ("close_handle", "dup_handle", "grant_handle", "revoke_handle", "stat_object", "control_object"):
        assert [f.name for f in SYSCALLS[name].handles] == ["handle"]


def test_a_stream_has_items_and_a_final_result() -> None:
    spec = SCRATCH["flow"]
    assert (spec.item, spec.result, spec.streams) == (Chunk, Inference, True)


def test_errors_that_every_call_may_answer_are_not_listed_again() -> None:
    assert SCRATCH["sample"].errors == (Busy,)


def test_calls_are_frozen_and_keyword_only() -> None:
    call = Sample(model=Handle(1))
    with pytest.raises(AttributeError):
        call.model = Handle(2)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Sample(Handle(1))  # type: ignore[call-arg]


def test_a_name_is_declared_once() -> None:
    with pytest.raises(TypeError, match="'sample' is declared twice"):

        class Again(Call[Done], name="sample", table=SCRATCH): ...


def test_a_call_says_its_result() -> None:
    with pytest.raises(TypeError, match="Silent does not say its result"):

        class Silent(Call, name="silent", table=SCRATCH): ...  # type: ignore[type-arg]


def test_a_call_without_a_name_is_a_base_only() -> None:
    class Base(Call[Done]):
        """Adds a field for others."""

    assert all(spec.cls is not Base for spec in [*SCRATCH.values(), *SYSCALLS.values()])


def test_only_a_handle_has_rights_or_a_kind() -> None:
    with pytest.raises(TypeError, match="'size' names a kind or rights but is no handle"):

        class Wrong(Call[Done], name="wrong", table=SCRATCH):
            size: Annotated[int, Right.READ]

    with pytest.raises(TypeError, match="no handle"):

        class AlsoWrong(Call[Done], name="also_wrong", table=SCRATCH):
            size: Annotated[int | None, Kind.MODEL] = None


TEXT = {"type": "text", "text": "hi"}
MISTAKES: list[tuple[str, dict[Any, Any], str, str, str]] = [
    # call, body, name, got, want
    ("infer", {"model": "x", "input": TEXT}, "model", "'x'", "an integer"),
    ("infer", {"model": True, "input": TEXT}, "model", "True", "an integer"),
    ("infer", {"model": 1}, "input", "", "an object of type text, tokens, chat, parts or tensors"),
    ("infer", {"model": 1, "input": "hi"}, "input", "'hi'", "an object of type text, tokens, chat, parts or tensors"),
    ("infer", {"model": 1, "input": {"type": "tex"}}, "input.type", "'tex'",
     "one of text, tokens, chat, parts, tensors"),
    ("infer", {"model": 1, "input": {"text": "x"}}, "input.type", "", "one of text, tokens, chat, parts, tensors"),
    ("infer", {"model": 1, "input": {"type": "tokens", "ids": [1, -2]}}, "input.ids[1]", "-2",
     "an integer of at least 0"),
    ("infer", {"model": 1, "input": {"type": "parts", "parts": [TEXT, {"type": "img"}]}},
     "input.parts[1].type", "'img'", "one of text, image, audio, video, table"),
    ("infer", {"model": 1, "input": TEXT, "promt": 3}, "promt", "3",
     "model, input, task, sampling, context, options, deadline, priority, work_class, key"),
    ("infer", {"model": 1, "input": TEXT, "sampling": {"max_tokens": -1}}, "sampling.max_tokens", "-1",
     "an integer of at least 0"),
    ("infer", {"model": 1, "input": TEXT, "sampling": {"top_p": 0}}, "sampling.top_p", "0",
     "a number above 0 and at most 1"),
    ("infer", {"model": 1, "input": TEXT, "sampling": {"temperature": float("nan")}}, "sampling.temperature", "nan",
     "a number of at least 0"),
    ("infer", {"model": 1, "input": TEXT, "sampling": {"seed": "a"}}, "sampling.seed", "'a'",
     f"an integer from 0 to {2**63 - 1} or nothing (None)"),
    ("infer", {"model": 1, "input": TEXT, "sampling": {"stop": "x"}}, "sampling.stop", "'x'",
     "a list, each text of at least 1 character"),
    ("infer", {"model": 1, "input": TEXT, "sampling": {"stop": ["x", ""]}}, "sampling.stop[1]", "''",
     "text of at least 1 character"),
    ("infer", {"model": 1, "input": TEXT, "sampling": {"logit_bias": {"a": 1.0}}}, "sampling.logit_bias", "{'a': 1.0}",
     "an integer"),
    ("infer", {"model": 1, "input": TEXT, "sampling": {"logit_bias": {1: "x"}}}, "sampling.logit_bias[...]", "{1: 'x'}",
     "a number"),
    ("infer", {"model": 1, "input": TEXT, "work_class": "fast"}, "work_class", "'fast'",
     "one of interactive, batch, background"),
    ("infer", {"model": 1, "input": TEXT, "priority": 2000}, "priority", "2000", "an integer from -1000 to 1000"),
    ("open_file", {"path": "/x", "mode": "q"}, "mode", "'q'", "one of a, r, w, x"),
    ("open_file", {"path": 3}, "path", "3", "text of at most 4096 characters"),
    ("dup_handle", {"handle": 1, "rights": ["red"]}, "rights[0]", "'red'",
     "one of read, write, run, create, list, wait, dup, grant, manage"),
    ("spawn_program", {"system": 1, "argv": []}, "argv", "[]", "a list of at least 1 item, each text"),
    ("write_file", {"file": 1, "offset": 0, "data": "aGk="}, "data", "'aGk='", "an object of type buffer or bytes"),
    ("write_file", {"file": 1, "offset": 0, "data": {"type": "buffer", "bufer": 3}}, "data.bufer", "3",
     "buffer, offset, length"),
    ("alloc_gpu", {"device": 1, "bytes": 0}, "bytes", "0", "an integer of at least 1"),
    ("load_model", {"path": "x", "options": {"quant": {"width": 9}}}, "options.quant.width", "9",
     "one of 4, 8"),
    ("infer", {"model": 1, "input": {"type": "tensors", "named": {"a": {"dtype": "int8", "shape": [-1]}}}},
     "input.named[...].shape[0]", "{'a': {'dtype': 'int8', 'shape': [-1]}}", "an integer of at least 0"),
    ("close_handle", {5: 6}, "", "{5: 6}", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "body", "name", "got", "want"), MISTAKES, ids=lambda value: None)
def test_a_mistake_is_told_with_argument_value_and_choice(
    call: str, body: dict[str, Any], name: str, got: str, want: str
) -> None:
    with pytest.raises(BadArgument) as raised:
        check(SYSCALLS[call], body)
    error = raised.value
    assert (error.name, error.got, error.want) == (name, got, want)
    assert str(error).startswith(f"{call}: ")
    assert name in str(error)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(BadArgument, match="infer: argument 'input' is missing; it is an object of type text, tokens"):
        check(SYSCALLS["infer"], {"model": 1})


def test_an_unknown_argument_gets_a_suggestion_or_the_list() -> None:
    with pytest.raises(BadArgument, match=r"unknown argument 'modl'; did you mean 'model'\?"):
        check(SYSCALLS["infer"], {"modl": 1})
    with pytest.raises(BadArgument, match=r"argument 'zzz'; it takes path, deadline, priority, work_class, key"):
        check(SYSCALLS["stat_path"], {"zzz": 1})
    with pytest.raises(BadArgument, match=r"'sampling.max_token'; did you mean 'max_tokens'\?"):
        check(SYSCALLS["infer"], {"model": 1, "input": TEXT, "sampling": {"max_token": 1}})


def test_an_unknown_field_of_one_type_of_several_is_told_with_the_fields_of_that_type() -> None:
    with pytest.raises(BadArgument) as raised:
        check(SYSCALLS["infer"], {"model": 1, "input": {"type": "chat", "prompt": 1}})
    assert raised.value.want == "messages, tools, template_options"


def test_a_huge_value_is_shown_shortly_and_at_once() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep, deep]
    wide = list(range(100_000))
    for value in (deep, wide, "x" * 10**6, {"k": wide}):
        with pytest.raises(BadArgument) as raised:
            check(SYSCALLS["infer"], {"model": value, "input": TEXT})
        assert 0 < len(raised.value.got) < 300


@given(strategies.MAPS, st.sampled_from([*SYSCALLS.values(), *HOST_CALLS.values()]))
def test_any_map_is_a_call_or_a_bad_argument(body: dict[str, Any], spec: Any) -> None:
    try:
        assert isinstance(check(spec, body), spec.cls)
    except BadArgument as error:
        assert str(error).startswith(f"{spec.name}: ")


@given(st.data())
def test_one_wrong_value_in_a_good_call_is_a_bad_argument_with_its_name(data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from([s for s in SYSCALLS.values() if s.fields]))
    body = data.draw(strategies.bodies(spec))
    field = data.draw(st.sampled_from(spec.fields))
    body[field.name] = msgspec.msgpack.Ext(1, b"")  # no argument admits this
    with pytest.raises(BadArgument) as raised:
        check(spec, body)
    assert raised.value.name == field.name
    assert raised.value.want


@pytest.mark.parametrize("spec", SYSCALLS.values(), ids=lambda spec: spec.name)
def test_requests_refuse_unknown_arguments(spec: Any) -> None:
    with pytest.raises(BadArgument, match="unknown argument 'from_the_future'"):
        check(spec, {"from_the_future": 1})


def test_every_call_takes_the_common_arguments() -> None:
    deadline = time.monotonic_ns()
    common = {"deadline": deadline, "priority": 5, "work_class": "batch", "key": "k"}
    call = check(SYSCALLS["close_handle"], {"handle": 3, **common})
    assert isinstance(call, calls.CloseHandle)
    assert (call.deadline, call.priority, call.work_class, call.key) == (deadline, 5, "batch", "k")
    assert tuple(common) == COMMON_ARGUMENTS


@given(st.data())
def test_good_arguments_are_accepted(data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from([*SYSCALLS.values()]))
    assert isinstance(check(spec, data.draw(strategies.bodies(spec))), spec.cls)


def test_the_client_type_of_a_call_is_its_result() -> None:
    """What mypy proves from `Call[R]`; here only that the parameter is there."""
    assert calls.Infer.__orig_bases__ == (Call[Inference],)  # type: ignore[attr-defined]
    assert isinstance(Text(text="x"), Text)
    assert issubclass(COMMON[0], LlmosError)


def test_a_body_of_json_holds_bytes_as_base64_and_numbers_as_keys() -> None:
    body = {
        "model": 1,
        "input": {"type": "parts", "parts": [{"type": "image", "data": "aGVsbG8="}]},
        "sampling": {"logit_bias": {"5": -1.5}},
    }
    made = check(SYSCALLS["infer"], body, text=True)
    assert made.input.parts[0].data == b"hello" and made.sampling.logit_bias == {5: -1.5}
    with pytest.raises(BadArgument, match="input"):
        check(SYSCALLS["infer"], body)
    body["input"]["parts"][0]["data"] = "no base64!"  # type: ignore[index]
    with pytest.raises(BadArgument, match="data") as raised:
        check(SYSCALLS["infer"], body, text=True)
    assert raised.value.name.startswith("input")
