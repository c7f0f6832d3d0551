"""Bad input gets a typed error that names the value, and nothing is lost by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llmos.syscalls.errors import (
    BadArgument, BadHandle, BadModel, LlmosError, NotFound, NotSupported, ReadOnly, TooLarge, WrongKind,
)  # fmt: skip
from system.kernel_process import KernelProcess
from system.model_folder import safetensors, write_model
from system.puppet import puppet
from system.raw_client import RawClient

pytestmark = pytest.mark.usefixtures("footprint")

TEXT = {"type": "text", "text": "hello"}


@pytest.fixture
def model(shared: RawClient) -> Iterator[int]:
    """The null model; after the bad input it still answers."""
    model = shared.load("null")
    yield model
    assert shared.infer(model, "still")["choices"][0]["text"] == "still"
    assert shared.driver()["fields"]["restarts"] == 0
    shared.call("unload_model", model=model)


# ---- models


def broken(kernel: KernelProcess, name: str, **files: bytes | None) -> str:
    """A model with these files replaced, or removed; its path."""
    folder = write_model(kernel.models / name)
    for file, content in files.items():
        path = folder / file.replace("_json", ".json").replace("_safetensors", ".safetensors")
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    return f"/models/{name}"


def manifest(**fields: Any) -> bytes:
    return json.dumps({"format": 1, **fields}).encode()


BAD_MODELS: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no-json": ({"manifest_json": b"{"}, "manifest.json"),
    "no-object": ({"manifest_json": b"[]"}, "manifest.json"),
    "future": ({"manifest_json": manifest(format=99)}, "manifest.json"),
    "files-no-list": ({"manifest_json": manifest(files=7)}, "manifest.json"),
    "escape": ({"manifest_json": manifest(files=[{"name": "../x", "bytes": 1}])}, "manifest.json"),
    "twice": ({"manifest_json": manifest(files=[{"name": "a", "bytes": 1}] * 2)}, "manifest.json"),
    "missing": ({"manifest_json": manifest(files=[{"name": "gone.bin2", "bytes": 1}])}, "gone.bin2"),
    "size": ({"manifest_json": manifest(files=[{"name": "config.json", "bytes": 1}])}, "config.json"),
    "hash": (
        {"manifest_json": manifest(
            files=[{"name": "model.safetensors", "bytes": len(safetensors()), "sha256": "0" * 64},
                   {"name": "config.json", "bytes": 0}])},
        "config.json",
    ),
    "no-weights": ({"model_safetensors": None}, "model.safetensors"),
    "cut": ({"model_safetensors": safetensors()[:-2]}, "model.safetensors"),
    "cut-head": ({"model_safetensors": safetensors()[:20]}, "model.safetensors"),
    "empty": ({"model_safetensors": b""}, "model.safetensors"),
    "noise": ({"model_safetensors": bytes(range(256)) * 10}, "model.safetensors"),
    "config": ({"config_json": b"not json"}, "config.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_is_refused_with_the_file_named(shared_kernel: KernelProcess, shared: RawClient, name: str) -> None:
    files, culprit = BAD_MODELS[name]
    path = broken(shared_kernel, name, **files)
    error = shared.error("load_model", path=path, device=shared.grants["null0"])
    assert isinstance(error, BadModel)
    assert error.file == culprit
    assert error.why
    assert path.rpartition("/")[2] in str(error)
    assert shared.names("/proc/models") == []
    assert shared.driver("models")["fields"]["restarts"] == 0


@pytest.mark.parametrize("path", ["/models/nothing", "/models/null@none", "/models", "/models/null/config.json"])
def test_a_model_that_is_not_there_is_not_found(shared: RawClient, path: str) -> None:
    error = shared.error("load_model", path=path, device=shared.grants["null0"])
    assert isinstance(error, NotFound | NotSupported)
    assert path.rpartition("/")[2].partition("@")[0] in str(error)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"dtype": "float13"}, "options.dtype"),
        ({"max_context": 0}, "options.max_context"),
        ({"max_context": -1}, "options.max_context"),
        ({"keep_alive": "long"}, "options.keep_alive"),
        ({"quant": {"width": 99}}, "options.quant.width"),
        ({"dtipe": "auto"}, "options.dtipe"),
        ({"pin": 1}, "options.pin"),
    ],
)
def test_bad_load_options_name_themselves(shared: RawClient, options: dict[str, Any], name: str) -> None:
    error = shared.error("load_model", path="/models/null", device=shared.grants["null0"], options=options)
    assert isinstance(error, BadArgument)
    assert error.name == name
    assert error.want


# ---- inference


@pytest.mark.parametrize(
    ("sampling", "name", "got"),
    [
        ({"max_tokens": -1}, "sampling.max_tokens", "-1"),
        ({"temperature": -0.1}, "sampling.temperature", "-0.1"),
        ({"top_p": 0}, "sampling.top_p", "0"),
        ({"top_p": 1.5}, "sampling.top_p", "1.5"),
        ({"top_k": 1.5}, "sampling.top_k", "1.5"),
        ({"min_p": 2}, "sampling.min_p", "2"),
        ({"stop": [""]}, "sampling.stop[0]", "''"),
        ({"stop": "text"}, "sampling.stop", "'text'"),
        ({"n": 0}, "sampling.n", "0"),
        ({"seed": -1}, "sampling.seed", "-1"),
        ({"temprature": 1}, "sampling.temprature", "1"),
        ({"grammar": {"regexp": "a"}}, "sampling.grammar.regexp", "'a'"),
        ({"logprobs": 101}, "sampling.logprobs", "101"),
    ],
)
def test_bad_sampling_names_the_field_and_the_value(
    shared: RawClient, model: int, sampling: dict[str, Any], name: str, got: str
) -> None:
    error = shared.error("infer", model=model, input=TEXT, sampling=sampling)
    assert isinstance(error, BadArgument)
    assert (error.name, error.got) == (name, got)


def test_an_unknown_field_is_told_what_was_meant(shared: RawClient, model: int) -> None:
    error = shared.error("infer", model=model, input=TEXT, sampling={"temprature": 1})
    assert "did you mean 'temperature'" in str(error)
    error = shared.error("infer", modell=model, input=TEXT)
    assert "did you mean 'model'" in str(error)


@pytest.mark.parametrize(
    "content",
    [{"type": "text"}, {"type": "song"}, {"text": "x"}, {}, "x", {"type": "tokens", "ids": [-1]},
     {"type": "tokens", "ids": ["a"]}, {"type": "chat", "messages": "x"}, {"type": "text", "text": 5}],
)  # fmt: skip
def test_bad_inputs_are_bad_arguments(shared: RawClient, model: int, content: Any) -> None:
    error = shared.error("infer", model=model, input=content)
    assert isinstance(error, BadArgument)
    assert error.name.startswith("input")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"type": "tokens", "ids": [257]}, BadArgument),
        ({"type": "tokens", "ids": [2**40]}, BadArgument),
        ({"type": "chat", "messages": []}, BadArgument),
        ({"type": "chat", "messages": [{"role": "user"}]}, BadArgument),
        ({"type": "parts", "parts": [{"type": "image", "data": b"png"}]}, NotSupported),
        ({"type": "tensors", "named": {"x": {"dtype": "float32", "shape": [4], "data": b"abc"}}}, BadArgument),
        ({"type": "tensors", "named": {"x": {"dtype": "float99", "shape": [1], "data": b"abcd"}}}, BadArgument),
        ({"type": "tensors", "named": {"x": {"dtype": "uint8", "shape": [2**62, 4]}}}, BadArgument),
    ],
)
def test_inputs_the_driver_refuses_are_typed_errors(
    shared: RawClient, model: int, content: Any, kind: type[LlmosError]
) -> None:
    error = shared.error("infer", model=model, input=content)
    assert isinstance(error, kind), error


def test_a_prompt_longer_than_the_context_says_both_lengths(shared: RawClient, model: int) -> None:
    error = shared.wait(shared.start(model, "x" * 2049)).error
    assert isinstance(error, TooLarge)
    assert (error.limit, error.got) == (2048, 2049)
    assert shared.infer(model, "x" * 2048)["usage"]["prompt_tokens"] == 2048


@pytest.mark.parametrize("task", ["song-writing", "", "x" * 1000])
def test_an_unknown_task_is_not_supported(shared: RawClient, model: int, task: str) -> None:
    error = shared.error("infer", model=model, input=TEXT, task=task)
    assert isinstance(error, NotSupported)


@pytest.mark.parametrize("options", [{"pooling": "max"}, {"max_tokens": 0}, {"normalise": True}])
def test_bad_embed_options_are_bad_arguments(shared: RawClient, model: int, options: dict[str, Any]) -> None:
    assert isinstance(shared.error("embed", model=model, input=TEXT, options=options), BadArgument)


# ---- handles


@pytest.mark.parametrize("handle", [0, -1, 10**6, 2**63 - 1])
def test_a_number_that_is_no_handle(shared: RawClient, handle: int) -> None:
    error = shared.error("stat_object", handle=handle)
    assert isinstance(error, BadHandle)
    assert str(handle) in str(error)


@pytest.mark.parametrize("handle", [1.5, "1", None, [1], True])
def test_what_cannot_be_a_handle(shared: RawClient, handle: Any) -> None:
    error = shared.error("stat_object", handle=handle)
    assert isinstance(error, BadArgument)
    assert error.name == "handle"


def test_a_handle_of_another_session(shared_kernel: KernelProcess, shared: RawClient, model: int) -> None:
    with puppet(shared_kernel.socket) as other:
        other.hello()
        with pytest.raises(BadHandle):
            other.call("stat_object", handle=model)
        with pytest.raises((BadHandle, WrongKind)):
            other.call("infer", model=model, input=TEXT)


def test_a_buffer_that_is_none(shared: RawClient, model: int) -> None:
    data = {"type": "buffer", "buffer": model, "offset": 0, "length": 4}
    content = {"type": "tensors", "named": {"x": {"dtype": "float32", "shape": [1], "data": data}}}
    assert isinstance(shared.error("infer", model=model, input=content), WrongKind)
    buffer = shared.call("alloc_buffer", system=shared.system, bytes=4096)["handle"]
    for offset, length in ((4096, 4), (2**62, 4), (0, 2**62)):
        data |= {"buffer": buffer, "offset": offset, "length": length}
        assert isinstance(shared.error("infer", model=model, input=content), BadArgument | TooLarge)
    shared.call("close_handle", handle=buffer)


# ---- paths


@pytest.mark.parametrize("call", ["open_file", "list_dir", "stat_path", "remove_path", "load_model", "search_fs"])
@pytest.mark.parametrize(
    "path", ["/home/../../etc/passwd", "/home/./x", "/home//x", "home", "", "/home/\0", "/models/..", "/" * 5000]
)
def test_a_path_that_could_escape_is_refused(shared: RawClient, call: str, path: str) -> None:
    body = {"search_fs": {"query": "x"}, "load_model": {"device": shared.grants["null0"]}}.get(call, {})
    error = shared.error(call, path=path, **body)
    assert isinstance(error, BadArgument)
    assert error.name == "path"


@pytest.mark.parametrize("call", ["open_file", "stat_path", "list_dir", "remove_path"])
def test_a_link_that_leaves_its_mount_leads_nowhere(
    shared_kernel: KernelProcess, shared: RawClient, call: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    inside = shared_kernel.home / "files" / f"link-{call}"
    inside.symlink_to(tmp_path)
    assert isinstance(shared.error(call, path=f"/home/link-{call}/secret"), LlmosError)
    assert (tmp_path / "secret").read_text() == "secret"
    inside.unlink()


@pytest.mark.parametrize("mode", ["w", "a", "x"])
def test_what_is_mounted_for_reading_cannot_be_written(shared: RawClient, mode: str) -> None:
    for path in ("/sys/version", "/dev/null0", "/proc/models/x"):
        assert isinstance(shared.error("open_file", path=path, mode=mode), ReadOnly)


def test_a_mount_of_what_does_not_exist(shared: RawClient, tmp_path: Path) -> None:
    for filesystem, source, kind in (
        ("nothing", "/", NotFound),
        ("null0", "/", NotFound),
        ("files", str(tmp_path / "none"), NotFound),
        ("files", "relative", BadArgument),
    ):
        error = shared.error("mount_fs", system=shared.system, path="/mnt", filesystem=filesystem, source=source)
        assert isinstance(error, kind), error
    assert "mnt" not in shared.names("/")
