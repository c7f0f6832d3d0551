"""What a key without the scope admin may name and see."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, Denied, LlmosError, NotFound
from llmos.syscalls.types import (
    ALL_RIGHTS, Entry, Event, Handle, Hit, Image, Kind, LoadOptions, Metric, ObjectInfo, Parts, Record, Text,
    TransformRecipe, TuneRecipe,
)  # fmt: skip
from llmos.userland.gateway.core.caller import Caller
from llmos.userland.gateway.native import confine

ANNA = Caller("aaaaaaaa", "anna", "key-aaaaaaaa", frozenset({"infer", "read", "files", "manage"}))
PICKY = Caller(
    "pppppppp", "pia", "key-pppppppp", frozenset({"infer", "read"}), models=("tiny*", "org/x", "lab/*/small")
)
ADMIN = Caller("zzzzzzzz", "root", "", frozenset({"admin"}))
NOBODY = Caller("", "local", "local", frozenset({"infer", "read"}))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("/home/me", "/home/keys/aaaaaaaa"), ("/home/me/a/b", "/home/keys/aaaaaaaa/a/b"), ("/models", "/models"),
        ("/home/me/", "/home/keys/aaaaaaaa"), ("/home/keys/aaaaaaaa/x", "/home/keys/aaaaaaaa/x"),
        ("/models/org/x@2", "/models/org/x@2"),
    ],
)  # fmt: skip
def test_a_key_has_its_own_folder_and_the_models(given: str, meant: str) -> None:
    assert confine.path(ANNA, given) == meant


@pytest.mark.parametrize(
    "given",
    [
        "/", "/home", "/home/", "/home/keys", "/home/keys/bbbbbbbb", "/home/keys/aaaaaaaab", "/home/keys/aaaaaaaa2/x",
        "/home/mean", "/proc/sessions", "/sys/memory", "/dev/null0", "/modelsx", "/mnt/x", "/data", "/home/me2",
    ],
)  # fmt: skip
def test_everything_else_is_for_admins(given: str) -> None:
    with pytest.raises(Denied) as raised:
        confine.path(ANNA, given)
    assert raised.value.missing == "admin"
    assert confine.path(ADMIN, given) == (given.rstrip("/") or "/")


@pytest.mark.parametrize(
    "given",
    [
        "/models/../home/keys/b", "/home/me/../b", "/home/me/..", "/models/./x", "/models//x", "models/x", "", "/a\0b",
        "/home/me/../../proc", "//models", "/" + "x" * 5000,
    ],
)  # fmt: skip
def test_a_path_that_climbs_is_no_path(given: str) -> None:
    for caller in (ANNA, ADMIN):
        with pytest.raises(BadArgument):
            confine.path(caller, given)


PARTS = st.sampled_from(
    ["..", ".", "", "home", "keys", "me", "aaaaaaaa", "bbbbbbbb", "models", "x", "@", "a b", "%2e%2e", "proc"]
)


@given(st.lists(PARTS, max_size=7), st.booleans())
def test_no_path_leads_out(parts: list[str], slash: bool) -> None:
    given = "/" * slash + "/".join(parts)
    try:
        meant = confine.path(ANNA, given)
    except LlmosError:
        return
    assert not {"..", ".", ""} & set(meant.split("/")[1:])
    assert confine.is_below(meant, "/models") or confine.is_below(meant, "/home/keys/aaaaaaaa")
    assert confine.path(ANNA, confine.outside(ANNA, meant)) == meant


def test_who_comes_without_a_key_has_one_folder_for_all() -> None:
    assert confine.path(NOBODY, "/home/me/x") == "/home/keys/local/x"
    assert confine.outside(NOBODY, "/home/keys/local/x") == "/home/me/x"
    assert confine.outside(ANNA, "/home/keys/bbbbbbbb") == "/home/keys/bbbbbbbb"


@pytest.mark.parametrize(
    ("path", "sees"),
    [
        ("/models", True), ("/models/tiny", True), ("/models/tiny-2@v1", True), ("/models/tiny/README.md", True),
        ("/models/other", False), ("/models/org", True), ("/models/org/x", True), ("/models/org/x@production/f", True),
        ("/models/org/y", False), ("/models/lab", True), ("/models/lab/a", True), ("/models/lab/a/small", True),
        ("/models/lab/a/large", False), ("/models/orgx", False), ("/home/keys/pppppppp/other", True),
    ],
)  # fmt: skip
def test_patterns_of_models_hide_the_others(path: str, sees: bool) -> None:
    assert confine.sees_path(PICKY, path) is sees
    assert confine.sees_path(ANNA, path) and confine.sees_path(ADMIN, path)
    if sees:
        confine.model_path(PICKY, path)
    else:
        with pytest.raises(NotFound):
            confine.model_path(PICKY, path)


@pytest.mark.parametrize("given", ["/models", "/home/me/x", "/home/keys/bbbbbbbb", "/proc/x", "/models/../x", "x", ""])
def test_what_is_no_stored_model_does_not_exist(given: str) -> None:
    for caller in (ANNA, ADMIN):
        with pytest.raises(NotFound):
            confine.stored_model(caller, given)
    with pytest.raises(NotFound):
        confine.stored_model(PICKY, "/models/other")
    assert confine.stored_model(PICKY, "/models/org/x@2") == "/models/org/x@2"


OUT = "/home/keys/bbbbbbbb/x"
RECIPE = TransformRecipe(kind="import")


@pytest.mark.parametrize(
    "call",
    [
        calls.ListDir(path=OUT), calls.ListDir(path="/models", after=OUT), calls.StatPath(path=OUT),
        calls.RemovePath(path=OUT), calls.SearchFs(path=OUT, query=""), calls.LoadModel(path=OUT),
        calls.LoadModel(path="/models/x", options=LoadOptions(draft=OUT)),
        calls.TransformModel(sources=[OUT], out="/models/x", recipe=RECIPE),
        calls.TransformModel(sources=["/models/x"], out=OUT, recipe=RECIPE),
        calls.TransformModel(sources=["/models/x"], out="llmos+http://elsewhere/models/x", recipe=RECIPE),
        calls.TransformModel(sources=["/models/x"], out="./folder", recipe=RECIPE),
        calls.Tune(model=Handle(1), recipe=TuneRecipe(method="lora"), data=OUT, out="/models/x"),
        calls.Tune(model=Handle(1), recipe=TuneRecipe(method="lora"), data="/home/me/d", out=OUT),
        calls.Infer(model=Handle(1), input=Parts(parts=[Text(text="x"), Image(path=OUT)])),
        calls.InferStream(model=Handle(1), input=Parts(parts=[Image(path=OUT)])),
    ],
    ids=lambda call: type(call).__name__,
)  # fmt: skip
def test_no_argument_names_a_path_elsewhere(call: Any) -> None:
    with pytest.raises(Denied) as raised:
        confine.call(ANNA, call, {})
    assert raised.value.missing == "admin"
    confine.call(ADMIN, call, {})


def test_paths_of_a_call_are_the_callers_own() -> None:
    made = confine.call(ANNA, calls.StatPath(path="/home/me/x"), {})
    assert made == calls.StatPath(path="/home/keys/aaaaaaaa/x")
    given = calls.Infer(model=Handle(1), input=Parts(parts=[Text(text="t"), Image(path="/home/me/p.png")]))
    assert confine.call(ANNA, given, {}).input.parts[1].path == "/home/keys/aaaaaaaa/p.png"  # type: ignore[attr-defined]
    remote = calls.TransformModel(sources=["hf:org/x", "llmos+https://h/models/x"], out="/models/x", recipe=RECIPE)
    assert confine.call(ANNA, remote, {}) == remote
    text = calls.TransformModel(sources=["/models/x", "/home/me/t.txt"], out="/home/me/x.gguf", recipe=RECIPE)
    kept = confine.call(ANNA, text, {})
    assert kept.sources == ["/models/x", "/home/keys/aaaaaaaa/t.txt"]  # type: ignore[attr-defined]
    assert kept.out == "/home/keys/aaaaaaaa/x.gguf"  # type: ignore[attr-defined]
    assert confine.call(ANNA, calls.ListDir(path="/models"), {}) == calls.ListDir(path="/models")
    with pytest.raises(BadArgument):
        confine.call(ANNA, calls.TransformModel(sources=["/etc/../x"], out="/models/x", recipe=RECIPE), {})


def test_a_key_runs_no_earlier_than_it_may() -> None:
    modest = Caller("k", "u", "key-k", frozenset({"infer"}))
    given = calls.Embed(model=Handle(1), input=Text(text="x"), priority=900)
    assert confine.call(modest, given, {}).priority == 100
    assert confine.call(ADMIN, given, {}).priority == 900
    assert confine.call(modest, calls.Embed(model=Handle(1), input=Text(text="x"), priority=-900), {}).priority == -100


@pytest.mark.parametrize(
    ("kind", "options", "may"),
    [
        (Kind.MODEL, {}, True), (Kind.TASK, {}, True), (Kind.CONTEXT, {}, True), (Kind.MOUNT, {}, True),
        (Kind.DRIVER, {}, False), (Kind.DEVICE, {"bytes": 0}, False), (Kind.SESSION, {"handles": 1}, False),
        (Kind.SYSTEM, {}, False), (Kind.LEASE, {}, False),
    ],
)  # fmt: skip
def test_what_may_be_acted_on(kind: Kind, options: dict[str, Any], may: bool) -> None:
    call = calls.ControlObject(handle=Handle(1), action="x", options=options)
    assert confine.call(ADMIN, call, {"handle": kind}) == call
    if may:
        assert confine.call(ANNA, call, {"handle": kind}) == call
    else:
        with pytest.raises(Denied):
            confine.call(ANNA, call, {"handle": kind})


def test_a_key_for_some_models_acts_on_those_of_a_store() -> None:
    for name, may in (("tiny", True), ("other", False), (None, False)):
        options = {} if name is None else {"name": name}
        call = calls.ControlObject(handle=Handle(1), action="fsck", options=options)
        if may:
            confine.call(PICKY, call, {"handle": Kind.MOUNT})
        else:
            with pytest.raises(Denied):
                confine.call(PICKY, call, {"handle": Kind.MOUNT})


@pytest.mark.parametrize("kind", Kind)
def test_only_what_a_key_holds_is_closed(kind: Kind) -> None:
    call = calls.CloseHandle(handle=Handle(1))
    if kind in (Kind.LEASE, Kind.CONTEXT):
        assert confine.call(ANNA, call, {"handle": kind}) == call
    else:
        with pytest.raises(BadArgument, match="leases and contexts"):
            confine.call(ADMIN, call, {"handle": kind})


def info(kind: Kind, name: str, **fields: Any) -> ObjectInfo:
    return ObjectInfo(id=f"{kind.value[0]}-1", kind=kind.value, name=name, state="open", owner="0/key-b", fields=fields)


def test_objects_are_shown_without_what_is_the_machines() -> None:
    mount = info(Kind.MOUNT, "/models", source="/root/.llmos/models", path="/models")
    shown = confine.shown(ANNA, mount)
    assert shown is not None and shown.fields == {"path": "/models"} and shown.owner == ""
    assert confine.shown(ADMIN, mount) == mount


@pytest.mark.parametrize(
    ("kind", "scopes", "left"),
    [
        (Kind.MODEL, {"read"}, {"read", "list", "wait"}), (Kind.MODEL, {"infer"}, {"run"}),
        (Kind.MODEL, {"tune", "manage"}, {"create", "manage"}), (Kind.DEVICE, {"load", "manage"}, {"create"}),
        (Kind.MOUNT, {"files"}, {"write"}), (Kind.MODEL, set(), set()),
    ],
)  # fmt: skip
def test_rights_are_those_of_the_key(kind: Kind, scopes: set[str], left: set[str]) -> None:
    """Its session with the kernel has more: what one may do follows from both."""
    caller = Caller("k", "ada", "key-k", frozenset(scopes))
    everything = msgspec.structs.replace(info(kind, "x"), rights=ALL_RIGHTS)
    shown = confine.shown(caller, everything)
    assert shown is not None and shown.rights == left
    assert confine.rights(caller, info(kind, "x")) == frozenset()


def test_a_key_for_some_models_sees_those_alone() -> None:
    for name, path, sees in (
        ("tiny", "/models/tiny", True), ("x", "/models/org/x@3", True), ("y", "/models/org/y", False),
        ("tiny", "/mnt/whatever", True), ("other", "/mnt/tiny", False),
    ):  # fmt: skip
        assert (confine.shown(PICKY, info(Kind.MODEL, name, path=path)) is not None) is sees
        assert confine.shown(ANNA, info(Kind.MODEL, name, path=path)) is not None
    assert confine.shown(PICKY, info(Kind.DEVICE, "cpu0")) is not None


def test_entries_and_hits_have_the_callers_paths() -> None:
    entries = [Entry(path=path, kind="file") for path in ("/home/keys/pppppppp/a", "/models/tiny", "/models/other")]
    assert [entry.path for entry in confine.entries(PICKY, entries)] == ["/home/me/a", "/models/tiny"]
    assert confine.entries(ADMIN, entries) == entries
    hits = [Hit(path=entry.path, score=1.0) for entry in entries]
    assert [hit.path for hit in confine.hits(PICKY, hits)] == ["/home/me/a", "/models/tiny"]
    assert confine.hits(ADMIN, hits) == hits


def test_metrics_of_others_are_for_admins() -> None:
    found = {
        "a": Metric(kind="counter", value=1), "b": Metric(kind="counter", value=1, labels={"tenant": "0/key-b"}),
        "c": Metric(kind="gauge", value=1, labels={"model_name": "x"}),
    }  # fmt: skip
    assert confine.metrics(ANNA, found).keys() == {"a", "c"}
    assert confine.metrics(ADMIN, found) == found


def test_the_journal_and_events_are_of_what_one_sees() -> None:
    found = [
        Record(seq=n, at=0.0, unit="x", level="info", about=about, text="") for n, about in enumerate(["m-1", "s-9"])
    ]
    assert [record.about for record in confine.records(ANNA, found, {"m-1"})] == ["m-1"]
    assert confine.records(ADMIN, found, set()) == found
    assert confine.sees_event(ANNA, Event(kind="model", about="m-1"), {"m-1"})
    assert not confine.sees_event(ANNA, Event(kind="session", about="s-9"), {"m-1"})
    assert confine.sees_event(ADMIN, Event(kind="session", about="s-9"), set())


def test_records_tell_no_process_ids_but_to_admins() -> None:
    record = Record(
        seq=1, at=1.0, unit="supervisor", level="info", about="cpu0", text="cpu0 runs (pid 12)",
        fields={"pid": 12, "a": 1},
    )  # fmt: skip
    (told,) = confine.records(ANNA, [record], {"cpu0"})
    assert (told.text, told.fields) == ("cpu0 runs", {"a": 1})
    assert confine.records(ADMIN, [record], set()) == [record]
