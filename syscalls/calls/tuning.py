"""Adapt models."""

from __future__ import annotations

from typing import Annotated

from ..errors import NoDeviceMemory, NotFound, NotSupported, ReadOnly
from ..spec import Call
from ..types import Handle, Kind, Right, Task, TuneRecipe


class Tune(Call[Task], name="tune", errors=(NotSupported, NoDeviceMemory, NotFound, ReadOnly)):
    """Adapt a model on its device, on the weights that are being served."""

    model: Annotated[Handle, Kind.MODEL, Right.READ, Right.RUN, "the model to start from"]
    recipe: Annotated[TuneRecipe, "method and hyper-parameters"]
    data: Annotated[str, "path of the training data"]
    out: Annotated[str, "path of the result"]
