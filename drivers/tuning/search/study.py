"""The study of a search: which trials there are, what they came to, and what to try next. Optuna decides that.

All that happens to it is an entry of a journal, in the order in which it happened. A study that was lost is built again
from its journal, as of the last checkpoint of its trials, and asks for the same trials from there: what is drawn
depends on the seed, on the number of the trial and on what the trials before it came to.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.syscalls.errors import BadState, NotSupported

from .space import Choice, Dimension, Search

if TYPE_CHECKING:
    import optuna

COMPLETE, PRUNED, CUT, FAILED = "complete", "pruned", "cut", "failed"
"""How a trial ends: at its last step, by what others came to, with the budget, with an error."""

_NAME = "search"
"""Of the study; brackets of Hyperband are chosen by it."""


@dataclass
class Told:
    """One trial, for people and for the record.

    Attributes:
        number: from 0.
        parameters: what it has of the space.
        state: empty while it is under way.
        value: the newest of the metric.
        values: of the metric, by evaluation from 1.
        steps: updates made.
        seconds: of computing.
        begun: the round in which it began.
        error: what it failed with.
    """

    number: int
    parameters: Mapping[str, Any]
    state: str = ""
    value: float | None = None
    values: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    begun: int = 0
    error: str = ""

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        made = {
            "number": self.number, "parameters": dict(self.parameters), "state": self.state or "running",
            "value": self.value, "steps": self.steps, "seconds": round(self.seconds, 3),
        }  # fmt: skip
        return {**made, "error": self.error} if self.error else made


def check_installed() -> None:
    """Raises NotSupported where Optuna is missing."""
    if importlib.util.find_spec("optuna") is None:
        why = "optuna is not installed: install llmos[search]"
        raise NotSupported(f"a search cannot run: {why}", why=why)


class Journal:
    """Entries in a file, one line of JSON each; each is on the disk before anything goes on from it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> list[dict[str, Any]]:
        """All whole entries; the last line may have been cut off by a crash, and is then taken away."""
        entries: list[dict[str, Any]] = []
        if self._file.exists():
            lines = self._file.read_bytes().splitlines(keepends=True)
            entries = [json.loads(line) for line in lines if line.endswith(b"\n")]
            self.cut(len(entries))
        return entries

    def cut(self, count: int) -> None:
        """Forget all entries but the first ones. Raises OSError."""
        lines = self._file.read_bytes().splitlines(keepends=True)
        os.truncate(self._file, sum(len(line) for line in lines[:count]))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Raises OSError."""
        with self._file.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


class Study:
    """The trials of a search. Rounds count steps: in each, every trial that is under way makes one.

    Raises BadState where the journal is of another search.
    """

    def __init__(self, search: Search, evaluations: int, journal: Journal | None = None, identity: str = "") -> None:
        """
        Args:
            search: what is tried.
            evaluations: of a trial that is not ended early, at most.
            journal: kept on the disk; None for a study that ends with this process.
            identity: of the search; a journal of another one is no start for it.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._search = search
        self._among = {each.name: each.among for each in search.space if isinstance(each, Choice)}
        self._space = {each.name: _distribution(optuna, each) for each in search.space}
        self._trials: dict[int, optuna.Trial] = {}
        self._journal = journal
        with _quiet():
            self._study = optuna.create_study(
                study_name=_NAME, direction="maximize" if search.maximize else "minimize",
                pruner=_pruner(optuna, search, evaluations), sampler=optuna.samplers.RandomSampler(seed=search.seed),
            )  # fmt: skip
        self.trials: list[Told] = []
        """All of them, by number."""
        self.spent: Mapping[str, float] = {}
        """Seconds, of computing and of being under way, as of the last entry."""
        self.round = 0
        """Which round the last entry is of."""
        self.kept: Mapping[int, int] = {}
        """Of the trials that are under way at the last checkpoint, the steps each had made."""
        self._goes_on(identity)

    @property
    def running(self) -> list[Told]:
        """The trials that are under way, by number."""
        return [told for told in self.trials if not told.state]

    @property
    def ended(self) -> int:
        """How many trials are over."""
        return sum(bool(told.state) for told in self.trials)

    @property
    def best(self) -> Told | None:
        """The best of those that came to an end of their own or of the budget."""
        best: Told | None = None
        for told in self.trials:
            value = told.value if told.state in (COMPLETE, CUT) else None
            if value is not None and self._search.better(value, None if best is None else best.value):
                best = told
        return best

    def ask(self, at: int, spent: Mapping[str, float]) -> Told:
        """The next trial, which begins in round `at`."""
        number = len(self.trials)
        self._study.sampler = _sampler(self._optuna, self._search, number)
        with _quiet():
            trial = self._study.ask(self._space)
        self._keep({"what": "ask", "trial": number, "params": trial.params}, at, spent)
        return self._asked(trial, at)

    def report(self, told: Told, value: float, at: int, spent: Mapping[str, float]) -> bool:
        """A trial was evaluated in round `at`; whether it is to end."""
        entry = {"what": "report", "trial": told.number, "value": value, "seconds": told.seconds}
        self._keep(entry, at, spent)
        return self._report(told, value)

    def tell(self, told: Told, state: str, at: int, spent: Mapping[str, float]) -> None:
        """A trial is over in round `at`, with `value` as it is."""
        self._keep({
            "what": "tell", "trial": told.number, "state": state, "value": told.value, "steps": told.steps,
            "seconds": told.seconds, "error": told.error,
        }, at, spent)  # fmt: skip
        self._tell(told, state)

    def keep(self, steps: Mapping[int, int], at: int, spent: Mapping[str, float]) -> None:
        """Trials have been kept as they are after round `at`: the search would go on from here."""
        self.kept = dict(steps)
        self._keep({"what": "checkpoint", "steps": list(steps.items())}, at, spent)

    def importance(self) -> Mapping[str, float]:
        """How much of the differences each dimension accounts for, 1 in all; empty where that cannot be said."""
        complete = [told for told in self.trials if told.state == COMPLETE]
        if len(complete) < 4 or len({told.value for told in complete}) < 2:
            return {}
        with _quiet():
            found = self._optuna.importance.get_param_importances(self._study)
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    def _asked(self, trial: optuna.Trial, at: int) -> Told:
        drawn = trial.params.items()
        told = Told(trial.number, {name: self._plain(name, value) for name, value in drawn}, begun=at)
        self._trials[trial.number] = trial
        self.trials.append(told)
        return told

    def _plain(self, name: str, value: Any) -> Any:
        return self._among[name][value] if name in self._among else value

    def _report(self, told: Told, value: float) -> bool:
        told.value = value
        told.values.append(value)
        trial = self._trials[told.number]
        with _quiet():
            trial.report(value, len(told.values))
            return trial.should_prune()

    def _tell(self, told: Told, state: str) -> None:
        told.state = state
        states = self._optuna.trial.TrialState
        known = {COMPLETE: states.COMPLETE, FAILED: states.FAIL}.get(state, states.PRUNED)
        with _quiet():
            self._study.tell(told.number, told.value if state == COMPLETE else None, known)

    def _keep(self, entry: Mapping[str, Any], at: int, spent: Mapping[str, float]) -> None:
        self.spent, self.round = dict(spent), max(self.round, at)
        if self._journal is not None:
            self._journal.add({**entry, "at": at, "spent": dict(spent)})

    def _goes_on(self, identity: str) -> None:
        """Have happen what had happened at the last checkpoint; what came after it will happen again."""
        if self._journal is None:
            return
        entries = self._journal.read()
        if entries and entries[0]["identity"] != identity:
            raise BadState("the trials here belong to another search", state="foreign")
        if not entries:
            self._journal.add({"what": "search", "identity": identity})
            return
        last = max((n for n, entry in enumerate(entries) if entry["what"] == "checkpoint"), default=0)
        for entry in entries[1 : last + 1]:
            self._again(entry)
        self.spent = entries[-1].get("spent", {})
        self._journal.cut(last + 1)

    def _again(self, entry: Mapping[str, Any]) -> None:
        """Have happen what has happened."""
        self.round = max(self.round, entry["at"])
        match entry["what"]:
            case "checkpoint":
                self.kept = dict(entry["steps"])
            case "ask":
                self._study.enqueue_trial(entry["params"])
                with _quiet():
                    trial = self._study.ask(self._space)
                self._asked(trial, entry["at"])
            case "report":
                self.trials[entry["trial"]].seconds = entry["seconds"]
                self._report(self.trials[entry["trial"]], entry["value"])
            case _:
                told = self.trials[entry["trial"]]
                told.value, told.steps, told.seconds = entry["value"], entry["steps"], entry["seconds"]
                told.error = entry["error"]
                self._tell(told, entry["state"])


def table(trials: Sequence[Told]) -> list[dict[str, Any]]:
    """All trials as plain values."""
    return [told.facts() for told in trials]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of what is meant to be: experimental classes, trials that were told twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution(list(range(len(dimension.among))))
    if dimension.whole:
        return optuna.distributions.IntDistribution(
            int(dimension.low), int(dimension.high), log=dimension.log, step=int(dimension.step) or 1
        )
    step = dimension.step or None
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=step)


def _sampler(optuna: Any, search: Search, number: int) -> Any:
    """With chance of its own for each trial, which nothing has to be known of that was drawn before."""
    seed = (search.seed * 1_000_003 + number) % 2**32
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with _quiet():
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=min(10, search.trials // 2))


def _pruner(optuna: Any, search: Search, evaluations: int) -> Any:
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(1, max(1, evaluations), 3)
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=min(5, search.trials // 2))
    return optuna.pruners.NopPruner()
