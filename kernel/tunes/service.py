"""All tuning tasks: begun, paused, resumed, checkpointed, cancelled, told of by drivers, and ended."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from llmos.syscalls.calls import Tune
from llmos.syscalls.driver import HostCancel, HostCheckpoint, HostResume
from llmos.syscalls.errors import BadState, Cancelled, LlmosError, NoSpace, NotSupported, PeerGone
from llmos.syscalls.events import TuneEnded, TuneProgress
from llmos.syscalls.types import Handle, Kind, Task, TunePlan, WorkClass

from ..objects import ModelObject, TaskObject
from ..requests import Request
from ..supervisor import Driver
from .life import Life
from .promotion import Rule
from .others import find, noted
from .recall import recall
from .runs import Place, Run, Runs
from .tuned import WORK, Tuned, class_of, place_of, sentence, sizes

if TYPE_CHECKING:
    from ..core import Kernel

CHECKPOINT_S = 300.0
"""A job whose recipe does not say when to write a checkpoint is asked for one so often."""


class TuneService:
    """All tuning tasks that have not ended, and the records of those that have."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._tuned: dict[str, Tuned] = {}
        self._life = Life(kernel)
        self.runs = Runs(kernel.config.paths.home / "runs")

    def of(self, task: TaskObject) -> Tuned | None:
        """What belongs to a task; None of one that does not tune, or has ended."""
        return self._tuned.get(task.id)

    def on(self, model: ModelObject) -> list[str]:
        """The tasks that tune a model, or look at it."""
        return [name for name, tuned in self._tuned.items() if model in tuned.models]

    def tasks_on(self, driver: Driver) -> set[str]:
        """The tasks whose bytes a driver holds."""
        return {name for name, each in self._tuned.items() if each.model is not None and each.model.driver is driver}

    @property
    def busy(self) -> bool:
        """Whether any driver works for a task."""
        return any(tuned.begun for tuned in self._tuned.values())

    # ---- beginning

    async def start(self, request: Request, call: Tune) -> Task:
        """Begin a task, once all is checked that can be before: paths, recipe, data and room.

        Raises:
            NotSupported: the model is an adapter, or its driver cannot do that.
            Exists: something is at `out`.
            BadArgument, NotFound, ReadOnly, NoDeviceMemory, OverQuota, NoSpace, DriverFailed, BadState.
        """
        kernel, session = self._kernel, request.session
        model = kernel.model_of(request.entries["model"])
        if model.base is not None:
            why = f"it shares the weights of {model.base.name}: tune that"
            raise NotSupported(f"{model.name} is an adapter; {why}", why=why)
        kernel.tasks.check_jobs(session.owner)
        if call.recipe.promote_if:
            Rule.of(call.recipe.promote_if)
        data = place_of(*session.mounts.resolve(call.data), call.data)
        out = place_of(*session.mounts.writable(call.out), call.out)
        await self._life.check_out(out)
        others = find(kernel, session, model, call.recipe)
        tuned = self._tuning(self._run(request, call, model, data, out), model)
        tuned.asked, tuned.others = request, others
        tuned.run.others = {name: noted(each) for name, each in others.items()}
        for each in tuned.models:
            kernel.residency.hold(each.id)
        try:
            await kernel.supervisor.wait_ready(model.driver)
            for each in tuned.models:
                await kernel.models.wake(each, request)
            if call.dry_run:
                return await self._planned(tuned, model)
            await self._life.admit(tuned, model)
            self._keep(tuned.run, must=True)
            handle = kernel.add_object(tuned.task, session, kernel.sessions.rights_of_maker(session, tuned.task))
        except LlmosError:
            self._drop(tuned)
            raise
        session.roots[tuned.run.id] = handle
        kernel.log("task", f"{tuned.run.id}: {tuned.task.name}, {tuned.run.steps} steps", tuned.run.id)
        self._begin(tuned)
        return Task(handle=handle, id=tuned.run.id, kind=WORK, state="running")

    async def _planned(self, tuned: Tuned, model: ModelObject) -> Task:
        """What it would take; nothing of it stays."""
        plan = await self._life.plan(tuned, model)
        free = self._kernel.ledger.free(model.driver.name)
        self._drop(tuned)
        needed = sum(sizes(plan.rows)[0].values())
        told = TunePlan(
            rows=plan.rows, needed=needed, free=free, steps=plan.steps, tokens=plan.tokens, facts=plan.facts
        )
        return Task(handle=Handle(0), id="", kind=WORK, state="planned", plan=told)

    def _drop(self, tuned: Tuned) -> None:
        """It never begins."""
        self._life.give_back(tuned)
        self._leave(tuned)

    def _run(self, request: Request, call: Tune, model: ModelObject, data: Place, out: Place) -> Run:
        kernel = self._kernel
        return Run(
            id=kernel.new_id("t"), owner=request.session.owner, ambient=request.session.ambient,
            created=kernel.wall(), base=noted(model), recipe=call.recipe, data=data, out=out,
            work_class=class_of(call.work_class), code=str(kernel.facts()["version"]),
        )  # fmt: skip

    def _tuning(self, run: Run, model: ModelObject | None) -> Tuned:
        task = TaskObject(
            id=run.id, kind=Kind.TASK, name=f"{run.recipe.method} {run.base.name} to {run.out.path}", owner=run.owner,
            since=run.created, argv=[], work=WORK, status=run.state,
        )  # fmt: skip
        return Tuned(run, task, self._kernel.runner.future(), model)

    def _begin(self, tuned: Tuned) -> None:
        self._tuned[tuned.run.id] = tuned
        self._life.tell(tuned, "start")
        steps = self._life.live(tuned) if tuned.model is not None else self._go_on(tuned)
        tuned.job = self._kernel.runner.spawn(steps, partial(self._over, tuned))

    # ---- coming back

    def boot(self) -> None:
        """Take up the tasks that had not ended when the last kernel did, under the same ids."""
        for run in self.runs.unfinished():
            tuned = self._tuning(run, None)
            self._kernel.objects[run.id] = tuned.task
            self._kernel.log("task", f"{run.id} is taken up again, {run.step} of {run.steps} steps were told", run.id)
            self._begin(tuned)

    def again(self, task: TaskObject) -> bool:
        """Take up a task that has failed; False when it is none of ours. Raises OverQuota."""
        run = self.runs.read(task.id)
        if run is None:
            return False
        self._kernel.tasks.check_jobs(run.owner)
        run.state, run.error, run.ended = "running", None, 0.0
        task.status, task.value, task.exit = "running", None, None
        self._keep(run)
        self._begin(Tuned(run, task, self._kernel.runner.future()))
        return True

    async def _go_on(self, tuned: Tuned) -> TuneEnded:
        """As `Life.live`, of a task whose model has to be found first."""
        await self._life.unpaused(tuned)
        kernel, run = self._kernel, tuned.run
        model = await recall(kernel, run.owner, run.base)
        others = {
            name: await recall(kernel, run.owner, each, model if each.adapter else None)
            for name, each in run.others.items()
        }
        tuned.model, tuned.others = model, others
        for each in tuned.models:
            kernel.residency.hold(each.id)
        return await self._life.live(tuned)

    # ---- the end

    def _over(self, tuned: Tuned, ended: TuneEnded | None, error: LlmosError | None) -> None:
        """The end of a task, unless it goes on with the next kernel."""
        kernel, run, task = self._kernel, tuned.run, tuned.task
        if error is not None and kernel.draining and not tuned.cancelled:
            return
        del self._tuned[run.id]
        self._leave(tuned)
        if ended is not None:
            run.values |= {name: value for name, value in ended.values.items() if value == value}
        if error is None and ended is not None and ended.reason == "done":
            state, text = "done", sentence(run)
            path = run.out.path.partition("@")[0]
            task.value = {
                "path": path, "version": run.version, "metrics": run.values, "run": run.id, "promoted": run.promoted,
            }  # fmt: skip
        elif error is None or tuned.cancelled:
            state, text, task.value = "cancelled", f"cancelled after step {run.step} of {run.steps}", {}
        else:
            state, text, run.error = "failed", str(error), error.to_wire()
            task.value = {"error": run.error}
        run.state, run.ended = state, kernel.wall()
        self._keep(run)
        if state != "failed":  # of that the checkpoints stay: `resume` goes on from them
            self._life.forget(run.id)
        kernel.tasks.finish(task, 0 if state == "done" else 1, state, text)

    def _leave(self, tuned: Tuned) -> None:
        """The model is its own again."""
        for model in tuned.models:
            self._kernel.residency.let_go(model.id, self._kernel.runner.clock())
            self._kernel.rooms.look(model.driver.name)
            if model.idle is not None:
                model.idle.set(None)

    def _keep(self, run: Run, must: bool = False) -> None:
        """Write its record. Raises NoSpace where it `must` be there; else that is only noted."""
        try:
            forgotten = self.runs.write(run)
        except OSError as error:
            text = f"the record of {run.id} cannot be written: {error}"
            if must:
                raise NoSpace(text) from None
            self._kernel.log("task", text, run.id, level="warning")
            return
        for name in forgotten:
            self._life.forget(name)

    # ---- what is asked of a task

    def pause(self, tuned: Tuned) -> None:
        """Keep its job where it is, once it has written a checkpoint."""
        if tuned.link is not None:
            tuned.pausing = True
            tuned.link.call(HostCheckpoint(id=tuned.run.id))
        tuned.run.state = "paused"
        self._keep(tuned.run)

    def resume(self, tuned: Tuned) -> None:
        """Let its job go on."""
        if tuned.rests and tuned.link is not None:
            tuned.link.call(HostResume(id=tuned.run.id))
        tuned.pausing = tuned.rests = False
        if tuned.wanted is not None:
            tuned.wanted.set(None)
        tuned.run.state = "running"
        self._keep(tuned.run)

    def checkpoint(self, task: TaskObject) -> None:
        """Have its job write a checkpoint soon. Raises BadState when there is no job now, NotSupported."""
        tuned = self._tuned.get(task.id)
        if tuned is None or tuned.link is None or tuned.rests:
            raise BadState(f"{task.id} is {task.status} and has nothing to keep", state=task.status)
        tuned.link.call(HostCheckpoint(id=task.id))

    def priority(self, tuned: Tuned, nice: int) -> None:
        """Batch work at 0 and below, background work above; a job that runs begins again from a checkpoint."""
        wanted = (WorkClass.BACKGROUND if nice > 0 else WorkClass.BATCH).value
        if wanted != tuned.run.work_class:
            tuned.run.work_class = wanted
            self._keep(tuned.run)
            self._leave_driver(tuned)

    def cancel(self, tuned: Tuned) -> None:
        """End it; one whose result is being stored is done in a moment."""
        if tuned.storing:
            return
        tuned.cancelled = True
        if tuned.link is not None:
            tuned.link.call(HostCancel(id=tuned.run.id))
        else:
            assert tuned.job is not None
            self._kernel.runner.interrupt(tuned.job, Cancelled(f"{tuned.run.id} was cancelled"))

    def drain(self) -> None:
        """The kernel is to end: jobs leave their drivers with a checkpoint, from which the next kernel goes on."""
        for tuned in self._tuned.values():
            self._leave_driver(tuned)

    def _leave_driver(self, tuned: Tuned) -> None:
        if tuned.link is not None:
            tuned.again = True
            leave = HostCancel if tuned.rests else HostCheckpoint
            tuned.link.call(leave(id=tuned.run.id))

    def tick(self, now: int) -> None:
        """Ask for the checkpoints that are due; about once a second."""
        for tuned in self._tuned.values():
            due = tuned.kept_at + CHECKPOINT_S * 1e9
            if now < due or tuned.rests or tuned.run.recipe.checkpoint_every:
                continue
            if tuned.link is not None:
                tuned.kept_at = now
                tuned.link.call(HostCheckpoint(id=tuned.run.id))

    # ---- what drivers tell

    def told(self, event: TuneProgress | TuneEnded) -> None:
        """A driver says how far a job is, or that it is over; of a task that is gone it does not matter."""
        tuned = self._tuned.get(event.id)
        if tuned is None:
            return
        if isinstance(event, TuneEnded):
            tuned.over.set(event)
            return
        kernel, run = self._kernel, tuned.run
        run.steps = event.steps
        run.told(event.step, kernel.wall(), event.values)
        run.facts = {**run.facts, **event.facts}
        self._life.tell(tuned, event.stage)
        if event.facts:
            self._keep(run)
        if event.stage == "checkpoint":
            tuned.kept_at = kernel.runner.clock()
            self._keep(run)
            if tuned.again and tuned.link is not None:
                tuned.link.call(HostCancel(id=run.id))
            elif tuned.pausing:
                tuned.pausing = False
                self._life.rest(tuned)

    def device_lost(self, driver: Driver, cause: str) -> None:
        """A host has ended, and with it its jobs."""
        for tuned in self._tuned.values():
            if tuned.model is not None and tuned.model.driver is driver:
                tuned.over.fail(PeerGone(f"driver {driver.name} ended: {cause}"))

    def model_gone(self, model: ModelObject) -> None:
        """A model was unloaded by force: its tasks fail."""
        for tuned in [each for each in self._tuned.values() if model in each.models and each.job is not None]:
            assert tuned.job is not None
            self._kernel.runner.interrupt(tuned.job, BadState(f"{model.name} was unloaded", state="unloaded"))
