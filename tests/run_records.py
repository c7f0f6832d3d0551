"""Records of tuning runs."""

from __future__ import annotations

from llmos.kernel.tunes.runs import Base, Place, Run
from llmos.syscalls.types import LoadOptions, TuneRecipe


def run(id: str = "t-1", state: str = "running") -> Run:
    place = Place(path="/models/tiny", filesystem="models", source="x", inner="/tiny")
    base = Base(name="tiny", version="1", device="null0", place=place, options=LoadOptions())
    return Run(
        id=id, owner="0", state=state, created=1.0, base=base, recipe=TuneRecipe(method="lora"), data=place, out=place,
        work_class="background", code="1",
    )  # fmt: skip
