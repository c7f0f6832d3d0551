"""What a load changes of a model that is loaded already: how long it stays, as the last one who loads it wishes."""

from __future__ import annotations

from llmos.syscalls.types import Handle, Kind, LoadOptions, Right

from .idling import keep_alive
from .objects import ModelObject
from .requests import Request

_UNSAID = LoadOptions()


def take_over(request: Request, model: ModelObject, options: LoadOptions, handle: Handle) -> None:
    """Take over what the load says of pin and keep-alive; what it leaves at its default says nothing. Reasons of the
    answer tell what was changed, and what was not: the group, and for a session that may not manage the model all."""
    kernel, session = request.kernel, request.session
    now, before, told = kernel.runner.clock(), model.options.keep_alive, []
    pin = options.pin and not kernel.residency.pinned(model.id)
    keep = options.keep_alive != before and options.keep_alive != _UNSAID.keep_alive
    managed = Right.MANAGE in kernel.handles.get(session.id, handle, Kind.MODEL).rights
    if pin:
        told.append("it is pinned now" if managed else "it is not pinned: this session may not manage it")
    if keep:
        stays = "" if managed else ", and stays so: this session may not manage it"
        told.append(f"keep_alive was {before:g} s" + (f" and is {options.keep_alive:g} s now" if managed else stays))
    if pin and managed:
        kernel.residency.pin(model.id, True, now)
    if keep and managed:
        keep_alive(kernel, model, options.keep_alive)
    if options.group and options.group != model.options.group:
        mine = f"its group {model.options.group}" if model.options.group else "no group"
        told.append(f"it stays in {mine}: unload it to load it with the group {options.group}")
    if told:
        text = f"{model.name} was loaded already: {'; '.join(told)}"
        request.decided(kernel.reason("model.settings", text, "the last load decides"), [model.id], "info")
