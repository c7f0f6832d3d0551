"""Inference: whole, streamed, embeddings, conversations."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.driver import HostDropContext, HostOpenContext
from llmos.syscalls.errors import BadState
from llmos.syscalls.types import ALL_RIGHTS, Context, Inference, Kind

from ..objects import ContextObject
from ..requests import Request
from .registry import implements


async def _generate(request: Request, call: calls.Infer | calls.InferStream) -> Inference:
    kernel = request.kernel
    model = kernel.model_of(request.entries["model"])
    context = kernel.context_of(request.entries["context"]) if call.context is not None else None
    if context is None:
        return await kernel.inference.run(request, model, call.input, call.task, call.sampling, options=call.options)
    _claim(context, model.id)
    try:
        return await kernel.inference.run(
            request, model, call.input, call.task, call.sampling, context=context, options=call.options
        )
    finally:
        context.busy = False


def _claim(context: ContextObject, model: str) -> None:
    """One request at a time may extend a conversation, and only on its own model."""
    if context.status != "open":
        raise BadState(f"context {context.id} is {context.status}: open a new one from the text", state=context.status)
    if context.model.id != model:
        raise BadState(f"context {context.id} belongs to model {context.model.name}", state="open")
    if context.busy:
        raise BadState(f"context {context.id} is being extended by another request; wait for it", state="busy")
    context.busy = True


@implements(calls.Infer)
async def infer(request: Request, call: calls.Infer) -> Inference:
    return await _generate(request, call)


@implements(calls.InferStream)
async def infer_stream(request: Request, call: calls.InferStream) -> Inference:
    return await _generate(request, call)


@implements(calls.Embed)
async def embed(request: Request, call: calls.Embed) -> Inference:
    kernel = request.kernel
    model = kernel.model_of(request.entries["model"])
    return await kernel.inference.run(
        request, model, call.input, "feature-extraction", kernel.no_sampling, embed=call.options
    )


@implements(calls.OpenContext)
async def open_context(request: Request, call: calls.OpenContext) -> Context:
    kernel = request.kernel
    model = kernel.model_of(request.entries["model"])
    parent = kernel.context_of(request.entries["parent"]) if call.parent is not None else None
    if parent is not None:
        _claim(parent, model.id)
    try:
        await kernel.supervisor.wait_ready(model.driver)
        await kernel.models.wake(model, request)
        kernel.models.check(model)
        context_id = kernel.new_id("c")
        link = model.driver.link
        assert link is not None
        wanted = HostOpenContext(
            id=context_id,
            model=model.host_id,
            parent=parent.id if parent is not None else "",
            max_tokens=call.max_tokens,
        )
        opened = await kernel.runner.kept(link.call(wanted), lambda _late: link.call(HostDropContext(id=context_id)))
    finally:
        if parent is not None:
            parent.busy = False
    found = ContextObject(
        id=context_id,
        kind=Kind.CONTEXT,
        name=f"{model.name}/{context_id}",
        owner=request.session.owner,
        model=model,
        opened=opened,
        parent=parent.id if parent is not None else "",
    )
    handle = kernel.add_object(found, request.session, ALL_RIGHTS)
    return Context(
        handle=handle,
        id=context_id,
        model=model.id,
        tokens=opened.tokens,
        max_tokens=opened.max_tokens,
        parent=found.parent,
    )
