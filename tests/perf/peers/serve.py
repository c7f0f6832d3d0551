"""The process of one peer: reads a command as JSON from each line of standard input, answers with a line.

Standard output belongs to the answers; what libraries print goes to standard error.

    python -m peers.serve NAME
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from .peer import Job, Room

CLASSES = {
    "ours": "ours:Ours",
    "ours-kernel": "through_kernel:ThroughKernel",
    "generate": "library:Generate",
    "generate-static": "library:GenerateStatic",
    "generate-batch": "library:GenerateBatch",
    "pipeline": "library:Pipeline",
    "llama.cpp": "llama_cpp_peer:LlamaCpp",
    "openvino": "openvino_peer:OpenVino",
    "vllm": "vllm_peer:Vllm",
}


def make(name: str) -> Any:
    """The peer of that name; its library is imported now."""
    module, _, kind = CLASSES[name].partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), kind)()


def obey(peer: Any, command: Mapping[str, Any]) -> Any:
    """Carry out one command."""
    given = dict(command)
    match given.pop("do"):
        case "load":
            return dict(peer.load(Path(given["folder"]), Room(**given["room"])))
        case "run":
            jobs = [Job(**job) for job in given["jobs"]]
            return [asdict(answer) for answer in peer.run(jobs, given["last"])]
        case other:
            return getattr(peer, other)(**given)


def main(name: str) -> None:
    answers = _own_output()
    peer = None
    try:
        peer = make(name)
        _say(answers, {"value": {"continuous": getattr(peer, "continuous", False)}})
        for line in sys.stdin:
            _say(answers, {"value": obey(peer, json.loads(line))})
    except BaseException as error:  # the bench learns of it, whatever it was, and the process ends with it
        traceback.print_exc()
        _say(answers, {"error": f"{type(error).__name__}: {error}"[:2000]})
        raise
    finally:
        getattr(peer, "close", lambda: None)()


def _own_output() -> TextIO:
    """Standard output for the answers alone: whatever else writes to it, in any language, reaches standard error."""
    mine = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return mine


def _say(answers: TextIO, message: Mapping[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
