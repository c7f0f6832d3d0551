"""What the operating system costs: calls, streams of calls, payloads, start-up; each beside raw pyzmq or memcpy."""

from __future__ import annotations

import json
import mmap
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import zmq
from measure import REPEATS, Row, interleaved, quantile, timed

from llmos.syscalls import calls
from llmos.syscalls.shm import Mapping
from llmos.syscalls.types import BufferRef, Handle, Sampling, Tensor, Tensors, Text
from llmos.syscalls.wire import MessageKind, pack
from llmos.userland.client import Client

HERE = Path(__file__).parent
MIB = 1 << 20


@dataclass
class Bench:
    """A kernel with the null device, a client, and a raw echo server on the same machine."""

    folder: Path
    kernel: subprocess.Popen[bytes]
    client: Client
    model: Handle
    echo: zmq.Socket[bytes]


def start_kernel(folder: Path, drivers: str) -> tuple[subprocess.Popen[bytes], float]:
    """A kernel of its own, and the seconds from the start of its process until it accepted calls."""
    read, write = os.pipe()
    argv = [
        sys.executable,
        "-P",
        "-m",
        "llmos.kernel",
        "--runtime",
        str(folder / "run"),
        "--home",
        str(folder / "home"),
    ]
    argv += ["--drivers", drivers, "--parent", str(os.getpid()), "--ready-fd", str(write)]
    began = time.perf_counter()
    process = subprocess.Popen(argv, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    os.read(read, 64)
    seconds = time.perf_counter() - began
    os.close(read)
    return process, seconds


@contextmanager
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmos-bench-")))
        kernel, _ = start_kernel(folder, "null0,models,files")
        stack.callback(kernel.wait)
        stack.callback(kernel.terminate)
        client = stack.enter_context(Client(f"ipc://{folder}/run/kernel.sock"))
        peer = subprocess.Popen([sys.executable, str(HERE / "peers" / "echo.py"), f"ipc://{folder}/echo"])
        stack.callback(peer.wait)
        stack.callback(peer.kill)
        context = stack.enter_context(zmq.Context())
        echo = stack.enter_context(context.socket(zmq.DEALER))
        echo.connect(f"ipc://{folder}/echo")
        yield Bench(folder, kernel, client, load_null(folder, client), echo)


def load_null(folder: Path, client: Client) -> Handle:
    """A model of the null device: a folder with one small tensor."""
    model = folder / "models" / "null"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"model_type": "null", "max_position_embeddings": 4096}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    system = client.welcome.system
    client.call(calls.MountFs(system=system, path="/bench", filesystem="models", source=str(folder / "models")))
    return client.call(calls.LoadModel(path="/bench/null")).handle


def echo_case(b: Bench, request: Sequence[bytes], answer: Sequence[bytes], count: int) -> list[float]:
    """Round trips of the same bytes through raw sockets."""
    b.echo.send_multipart([b"set", *answer])
    b.echo.recv_multipart()

    def once() -> None:
        b.echo.send_multipart(list(request))
        b.echo.recv_multipart()

    return timed(once, count)


def round_trips(b: Bench) -> list[Row]:
    """A call answered by the kernel, one answered by a host, and one inference, each beside a raw echo."""
    system = b.client.welcome.system
    null = calls.StatObject(handle=system)
    host = calls.StatPath(path="/home")
    infer = calls.Infer(model=b.model, input=Text(text="x"), sampling=Sampling(max_tokens=1))
    echoes = {name: exchange(b, call) for name, call in (("null", null), ("host", host), ("infer", infer))}
    samples = interleaved(
        {
            "echo null": lambda: echo_case(b, *echoes["null"], 1000),
            "null": lambda: timed(lambda: b.client.call(null), 1000),
            "echo host": lambda: echo_case(b, *echoes["host"], 500),
            "host": lambda: timed(lambda: b.client.call(host), 500),
            "echo infer": lambda: echo_case(b, *echoes["infer"], 500),
            "infer": lambda: timed(lambda: b.client.call(infer), 500),
        }
    )
    aims = {"null": 1.6, "host": 3.0}
    rows = []
    for name, what in (
        ("null", "null call"),
        ("host", "call through a host"),
        ("infer", "inference of one null token"),
    ):
        for q, label in ((0.5, "p50"), (0.99, "p99")):
            ours, peer = quantile(samples[name], q) * 1e6, quantile(samples[f"echo {name}"], q) * 1e6
            aim = aims.get(name) if q == 0.5 else None
            text = f"<= {aim} x echo" if aim else ""
            rows.append(
                Row(f"{what}, {label}", ours, peer, "us", ours / peer, text, ours / peer <= aim if aim else None)
            )
    return rows


def exchange(b: Bench, call: calls.StatObject | calls.StatPath | calls.Infer) -> tuple[list[bytes], list[bytes]]:
    """The frames of a call, and an answer of the size that the kernel gave."""
    name = next(s for s in ("stat_object", "stat_path", "infer") if s.replace("_", "") == type(call).__name__.lower())
    frames = pack(MessageKind.CALL, 1, name, call)
    value = b.client.call(call)
    return frames, pack(MessageKind.REPLY, 1, "", {"value": value, "reasons": [], "request": "r-000000-1000"})


def throughput(b: Bench) -> list[Row]:
    """Small calls a second, 64 in flight per client: one client, and sixteen in processes of their own."""
    address = f"ipc://{b.folder}/run/kernel.sock"
    one = [sum(crowd(address, 1, 10_000)) for _ in range(REPEATS)]
    many = [sum(crowd(address, 16, 1_000)) for _ in range(REPEATS)]
    raw = [raw_rate(b, 10_000) for _ in range(REPEATS)]
    peer = statistics.median(raw)
    single, crowded = statistics.median(one), statistics.median(many)
    return [
        Row("calls a second, 1 pipelined client", single, peer, "/s", single / peer, ">= 10000", single >= 10_000),
        Row("calls a second, 16 pipelined clients", crowded, peer, "/s", crowded / peer, "", None),
    ]


def crowd(address: str, clients: int, each: int) -> list[float]:
    argv = [sys.executable, str(HERE / "peers" / "caller.py"), address, str(each), "64"]
    processes = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(clients)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [float(process.communicate()[0]) for process in processes]


def raw_rate(b: Bench, count: int) -> float:
    """The same with raw sockets: 64 small messages in flight."""
    request, answer = exchange(b, calls.StatObject(handle=b.client.welcome.system))
    b.echo.send_multipart([b"set", *answer])
    b.echo.recv_multipart()
    for _ in range(64):
        b.echo.send_multipart(request)
    began = time.perf_counter()
    for _ in range(count):
        b.echo.recv_multipart()
        b.echo.send_multipart(request)
    seconds = time.perf_counter() - began
    for _ in range(64):
        b.echo.recv_multipart()
    return count / seconds


def payloads(b: Bench) -> list[Row]:
    """Bytes into a reused buffer and to a host that reads them in place, or copies them; beside one memcpy."""
    return [*payload(b, 1, 50), *payload(b, 64, 5)]


def payload(b: Bench, mib: int, count: int) -> list[Row]:
    size = mib * MIB
    source = os.urandom(size)
    buffer = b.client.call(calls.AllocBuffer(system=b.client.welcome.system, bytes=size))
    tensor = Tensor(dtype="uint8", shape=[size], data=BufferRef(buffer=buffer.handle, offset=0, length=size))
    with mmap.mmap(-1, size) as target, Mapping(buffer.path, writable=True, size=size) as mapping:

        def send(task: str) -> None:
            mapping.view[:] = source
            b.client.call(calls.Infer(model=b.model, input=Tensors(named={"x": tensor}), task=task))

        def copy() -> None:
            target[:] = source

        ways: dict[str, Callable[[], None]] = {
            "touch": lambda: send("touch"), "copy": lambda: send("copy"), "memcpy": copy
        }  # fmt: skip
        for way in ways.values():
            way()
        samples = interleaved({name: partial(timed, way, count) for name, way in ways.items()})
    b.client.call(calls.CloseHandle(handle=buffer.handle))
    rates = {name: size / quantile(repeats, 0.5) / 1e9 for name, repeats in samples.items()}
    rows = []
    for task, what in (("touch", "read in place by a host"), ("copy", "copied again by a host")):
        ratio = rates[task] / rates["memcpy"]
        aimed = mib == 64 and task == "touch"
        aim, met = (">= 0.5 x memcpy", ratio >= 0.5) if aimed else ("", None)
        rows.append(Row(f"{mib} MiB, {what}", rates[task], rates["memcpy"], "GB/s", ratio, aim, met))
    return rows


def start_up() -> list[Row]:
    """From the start of the process to READY, and the resident memory of an idle kernel; the peer is bare Python."""
    ready, bare, resident = [], [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
            kernel, seconds = start_kernel(Path(folder), "models,files")
            resident.append(psutil.Process(kernel.pid).memory_info().rss / 1e6)
            kernel.terminate()
            kernel.wait()
        ready.append(seconds)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", "import zmq, msgpack, msgspec, psutil"], check=True)
        bare.append(time.perf_counter() - began)
    ours, peer, memory = statistics.median(ready), statistics.median(bare), statistics.median(resident)
    return [
        Row("start to READY", ours, peer, "s", ours / peer, "<= 0.4 s", ours <= 0.4, "peer: Python with its imports"),
        Row("resident memory when idle", memory, None, "MB", None, "< 60 MB", memory < 60),
    ]
