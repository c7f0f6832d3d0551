"""Models: load, unload, transform."""

from __future__ import annotations

from typing import Annotated

from ..errors import (
    BadModel, BadState, Busy, DeviceFault, DriverFailed, Exists, NoDeviceMemory, NotDirectory, NotFound, NotSupported,
    PeerGone, ReadOnly, Unavailable,
)  # fmt: skip
from ..spec import Call
from ..types import Freed, Handle, Kind, LoadOptions, ModelInfo, Right, Task, TransformRecipe


class LoadModel(
    Call[ModelInfo],
    name="load_model",
    errors=(
        NotFound, NotDirectory, BadModel, NoDeviceMemory, NotSupported, Unavailable, DriverFailed, DeviceFault,
        Exists, PeerGone, BadState, Busy,
    ),
):
    """Load a model (or, with `base`, an adapter for a loaded one) onto a device. Loading what is loaded shares it."""

    path: Annotated[str, "a model in the namespace, such as /models/tiny or /models/org/name@production"]
    device: Annotated[Handle | None, Kind.DEVICE, Right.CREATE, "where to; None lets policy place it"] = None
    base: Annotated[Handle | None, Kind.MODEL, Right.WRITE, "the loaded model that an adapter is for"] = None
    options: Annotated[LoadOptions, "dtype, name, pin, keep_alive, dry_run, ..."] = LoadOptions()


class UnloadModel(Call[Freed], name="unload_model", errors=(Busy, NotFound, PeerGone)):
    """Take a model off its device and return the bytes freed."""

    model: Annotated[Handle, Kind.MODEL, Right.MANAGE, "the model"]
    force: Annotated[bool, "end its running requests too, instead of answering Busy"] = False


class TransformModel(
    Call[Task], name="transform_model", errors=(NotSupported, BadModel, NoDeviceMemory, NotFound, ReadOnly)
):
    """Turn stored models into another one: quantize, prune, merge, export, import, push."""

    sources: Annotated[list[str], "paths of the namespace"]
    out: Annotated[str, "path of the result"]
    recipe: Annotated[TransformRecipe, "what to do"]
