"""Ours through the operating system: a kernel, its host process with the CPU device, and this process as the client."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ipc import start_kernel

from llmos.syscalls import calls
from llmos.syscalls.types import Handle, LoadOptions, Quant, Sampling, Tokens
from llmos.userland.aio import AsyncClient

from .peer import Answer, Clock, Job, Room


class ThroughKernel:
    """Every request is a stream; a token's time is when the client has it."""

    continuous = True

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        self._stack = contextlib.ExitStack()
        run = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="llmos-bench-")))
        (run / "home").mkdir()
        (run / "home" / "config.toml").write_text(f"[drivers.cpu0]\nthreads = {room.threads}\n")
        kernel, _ = start_kernel(run, "cpu0,models")
        self._stack.callback(kernel.wait)
        self._stack.callback(kernel.terminate)
        self._loop = asyncio.Runner()
        self._stack.callback(self._loop.close)
        self._client = self._loop.run(AsyncClient.connect(f"ipc://{run}/run/kernel.sock"))
        self._stack.callback(lambda: self._loop.run(self._client.close()))
        return self._loop.run(self._load(folder, room))

    async def _load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        system = self._client.welcome.system
        source = str(folder.parent)
        await self._client.call(calls.MountFs(system=system, path="/bench", filesystem="models", source=source))
        quant = None if room.bits == 16 else Quant(width=8 if room.bits == 8 else 4)
        options = LoadOptions(max_context=room.context, quant=quant)
        info = await self._client.call(calls.LoadModel(path=f"/bench/{folder.name}", options=options))
        self._model: Handle = info.handle
        return {"llmos": importlib.metadata.version("llmos"), "rung": info.rung}

    def run(self, jobs: Sequence[Job], last: int | None = None) -> list[Answer]:
        return self._loop.run(self._run(jobs))

    async def _run(self, jobs: Sequence[Job]) -> list[Answer]:
        clock, answers = Clock(), [Answer() for _ in jobs]
        async with asyncio.TaskGroup() as group:
            for job, answer in zip(jobs, answers, strict=True):
                group.create_task(self._one(job, answer, clock))
        return answers

    async def _one(self, job: Job, answer: Answer, clock: Clock) -> None:
        await asyncio.sleep(job.at - clock())
        answer.submitted = clock()
        sampling = Sampling(max_tokens=job.new_tokens, ignore_eos=True)
        call = calls.InferStream(model=self._model, input=Tokens(ids=list(job.prompt)), sampling=sampling)
        async with await self._client.stream(call) as stream:
            async for chunk in stream:
                now = clock()
                answer.tokens.extend(chunk.tokens)
                answer.times.extend(now for _ in chunk.tokens)

    def close(self) -> None:
        if hasattr(self, "_stack"):
            self._stack.close()
