"""Adapt models."""

from __future__ import annotations

from typing import Annotated

from ..errors import BadState, Exists, NoDeviceMemory, NoSpace, NotFound, NotSupported, OverQuota, ReadOnly
from ..spec import Call
from ..types import Handle, Kind, Right, Task, TuneRecipe


class Tune(
    Call[Task], name="tune",
    errors=(NotSupported, NoDeviceMemory, NotFound, ReadOnly, Exists, BadState, OverQuota, NoSpace),
):  # fmt: skip
    """Adapt a model on its device, on the weights that are being served; the task outlives driver and kernel."""

    model: Annotated[Handle, Kind.MODEL, Right.READ, Right.RUN, "the model to start from"]
    recipe: Annotated[TuneRecipe, "method and hyper-parameters"]
    data: Annotated[str, "path of the training data"]
    out: Annotated[str, "path of the result"]
    dry_run: Annotated[bool, "only plan it"] = False
