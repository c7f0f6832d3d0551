"""HTTP servers of peers on the same weights, each in its own environment, all on the CPU with as many threads."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.process import python

from .wire import Connection, Refused, Target

START_S = 600.0
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
GGUF = "model-text-f16.gguf"


class NotServed(Exception):
    """A server did not start; the text says why."""


@dataclass(frozen=True)
class Kind:
    """How a server is started: its environment below build/peers, its command for a folder, a port and threads."""

    environment: str
    command: Callable[[Path, int, int], Sequence[str]]
    model: Callable[[Path], str] = str
    settings: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)
    health: str = "/health"
    embed: Sequence[str] | None = None
    """What makes it serve embeddings instead; None: it serves none."""


def _vllm(folder: Path, port: int, threads: int) -> list[str]:
    return [
        "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "bfloat16", "--max-model-len", "1024", "--max-num-seqs", "32", "--enforce-eager",
        "--no-enable-prefix-caching", "--served-model-name", "bench", "--disable-uvicorn-access-log",
    ]  # fmt: skip


def _transformers(folder: Path, port: int, threads: int) -> list[str]:
    start = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    return [
        "-c", start, "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "bfloat16",
        "--continuous-batching", "--log-level", "error",
    ]  # fmt: skip


def _llama(folder: Path, port: int, threads: int) -> list[str]:
    return [
        "-m", "llama_cpp.server", "--model", str(folder / GGUF), "--host", "127.0.0.1", "--port", str(port),
        "--n_ctx", "1024", "--n_threads", str(threads), "--n_threads_batch", str(threads), "--model_alias", "bench",
        "--verbose", "false", "--interrupt_requests", "false",
    ]  # fmt: skip


KINDS = {
    "vllm": Kind(
        "vllm", _vllm, lambda _: "bench",
        {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
         "VLLM_LOGGING_LEVEL": "ERROR"},
        {"ignore_eos": True}, embed=("--runner", "pooling", "--convert", "embed"),
    ),
    "transformers": Kind("serve", _transformers),
    "llama.cpp": Kind("llama", _llama, lambda _: "bench", health="/v1/models", embed=("--embedding", "true")),
}  # fmt: skip
"""llama.cpp's server of llama-cpp-python answers one request at a time."""


def text_folder(weights: Path) -> Path:
    """The same weights with a chat template beside them, made once."""
    folder = weights.with_name("text")
    if folder.exists():
        return folder
    part = Path(tempfile.mkdtemp(dir=weights.parent))
    for file in weights.iterdir():
        if file.name == "tokenizer_config.json":
            told = {**json.loads(file.read_text()), "chat_template": TEMPLATE}
            (part / file.name).write_text(json.dumps(told))
        else:
            os.link(file, part / file.name)
    part.chmod(0o755)
    part.rename(folder)
    return folder


def gguf_of(folder: Path) -> None:
    """The same as GGUF with its vocabulary, made once in the environment that has the package for it."""
    if (folder / GGUF).exists():
        return
    code = "import sys; from pathlib import Path; from peers.gguf_file import write; " + (
        "write(Path(sys.argv[1]), Path(sys.argv[2]), vocabulary=True)"
    )
    part = folder / f"{GGUF}.part"
    perf = Path(__file__).resolve().parents[1]
    subprocess.run([python("llama"), "-c", code, str(folder), str(part)], check=True, cwd=perf)
    part.rename(folder / GGUF)


@contextlib.contextmanager
def served(name: str, folder: Path, threads: int, *, embed: bool = False) -> Iterator[Served]:
    """A peer's server with the model of a folder, ready for chats or for embeddings. Raises NotServed."""
    kind = KINDS[name]
    if embed and kind.embed is None:
        raise NotServed(f"{name} serves no embeddings of such a model")
    interpreter = python(kind.environment)
    if not interpreter.exists():
        raise NotServed(f"{name}: build/peers/{kind.environment} is not there: make peers")
    if name == "llama.cpp":
        gguf_of(folder)
    port = _free_port()
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "0"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(interpreter), "-P", *kind.command(folder, port, threads), *(kind.embed or () if embed else ())],
            env={**os.environ, **quiet, **kind.settings}, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        try:
            _await(name, process, port, kind.health)
            yield Served(Target(name, port, kind.model(folder), extra=kind.extra), process.pid, kind.health)
        except NotServed as error:
            said.seek(0)
            last = said.read()[-2000:].decode(errors="replace")
            raise NotServed(f"{error}; it said last: {last}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class Served:
    """A server that runs. While another one is measured it is stopped, so that it takes no time."""

    target: Target
    group: int
    health: str

    @contextlib.contextmanager
    def awake(self) -> Iterator[Target]:
        """Let it run."""
        os.killpg(self.group, signal.SIGCONT)
        try:
            yield self.target
        finally:
            os.killpg(self.group, signal.SIGSTOP)


def _await(name: str, process: subprocess.Popen[bytes], port: int, path: str) -> None:
    request = Target(name, port, "").request("GET", path)
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise NotServed(f"{name} ended with status {process.returncode}")
        with contextlib.suppress(OSError, Refused), Connection(port) as connection:
            connection.ask(request)
            return
        time.sleep(0.2)
    raise NotServed(f"{name} was not ready within {START_S:g} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
