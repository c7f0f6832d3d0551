"""The paged runner (rung P): many requests of one model in every step."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from llmos.syscalls.errors import LlmosError, NotSupported, TimedOut, TooLarge

from ..contract import FailedEvent, Request, StepEvent, Usage
from . import attention, causal, tokens
from .answers import Answer
from .blocks import BlockManager, pages_for
from .causal import common_prefix, room_for
from .compiling import Compiling
from .detokenizer import Vocabulary
from .drafting import Drafter
from .jobs import NGRAM, Choice, Job, method_of
from .kept import Kept, copied, filled
from .loader import Bundle
from .lora.layout import sorted_by_adapter
from .memory import out_of_memory, tensors_of
from .paged import PagedModel
from .runner import Conversation
from .sampling.chooser import choosers
from .sampling.grammar import GrammarCompiler
from .sampling.logprobs import prompt_logprobs
from .sampling.params import check
from .sampling.speculative import Guess, verify
from .scheduler import StepScheduler
from .shared import SharedModule
from .steps import Row, RowStep, StepPlan
from .turns import rank


class PagedRunner:
    """Serves text generation. Conversations that no request uses keep their pages until others need the room."""

    rung = "P"
    tasks: Sequence[str] = (causal.TASK,)

    def __init__(
        self, bundle: Bundle, shared: SharedModule, model: PagedModel, blocks: BlockManager, scheduler: StepScheduler,
        vocabulary: Vocabulary, grammars: GrammarCompiler,
    ) -> None:  # fmt: skip
        self.drafter: Drafter | None = None
        """Guesses for requests that ask for a draft model."""
        self._bundle, self._shared, self._model, self._compiling = bundle, shared, model, Compiling(grammars)
        self._blocks, self._scheduler, self._vocabulary = blocks, scheduler, vocabulary
        self._jobs: dict[str, Job] = {}
        self._choices: dict[int, tuple[Job, Choice]] = {}
        """By the id of the row object."""
        self._width = 0
        """Of the model's logits."""
        self._resting: dict[str, Conversation] = {}
        """Conversations with pages that no request uses; the one used least recently first."""

    def forget_prefixes(self) -> None:
        """From now on a request uses nothing that was computed for another, but for its conversation."""
        self._blocks.caching = False

    @property
    def reasons(self) -> Sequence[str]:
        """What is slower than it could be, and why."""
        return ()

    def prepare(self, alive: Callable[[], None]) -> None:
        """Make what takes long before the first request comes; `alive` is called now and then."""

    @property
    def weights(self) -> list[Tensor]:
        """Of the model, and of its draft model."""
        return [*tensors_of(self._bundle.module), *(() if self.drafter is None else self.drafter.weights)]

    @property
    def pages(self) -> list[Tensor]:
        """The tensors that they are, with those of the draft model."""
        return [self._model.pool.tensor, *(() if self.drafter is None else (self.drafter.pages,))]

    def let_go(self) -> None:
        """Forget all that pages hold, when nothing runs and no conversation has any."""
        self._blocks.forget_all()
        if self.drafter is not None:
            self.drafter.let_go()

    def forget_graphs(self, why: str) -> None:
        """Weights and pages lie elsewhere now: what was captured for the addresses before is of no use."""

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def submit(self, request: Request, conversation: Conversation | None = None, adapter: str = "") -> None:
        """Accept a request. Raises BadArgument, TooLarge, NotSupported."""
        sampling = request.sampling
        check(sampling, self._bundle.vocabulary)
        asked = sampling.speculative
        if asked is not None and method_of(asked) != NGRAM and self.drafter is None:
            why = "the model was loaded without a draft model"
            raise NotSupported(f"speculative.method is draft, but {why}; ngram needs none", why=why)
        limit = self._bundle.about.context if conversation is None else conversation.max_tokens
        before: Sequence[int] = () if conversation is None else conversation.tokens
        prompt = tokens.continuing(self._bundle, request.prompt, before)
        room = room_for(prompt, sampling.max_tokens, limit)
        job = Job(request, prompt, conversation)
        compiled = self._compiling.start(request, self._bundle)
        for number, chooser in enumerate(choosers(sampling, prompt)):
            answer = Answer(request, number, self._bundle, self._vocabulary, prompt, room)
            job.choices.append(Choice(self._row(job, number, adapter), answer, chooser))
        self._jobs[request.id] = job
        for choice in job.choices:
            self._choices[id(choice.row)] = job, choice
            if compiled is None:
                self._scheduler.add(choice.row)
        if compiled is not None:
            self._compiling.hold(request.id, compiled)

    def cancel(self, requests: Collection[str]) -> list[StepEvent]:
        """End requests with what they have."""
        events: list[StepEvent] = []
        for job in [self._jobs[id] for id in requests if id in self._jobs]:
            for choice in job.choices:
                if not choice.answer.reason:
                    choice.answer.end("cancelled")
                    self._leave(job, choice)
                    events.extend(_chunks(choice))
            events.extend(self._finish(job))
        return events

    def step(self) -> list[StepEvent]:
        """Take the rows of one plan through the model."""
        events = self._admit()
        self._make_room()
        plan = sorted_by_adapter(self._scheduler.plan(time.monotonic()))
        events.extend(self._drop(plan))
        if not plan.rows:
            self._model.pool.move(plan)
            self._compiling.wait()
            return events
        started = time.perf_counter()
        plan, failed, accepted = self._compute(plan)
        seconds = time.perf_counter() - started
        if plan.rows:
            self._scheduler.complete(plan, seconds, accepted)
            self._charge(plan, seconds)
        for job, why in failed:
            events.extend(self._fail(job, why))
        events.extend(self._ended(plan))
        self._draft(plan)
        return events

    def set_budget(self, budget: Mapping[str, float]) -> None:
        self._scheduler.set_budget(budget)

    def preempt(self, request: str) -> bool:
        for choice in self._jobs[request].choices if request in self._jobs else ():
            self._scheduler.defer(choice.row)
        return request in self._jobs

    def step_seconds(self) -> float:
        return self._scheduler.step_seconds() + (0.0 if self.drafter is None else self.drafter.seconds)

    def requests(self) -> Sequence[Request]:
        return [job.request for job in self._jobs.values()]

    def usage(self) -> Mapping[str, Usage]:
        return {id: job.usage(self._model.pool.page_bytes) for id, job in self._jobs.items()}

    def kv_bytes(self) -> int:
        return self._model.pool.bytes + (0 if self.drafter is None else self.drafter.bytes)

    def cache_usage(self) -> float:
        """The share of the pages that rows hold, 0 to 1."""
        return self._blocks.used / self._blocks.pages

    def conversation_bytes(self, conversation: Conversation) -> int:
        return 0

    def fork(self, parent: Conversation, child: Conversation) -> None:
        if parent.held is not None:
            self._rest(child, self._blocks.fork(parent.held, child.id))

    def forget(self, conversation: Conversation) -> int:
        if conversation.held is not None:
            self._blocks.release(conversation.held)
            conversation.held = None
            self._resting.pop(conversation.id, None)
        return 0

    def put_away(self, conversation: Conversation, pages: dict[int, Tensor], room: int) -> Kept | None:
        """Its pages, where this process has all of them."""
        row = conversation.held
        if row is None or self._model.computing is not None:
            return None
        return copied(self.rung, row, self._model.pool, pages, room)

    def take_back(self, conversation: Conversation, kept: Kept, adapter: str) -> bool:
        row = Row(conversation.id, list(conversation.tokens), _salt(adapter, kept.salt.partition(b"\0")[2]))
        if not filled(row, kept, self._blocks, self._model.pool):
            return False
        self._rest(conversation, row)
        return True

    def close(self) -> None:
        self._jobs.clear()
        self._compiling.clear()
        self._choices.clear()
        self._model.release()
        if self.drafter is not None:
            self.drafter.release()

    # ---- one step

    def _admit(self) -> list[StepEvent]:
        """Let requests begin whose grammar is compiled, and fail those whose grammar is none."""
        events: list[StepEvent] = []
        for id, found in self._compiling.ended():
            job = self._jobs[id]
            if isinstance(found, LlmosError):
                events.extend(self._fail(job, found))
                continue
            for choice in job.choices:
                choice.chooser.constraint = found.copy()
                self._scheduler.add(choice.row)
        return events

    def _compute(self, plan: StepPlan) -> tuple[StepPlan, list[tuple[Job, LlmosError]], dict[str, int]]:
        """Take a plan through the model: what was computed of it, what went wrong and for whom, and how many guessed
        tokens were right, by row.

        Where memory is short the rows go in halves, so that only a row that has too little of it alone is given up.
        """
        try:
            self._shared.use(attention=attention.NAME, rows=plan.rows)
            return plan, *self._take(plan, self._model.run(plan, self._shared.adapters.variant))
        except (RuntimeError, MemoryError) as error:
            full = out_of_memory(error)
            if full is None:
                raise
        if len(plan.rows) == 1:
            found = self._choices.get(id(plan.rows[0].row))
            return StepPlan(), [] if found is None else [(found[0], full)], {}
        half = len(plan.rows) // 2
        one, two = (self._compute(StepPlan(rows)) for rows in (plan.rows[:half], plan.rows[half:]))
        return StepPlan([*one[0].rows, *two[0].rows]), [*one[1], *two[1]], {**one[2], **two[2]}

    def _take(self, plan: StepPlan, logits: Tensor) -> tuple[list[tuple[Job, LlmosError]], dict[str, int]]:
        """Choose the next tokens of each row that is through its prompt.

        Answers what went wrong and for whom, and how many guessed tokens were right, by row.
        """
        chosen: list[tuple[Job, Choice]] = []
        guesses: list[Guess] = []
        end = 0
        self._width = logits.shape[-1]
        for step in plan.rows:
            first, end = end, end + step.logits
            found = self._choices.get(id(step.row))
            if found is None or found[1].on_device:
                continue
            job, choice = found
            if step.row.all_logits and step.start < len(job.prompt):
                self._score_prompt(job, step, logits[first:end])
            if step.logits and step.start + step.count >= len(step.row.tokens) and not choice.answer.reason:
                chosen.append((job, choice))
                judged = range(end - 1 - step.drafts, end)
                drafts = step.row.drafts[: step.drafts]
                guesses.append(Guess(choice.chooser, judged, drafts, choice.drawn_from, choice.answer.ends))
        failed: list[tuple[Job, LlmosError]] = []
        accepted: dict[str, int] = {}
        for (job, choice), guess, made in zip(chosen, guesses, verify(guesses, logits, self._vocabulary), strict=True):
            if made[-1].error is not None:
                failed.append((job, made[-1].error))
            else:
                accepted[choice.row.id] = choice.take(made, guess.drafts)
                choice.guess()
        return failed, accepted

    def _draft(self, plan: StepPlan) -> None:
        """Let the draft model guess what follows in the rows of a step, for the next one to check."""
        if self.drafter is None:
            return
        found = [self._choices[id(step.row)] for step in plan.rows if id(step.row) in self._choices]
        through = [(job, choice) for job, choice in found if choice.answer.tokens]
        asking = [(job, choice, ask) for job, choice in through if (ask := choice.ask()) is not None]
        if not asking:
            self.drafter.seconds = 0.0
            return
        asks = [ask for _, _, ask in asking]
        try:
            guessed = self.drafter.guess(asks, self._width)
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error) is None:
                raise
            for ask in asks:
                self.drafter.forget(ask.id)
            return
        for (job, choice, _), found_now in zip(asking, guessed, strict=True):
            choice.propose(found_now)
            job.device_ns += int(self.drafter.seconds * 1e9 / len(asking))

    def _score_prompt(self, job: Job, step: RowStep, logits: Tensor) -> None:
        known = len(job.prompt_logprobs)
        following = job.prompt[step.start + 1 : step.start + 1 + step.count]
        if step.start == known and following:
            count = job.request.sampling.prompt_logprobs or 0
            job.prompt_logprobs += prompt_logprobs(logits[: len(following)], following, count, self._vocabulary)

    def _charge(self, plan: StepPlan, seconds: float) -> None:
        share = seconds * 1e9 / plan.tokens
        for step in plan.rows:
            if id(step.row) in self._choices:
                job, _ = self._choices[id(step.row)]
                job.device_ns += int(share * step.count)
                job.computed += step.count

    def _ended(self, plan: StepPlan) -> list[StepEvent]:
        """What the rows of a step have to tell, once the scheduler knows what was computed."""
        events: list[StepEvent] = []
        touched: dict[str, Job] = {}
        for step in plan.rows:
            if id(step.row) not in self._choices:
                continue
            job, choice = self._choices[id(step.row)]
            if step.start + step.count >= len(job.prompt):
                events.extend(_chunks(choice))
                if choice.answer.reason:
                    touched[job.request.id] = job
                    self._leave(job, choice)
        for job in touched.values():
            events.extend(self._finish(job) if job.ended and not self._open(job) else ())
        return events

    def _open(self, job: Job) -> bool:
        return any(id(choice.row) in self._choices for choice in job.choices)

    def _drop(self, plan: StepPlan) -> list[StepEvent]:
        """Fail what the scheduler has given up."""
        events: list[StepEvent] = []
        for row in plan.expired:
            late = TimedOut("the deadline passed before the answer was complete")
            events.extend(self._fail(self._choices[id(row)][0], late) if id(row) in self._choices else ())
        for row in plan.refused:
            room = self._blocks.pages * pages_for(1)
            large = TooLarge(f"{len(row.tokens)} tokens never fit into {room} pages", limit=room, got=len(row.tokens))
            events.extend(self._fail(self._choices[id(row)][0], large) if id(row) in self._choices else ())
        return events

    # ---- rows and their ends

    def _row(self, job: Job, number: int, adapter: str) -> Row:
        request, held = job.request, None if job.conversation is None else job.conversation.held
        id = f"{request.id}/{number}"
        salt = _salt(adapter, request.tenant.encode())
        every = request.sampling.prompt_logprobs is not None
        if held is not None and number == 0 and not every:
            row = self._blocks.fork(held, id)
            self._blocks.truncate(row, min(common_prefix(row.tokens, job.prompt), len(job.prompt) - 1))
            row.tokens = list(job.prompt)
            row.cached = row.computed
        else:
            row = Row(id, list(job.prompt), salt)
        row.all_logits = every
        row.rank, row.priority, row.deadline = rank(request), request.priority, request.deadline
        row.adapter = self._shared.adapters.slot(adapter)
        return row

    def _leave(self, job: Job, choice: Choice) -> None:
        """A choice has ended. A conversation goes on from the pages of its answer, unless there is none."""
        row, conversation = choice.row, job.conversation
        del self._choices[id(row)]
        self._forget_draft(row)
        answered = bool(choice.answer.tokens) or choice.answer.reason != "cancelled"
        kept = conversation is not None and choice is job.choices[0] and answered
        self._scheduler.remove(row, keep=kept)
        if conversation is not None and kept:
            self.forget(conversation)
            conversation.tokens = list(row.tokens)
            self._rest(conversation, row)

    def _forget_draft(self, row: Row) -> None:
        if self.drafter is not None:
            self.drafter.forget(row.id)

    def _finish(self, job: Job) -> list[StepEvent]:
        del self._jobs[job.request.id]
        self._compiling.forget(job.request.id)
        return [job.done()]

    def _fail(self, job: Job, error: LlmosError) -> list[StepEvent]:
        for choice in job.choices:
            if self._choices.pop(id(choice.row), None) is not None:
                self._forget_draft(choice.row)
                self._scheduler.remove(choice.row, keep=False)
        if self._jobs.pop(job.request.id, None) is None:
            return []
        return [FailedEvent(job.request.id, error, device_ns=job.device_ns)]

    def _rest(self, conversation: Conversation, row: Row) -> None:
        conversation.held = row
        self._resting.pop(conversation.id, None)
        self._resting[conversation.id] = conversation

    def _make_room(self) -> None:
        """Conversations at rest give their pages to requests; their tokens are computed again when they go on."""
        wanted = self._scheduler.wanted_pages()
        while self._resting and self._blocks.available < wanted:
            self.forget(next(iter(self._resting.values())))


def _salt(adapter: str, tenant: bytes) -> bytes:
    """What rows must have in common to share pages."""
    return adapter.encode() + b"\0" + tenant


def _chunks(choice: Choice) -> list[StepEvent]:
    chunk = choice.answer.chunk()
    return [] if chunk is None else [chunk]
