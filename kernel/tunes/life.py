"""The life of one tuning task: room for it, its job at a driver, deaths of that, and its result as an entry.

The job writes checkpoints into a folder that outlives its host and this kernel: whichever of them dies, the task goes
on from the last one. A job at which its host dies again and again, without coming any further, fails.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.syscalls.driver import HostCommit, HostPause, HostRelease, HostStage, HostStat, HostTune, Tuning
from llmos.syscalls.errors import Conflict, DriverFailed, NoSpace, NotFound, PeerGone, from_wire
from llmos.syscalls.events import TuneEnded
from llmos.syscalls.types import WorkClass

from ..ledger import HOST
from ..link import Link
from ..locating import locate_at, release
from ..namespace import told_from_outside
from ..objects import ModelObject
from ..pending import Future
from .exchange import exchange
from .promotion import PROMOTED, Rule
from .runs import Place, Run
from .stored import stored
from .tuned import WORK, Tuned, candidate, exists, manifest, sizes

if TYPE_CHECKING:
    from ..core import Kernel

DEATHS = 3
"""So often the host may die at a job that comes no further in between."""


class Life:
    """What is done for each task from its beginning to its end."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._folder = kernel.config.paths.home / "tunes"

    def folder(self, run: Run) -> Path:
        """Where its checkpoints and its result lie."""
        return self._folder / run.id

    def forget(self, name: str) -> None:
        """Remove the folder of a task."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def tell(self, tuned: Tuned, stage: str) -> None:
        """Say how far a task is."""
        run, task = tuned.run, tuned.task
        fraction = round(run.step / run.steps, 4) if run.steps else 0.0
        task.progress = {
            "done": run.step, "total": run.steps, "unit": "steps", "stage": stage, "fraction": fraction, **run.values,
        }  # fmt: skip
        self._kernel.emit("task", task.id, state=task.status, work=WORK, **task.progress)

    # ---- before it begins

    async def check_out(self, out: Place) -> None:
        """What would be refused at the end is refused now. Raises Exists, ReadOnly, BadArgument."""
        link = await self._filesystem(out)
        with told_from_outside(out.inner, out.path):
            if "@" not in out.inner and await self._is_there(link, out):
                raise exists(out.path)
            staged = await link.call(HostStage(source=out.source, path=out.inner))
            link.call(HostRelease(token=staged.token))

    async def _is_there(self, link: Link, out: Place) -> bool:
        """Whether anything has the name, whatever its version."""
        try:
            await link.call(HostStat(source=out.source, path=out.inner.partition("@")[0]))
        except NotFound:
            return False
        return True

    async def _filesystem(self, place: Place) -> Link:
        driver = self._kernel.filesystem(place.filesystem, place.path)
        await self._kernel.supervisor.wait_ready(driver)
        assert driver.link is not None
        return driver.link

    async def admit(self, tuned: Tuned, model: ModelObject) -> None:
        """Have the job planned by its driver, and its bytes promised. Raises what either raises."""
        kernel, run = self._kernel, tuned.run
        plan = await self.plan(tuned, model)
        run.steps, run.tokens, run.facts = plan.steps, plan.tokens, plan.facts
        here, beside = sizes(plan.rows)
        kernel.quotas.check_bytes(run.owner, sum(here.values()), tuned.task.name, without=run.id)
        reason = await kernel.rooms.admit(model.driver, run.id, tuned.task.name, here)
        kernel.ledger.resize(HOST, run.id, beside)
        tuned.task.why, tuned.admitted = [reason], True

    async def plan(self, tuned: Tuned, model: ModelObject) -> Tuning:
        """What the job would take, as its driver says."""
        data = tuned.run.data
        tuned.held.append(await locate_at(self._kernel, data.filesystem, data.source, data.inner, data.path))
        return await self._ask(tuned, model, dry_run=True)

    def give_back(self, tuned: Tuned) -> None:
        """Its driver does not have it any more: its bytes and its data are free."""
        tuned.admitted = tuned.begun = tuned.pausing = tuned.rests = False
        self._kernel.ledger.release(tuned.run.id)
        for driver, located in tuned.held:
            release(driver, located)
        tuned.held.clear()
        assert tuned.model is not None
        self._kernel.rooms.look(tuned.model.driver.name)

    def _ask(self, tuned: Tuned, model: ModelObject, *, dry_run: bool) -> Future[Tuning]:
        run, link, folder = tuned.run, model.driver.link, self.folder(tuned.run)
        if link is None:
            raise PeerGone(f"driver {model.driver.name} has ended")
        return link.call(HostTune(
            id=run.id, model=model.host_id, recipe=run.recipe, data=tuned.held[-1][1], folder=str(folder / "result"),
            keep=str(folder / "keep"), base_path=run.base.place.path, dry_run=dry_run,
            work_class=WorkClass(run.work_class), models={name: each.host_id for name, each in tuned.others.items()},
        ))  # fmt: skip

    # ---- from its beginning to its end

    async def live(self, tuned: Tuned) -> TuneEnded:
        """To its end, through deaths of its host. Raises what ends it otherwise."""
        while True:
            try:
                ended = await self._once(tuned, await self._ready(tuned))
            except PeerGone as error:
                self._died(tuned, error)
                continue
            finally:
                self.give_back(tuned)
            if ended.error is not None:
                raise from_wire(ended.error)
            if ended.reason == "done":
                await self._store(tuned, ended)
                return ended
            if not tuned.again or tuned.cancelled:
                return ended
            tuned.again = False

    async def unpaused(self, tuned: Tuned) -> None:
        """Wait until a task is wanted that its driver does not have."""
        while tuned.task.status == "paused":
            tuned.wanted = self._kernel.runner.future()
            await tuned.wanted

    async def _ready(self, tuned: Tuned) -> ModelObject:
        """Its model, awake, with room for the job beside it."""
        kernel, model = self._kernel, tuned.model
        assert model is not None
        if not tuned.admitted:
            await self.unpaused(tuned)
            await kernel.supervisor.wait_ready(model.driver)
            for each in tuned.models:
                await kernel.models.wake(each)
            await self.admit(tuned, model)
        return model

    async def _once(self, tuned: Tuned, model: ModelObject) -> TuneEnded:
        """Once at the driver, until it says how the job ended there."""
        runner, folder = self._kernel.runner, self.folder(tuned.run)
        tuned.over, tuned.kept_at = runner.future(), runner.clock()
        try:
            shutil.rmtree(folder / "result", ignore_errors=True)
            (folder / "result").mkdir(mode=0o700, parents=True)
            (folder / "keep").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise NoSpace(f"{folder} cannot be made: {error.strerror}") from None
        self._kernel.sharing.tuned(model.driver.name)
        await self._ask(tuned, model, dry_run=False)
        tuned.begun = True
        self.tell(tuned, "begin")
        if tuned.task.status == "paused":
            self.rest(tuned)
        return await tuned.over

    def rest(self, tuned: Tuned) -> None:
        """Pause its job, which has nothing that is not in its checkpoint."""
        tuned.rests = True
        if tuned.link is not None:
            tuned.link.call(HostPause(id=tuned.run.id))

    def _died(self, tuned: Tuned, error: PeerGone) -> None:
        """The host has died under it. Raises `error` where the kernel ends too, DriverFailed for the last time."""
        run = tuned.run
        if self._kernel.draining or tuned.cancelled:
            raise error
        if run.step > tuned.furthest:
            tuned.furthest, tuned.deaths = run.step, 0
        tuned.deaths += 1
        if tuned.deaths >= DEATHS:
            text = f"its driver ended {tuned.deaths} times and the job came no further: {error}"
            raise DriverFailed(text, cause=str(error))
        self.tell(tuned, "restart")
        self._kernel.log("task", f"{run.id} begins again from its last checkpoint: {error}", run.id, level="warning")

    async def _store(self, tuned: Tuned, ended: TuneEnded) -> None:
        """The result becomes an entry of the catalogue, with where it comes from: what its name means from now on, or
        where its recipe's condition does not hold a candidate beside that."""
        run, tuned.storing = tuned.run, True
        self.tell(tuned, "store")
        good, out = not run.recipe.promote_if or self._judge(tuned, ended), run.out
        link = await self._filesystem(out)
        with told_from_outside(out.inner, out.path):
            if not good and not ("@" in out.inner and await self._is_there(link, out)):
                out = candidate(out)
            run.version = await stored(link, out, run.id) or await self._commit(link, out, tuned, ended, good)
        run.out = out
        if good:
            await exchange(self._kernel, tuned.asked, run)

    async def _commit(self, link: Link, out: Place, tuned: Tuned, ended: TuneEnded, good: bool) -> str:
        """The version that the result is from now on. Raises Exists."""
        run = tuned.run
        result = self.folder(run) / "result"
        staged = await link.call(HostStage(source=out.source, path=out.inner, take=str(result)))
        expected = "" if good and "@" not in out.inner else None
        told = manifest(run, ended) | ({} if good else {"candidate": True})
        commit = HostCommit(token=staged.token, manifest=told, expected_version=expected)
        try:
            return (await link.call(commit)).version
        except Conflict:
            raise exists(out.path) from None
        finally:
            link.call(HostRelease(token=staged.token))

    def _judge(self, tuned: Tuned, ended: TuneEnded) -> bool:
        """Whether the recipe's condition holds, which is a decision like any other."""
        run = tuned.run
        reason = Rule.of(run.recipe.promote_if).judge({**run.values, **ended.values})
        told = self._kernel.decide([run.id], reason)
        tuned.task.why = [*tuned.task.why, told]
        run.promoted = reason.code == PROMOTED
        return run.promoted
