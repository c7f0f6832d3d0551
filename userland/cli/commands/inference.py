"""Commands that run models: run (one answer, or a chat) and ask."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from llmos.syscalls.errors import BadArgument, LlmosError, NotFound, TooLarge
from llmos.syscalls.types import Inference
from llmos.userland.objects import Model
from llmos.userland.places import host_path

from .. import asking, text
from ..cli import DEFAULT_MODEL, Cli
from ..out import show_error
from ..parser import changes_state
from .models import progress_bar

_SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "stop")
_COMMON = ("timeout", "priority", "work_class")
MAX_TOKENS = 512
"""New tokens of an answer when the user says nothing."""


def options_of(values: Namespace) -> dict[str, Any]:
    """Sampling fields and common arguments that were given, over the model's own generation settings."""
    given = {name: getattr(values, name, None) for name in (*_SAMPLING, *_COMMON)}
    given = {name: value for name, value in given.items() if value is not None}
    return {"sampling": "model", "max_tokens": MAX_TOKENS, **given}


def open_model(cli: Cli, name: str, device: str | None = None) -> Model:
    """A model by the name it was loaded under, else loaded: a path, a folder of this machine, or a name in /models."""
    if not name.startswith("/") and host_path(name) is None:
        try:
            return cli.system.model(name)
        except NotFound:
            name = cli.stored(name)
    with progress_bar(cli, f"loading {name}") as show:
        return cli.system.load_model(name, device=device, on_progress=show)


def run(cli: Cli, values: Namespace) -> int:
    prompt = values.prompt
    if prompt is None and cli.ask is None and not cli.in_shell:
        prompt = sys.stdin.read()
        if not prompt.strip():
            raise BadArgument("there is no prompt: write it behind the model, or pipe it in", name="prompt")
    with open_model(cli, values.model, values.device) as model:
        if prompt is None:
            return chat(cli, model, values)
        _answer(cli, model, _input(model, prompt, [], values.raw), values)
    return 0


def _input(model: Model, prompt: str, before: list[dict[str, str]], raw: bool) -> Any:
    """Chat messages for a model with a chat template, plain text otherwise."""
    if raw or not model.info.chat:
        return prompt
    return [*before, {"role": "user", "content": prompt}]


def _answer(cli: Cli, model: Model, content: Any, values: Namespace) -> Inference:
    """Print one answer as it comes."""
    options = options_of(values)
    if values.no_stream:
        inference = model.infer(content, **options)
        if not cli.out.result(inference):
            cli.out.line(inference.text)
    else:
        with model.infer_stream(content, **options) as stream:
            said = False
            try:
                for chunk in stream:
                    if not cli.out.result(chunk):
                        cli.out.said(chunk.text)
                        said = True
            except LlmosError:
                if said:
                    cli.out.line()
                raise
            inference = stream.result
        if not cli.out.result(inference):
            cli.out.line()
    if values.stats:
        _stats(cli, inference)
    return inference


def _stats(cli: Cli, inference: Inference) -> None:
    usage, timing = inference.usage, inference.timing
    seconds = timing.total / 1e9
    rate = f", {usage.new_tokens / seconds:.1f} tokens/s" if seconds else ""
    first = f", first token after {text.duration(timing.first / 1e9)}" if timing.first else ""
    cli.out.note(
        f"[{usage.prompt_tokens} tokens in, {usage.new_tokens} out in {text.duration(seconds)}{rate}{first}, "
        f"waited {text.duration(timing.queued / 1e9)}; ended by {inference.choices[0].reason}]"
    )
    for reason in inference.reasons:
        cli.out.note(f"[{reason.text}]")


def chat(cli: Cli, model: Model, values: Namespace) -> int:
    """Questions and answers until an empty line or the end of the input."""
    messages: list[dict[str, str]] = []
    cli.out.note(f"chat with {model.info.name}; an empty line ends it, Ctrl-C stops an answer")
    while True:
        try:
            prompt = cli.ask("> ") if cli.ask is not None else input("> ")
        except (EOFError, KeyboardInterrupt):
            return 0
        if not prompt.strip():
            return 0
        try:
            inference = _answer(cli, model, _input(model, prompt, messages, values.raw), values)
        except KeyboardInterrupt:
            cli.out.note("\n(stopped)")
            continue
        except LlmosError as error:
            show_error(error, cli.out.as_json)
            if isinstance(error, TooLarge) and messages:
                messages = []
                cli.out.note("the conversation had grown too long and is forgotten; ask again")
            continue
        messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": inference.text}]


def ask(cli: Cli, values: Namespace) -> int:
    """Plain English to a command: shown, confirmed when it changes something, run."""
    from . import run_command

    with open_model(cli, values.model or DEFAULT_MODEL) as model:
        found = asking.translate(model, values.words, asking.threshold(cli.system, model.info.path))
    if isinstance(found, asking.Refusal):
        cli.out.result({"request": values.words, "command": None, "confidence": found.confidence, "why": found.why})
        cli.out.note(found.why)
        return 1
    told = {"request": values.words, "command": found.line, "confidence": found.confidence}
    if values.dry_run and cli.out.result(told):
        return 0
    if not cli.out.as_json:
        print_to = cli.out.line if values.dry_run else cli.out.note
        print_to(f"{found.line}   ({found.confidence:.0%} sure)")
    if values.dry_run:
        return 0
    if changes_state(found.command, found.values) and not values.yes and not cli.confirm("run it?"):
        if not cli.out.as_json:
            cli.out.note("not run" if cli.ask is not None else "not run: it changes something; say --yes to run it")
        return 1
    found.values.json = cli.out.as_json
    return run_command(cli, found.command, found.values)
