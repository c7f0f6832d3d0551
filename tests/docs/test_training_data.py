"""The page on training data names what there is, and nothing else."""

from __future__ import annotations

import re

from llmos.drivers.tuning.augment import FIELDS
from llmos.drivers.tuning.data.schema import SCHEMAS
from llmos.drivers.tuning.data.source import HELD_OUT, TABLES, TEXTS
from llmos.drivers.tuning.metrics.by_objective import MAIN
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.words import LONG, OBJECTIVES, TRAINED, WEIGHTS
from sources import ROOT

PAGE = (ROOT / "docs" / "training-data.md").read_text()


def section(name: str) -> str:
    return PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]


def cells(name: str) -> list[list[str]]:
    lines = [line for line in section(name).splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]*)`", text)


def test_files() -> None:
    assert [ending for row in cells("Files") for ending in quoted(row[0])] == [*TABLES, *TEXTS]
    assert set(HELD_OUT) <= set(quoted(section("Files")))


def test_objectives_their_forms_and_what_judges_them() -> None:
    found: dict[str, list[str]] = {}
    judged = {}
    for objective, form, _, figure in cells("Rows"):
        if objective:
            name = quoted(objective)[0]
            judged[name] = figure
        found.setdefault(name, []).append(form)
    assert {name: tuple(forms) for name, forms in found.items()} == OBJECTIVES
    assert judged == MAIN


def test_fields_and_other_names_of_their_columns() -> None:
    """Where a form comes first; later its fields alone."""
    seen: set[str] = set()
    for _, form, fields, _ in cells("Rows"):
        assert quoted(fields) == list(SCHEMAS[form])
        for name, others in re.findall(r"`(\w+)` \(([^)]*)\)", fields):
            assert (name, *others.split(", ")) == tuple(dict.fromkeys((name, *SCHEMAS[form][name].columns)))
            seen.add(name)
    every = [pair for fields in SCHEMAS.values() for pair in fields.items()]
    assert {name for name, field in every if set(field.columns) - {name}} == seen


def test_options() -> None:
    rows = {quoted(name)[0]: quoted(said) for name, said in cells("Options")}
    assert set(rows) <= set(Recipe.__dataclass_fields__)
    assert set(rows["long"]) - {"max_length"} == set(LONG[1:])
    assert rows["train_on"] == list(TRAINED) and rows["class_weights"] == list(WEIGHTS)
    unchanged = set(SCHEMAS) - set(FIELDS)
    assert "Rows of\n`text`, `messages`, `choice` and `preference` are not changed" in PAGE
    assert unchanged == {"text", "messages", "choice", "preference"}
