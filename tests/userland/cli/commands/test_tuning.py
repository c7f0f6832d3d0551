"""tune and runs, on a real kernel with the null device."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llmos.syscalls.errors import BadArgument, NotFound
from llmos.userland.cli.commands.tuning import promoted, recipe_of, status
from llmos.userland.cli.parser import parse_line
from llmos.userland.reports import sinks


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with data of ten steps."""
    monkeypatch.chdir(folder)
    (folder / "data.jsonl").write_text("".join(f'{{"text": "line {n}"}}\n' for n in range(80)))
    return folder


def given(line: str) -> Namespace:
    _command, values = parse_line(f"tune m d o {line}")
    return values


def forget(llmos: Any, name: str) -> None:
    assert llmos(f"rm /models/{name}").status == 0


def test_recipes_come_from_a_file_and_from_options(here: Path) -> None:
    (here / "recipe.toml").write_text('method = "qlora"\nrank = 4\nepochs = 2\n[options]\nlayers = 3\n')
    line = "--recipe recipe.toml --rank 16 --set weight_decay=0.1 --set packing=false --set note=hello"
    recipe = recipe_of(given(line))
    assert (recipe.method, recipe.rank, recipe.epochs, recipe.weight_decay) == ("qlora", 16, 2.0, 0.1)
    assert recipe.packing is False and recipe.options == {"layers": 3, "note": "hello"}
    assert recipe_of(given("")).method == "lora"


def test_recipes_that_cannot_be(here: Path) -> None:
    (here / "broken.toml").write_text("method = ")
    (here / "unknown.toml").write_text("metod = 'lora'")
    for line, said in (
        ("--recipe broken.toml", "no TOML"), ("--recipe unknown.toml", "metod"), ("--set rank", "NAME=VALUE"),
        ("--set rank=0", "rank"),
    ):  # fmt: skip
        with pytest.raises(BadArgument, match=said):
            recipe_of(given(line))
    with pytest.raises(NotFound, match=r"none\.toml"):
        recipe_of(given("--recipe none.toml"))


def test_a_model_is_tuned_and_the_result_is_an_entry(llmos: Any, here: Path) -> None:
    ran = llmos("tune null ./data.jsonl mine --batch-size 8 --seed 3 --device null0")
    assert ran.status == 0 and "/models/mine@1: 10 steps, loss 0.1818" in ran.out
    assert "mine" in llmos("ls").out
    ran = llmos("tune null ./data.jsonl mine --batch-size 8")
    assert ran.status == 1 and "/models/mine exists already" in ran.err
    forget(llmos, "mine")


def test_with_json_each_line_is_an_object_and_the_last_is_the_result(llmos: Any, here: Path) -> None:
    lines = [json.loads(line) for line in llmos("tune null ./data.jsonl mine --json --device null0").out.splitlines()]
    *told, result = lines
    assert all({"stage", "done", "total"} <= each.keys() for each in told)
    assert result["state"] == "done" and result["value"]["path"] == "/models/mine"
    forget(llmos, "mine")


def test_a_plan_begins_nothing(llmos: Any, here: Path) -> None:
    ran = llmos("tune null ./data.jsonl mine --plan --batch-size 8 --device null0")
    assert ran.status == 0 and "10 steps" in ran.out and "64.0 KiB beside null, which is free" in ran.out
    assert "data crc32" in ran.out and "mine" not in llmos("ls").out
    assert llmos("tune null ./data.jsonl mine --plan --json").json["steps"] == 10
    ran = llmos("tune null ./data.jsonl mine --plan --set bytes=1099511627776")
    assert ran.status == 1 and "are free" in ran.out


def test_a_task_goes_on_by_itself_and_is_paused_resumed_and_cancelled(llmos: Any, here: Path) -> None:
    hold = json.dumps([3, str(here / "go")]).replace(" ", "")
    task = llmos(f"tune null ./data.jsonl mine --detach --json --device null0 --set 'hold={hold}'").json["id"]
    assert f"{task} is paused" in llmos(f"pause {task}").out
    assert f"{task} runs again" in llmos(f"resume {task}").out
    assert "running" in llmos(f"runs {task}").out
    assert f"{task} is cancelled" in llmos(f"cancel {task}").out
    assert llmos(f"runs {task} --json").json["state"] == "cancelled"


def test_a_task_that_fails_says_why(llmos: Any, here: Path) -> None:
    ran = llmos("tune null ./data.jsonl mine --device null0 --set fail=2")
    assert ran.status == 1 and "step 2 failed on order" in ran.err
    ran = llmos("tune null ./data.jsonl mine --method magic")
    assert ran.status == 1 and "'magic'" in ran.err


def test_runs_are_listed_shown_and_compared(llmos: Any, here: Path) -> None:
    ids = []
    for number, size in enumerate((8, 4)):
        told = llmos(f"tune null ./data.jsonl r{number} --json --device null0 --batch-size {size} --seed 1").out
        ids.append(json.loads(told.splitlines()[-1])["id"])
    ran = llmos("runs")
    assert all(id in ran.out for id in ids) and "/models/r1@1" in ran.out and "20/20" in ran.out
    assert re.search(rf"{ids[1]}.* yes ", ran.out)
    assert {run["id"] for run in llmos("runs --json").json} >= set(ids)
    ran = llmos(f"runs {ids[1]}")
    data = str(here / "data.jsonl")
    assert re.search(r"^promoted: +yes$", ran.out, re.MULTILINE)
    for said in ("done", "/models/null@local on null0", "batch_size=4", "seed:", "data crc32:", "● loss", data):
        assert said in ran.out, said
    ran = llmos(f"runs {ids[0]} {ids[1]}")
    assert "batch_size" in ran.out and f"○ {ids[1]} loss" in ran.out and "rank" not in ran.out
    assert [run["id"] for run in llmos(f"runs {' '.join(ids)} --json").json] == ids
    ran = llmos("runs t-none")
    assert ran.status == 1 and "t-none" in ran.err
    for number in (0, 1):
        forget(llmos, f"r{number}")


def test_a_run_that_is_not_good_enough_says_so(llmos: Any, here: Path) -> None:
    told = llmos("tune null ./data.jsonl weak --json --device null0 --batch-size 8 --promote-if 'loss < 0'").out
    id = json.loads(told.splitlines()[-1])["id"]
    assert re.search(rf"{id}.* no ", llmos("runs").out)
    assert re.search(r"^promoted: +no, loss < 0 does not hold$", llmos(f"runs {id}").out, re.MULTILINE)
    forget(llmos, "weak-candidate")


def test_whether_a_run_is_promoted_is_said_where_it_has_a_result() -> None:
    told = [{"state": state, "promoted": good} for state in ("done", "running") for good in (True, False)]
    assert [promoted(run) for run in told] == ["yes", "no", "", ""]
    assert promoted({"state": "done"}) == "yes", "a record of a release without conditions"


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"done": 1, "total": 4, "stage": "begin"}, "1 of 4 steps  begin"),
        (
            {"done": 2, "total": 4, "stage": "train", "tokens_per_s": 1200.4, "left_s": 75.0, "eval_loss": 0.5},
            "2 of 4 steps  █▁ loss 1  held out 0.5  1.2 k tokens/s  1 m 15 s left",
        ),
    ],
)  # fmt: skip
def test_how_far_it_is_on_one_line(told: Mapping[str, Any], line: str) -> None:
    assert status(told, [2.0, 1.0] if "eval_loss" in told else []) == line


def test_what_is_known_of_a_plan_is_shown_in_lines() -> None:
    from llmos.userland.cli.commands.tuning import _facts

    facts = {
        "data_sha256": "ab", "data": {"bytes": 2048, "rows": 3, "dropped": 0, "labels": ["a", "b"], "held_out": {}},
        "bytes": {"total_of_all": 4096, "ignored": []},
    }  # fmt: skip
    assert list(_facts(facts)) == [
        "data sha256: ab", "data:", "  bytes: 2.0 KiB", "  rows: 3", "  labels: a, b", "bytes:",
        "  total of all: 4.0 KiB",
    ]  # fmt: skip


def test_tasks_tell_how_far_a_run_is(llmos: Any, here: Path) -> None:
    hold = json.dumps([2, str(here / "go")]).replace(" ", "")
    ran = llmos(f"tune null ./data.jsonl far --batch-size 8 --device null0 --detach --set 'hold={hold}' --json")
    task = json.loads(ran.out)["id"]
    while "lora null to /models/far: 2 of 10" not in llmos("tasks").out:
        pass
    (here / "go").touch()
    assert llmos(f"wait {task}").status == 0
    forget(llmos, "far")


def test_curves_are_written_for_tensorboard_beside_a_task_and_afterwards(
    llmos: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")

    def steps(folder: Path) -> list[int]:
        events = [event for file in sorted(folder.iterdir()) for event in loader.EventFileLoader(str(file)).Load()]
        return [event.step for event in events for each in event.summary.value if each.tag == "loss"]

    followed = sinks.follow

    def follow(opened: Sequence[sinks.Sink], told: Mapping[str, Any]) -> None:
        followed(opened, told)
        (here / "go").touch()  # the job waits until somebody follows it

    monkeypatch.setattr(sinks, "follow", follow)
    hold = json.dumps([3, str(here / "go")]).replace(" ", "")
    line = f"tune null ./data.jsonl shown --json --device null0 --batch-size 8 --tensorboard ./live --set 'hold={hold}'"
    id = json.loads(llmos(line).out.splitlines()[-1])["id"]
    ran = llmos(f"runs {id} --tensorboard ./after")
    assert re.search(rf"^{id}: 10 points written to .*after/{id}$", ran.out, re.MULTILINE), ran.err
    assert steps(here / "after" / id) == list(range(1, 11))
    live = steps(here / "live" / id)
    assert live[0] < 4 and live == list(range(live[0], 11))
    forget(llmos, "shown")


def test_a_curve_goes_to_weights_and_biases_or_the_extra_is_named(
    llmos: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(here))
    told = llmos("tune null ./data.jsonl sent --json --device null0 --batch-size 8").out
    id = json.loads(told.splitlines()[-1])["id"]
    live = "tune null ./data.jsonl live --device null0 --batch-size 8 --wandb curves"
    after = f"runs {id} --wandb curves"
    if find_spec("wandb"):
        assert llmos(live).status == 0 and "10 points written" in llmos(after).out
        assert list(here.glob("wandb/offline-run-*"))
        forget(llmos, "live")
    else:
        for ran in (llmos(live), llmos(after)):
            assert ran.status == 1 and "pip install 'llmos[wandb]'" in ran.err
        assert "live" not in llmos("ls").out, "said before anything begins"
    forget(llmos, "sent")
