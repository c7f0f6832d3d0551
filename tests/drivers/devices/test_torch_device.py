"""What devices of torch have in common: settings, packages of ops and models, what they are before they start."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_models import PROMPT, ask, build, choice, silent, source_of

from llmos.drivers.contract import Facts, LoadSettings
from llmos.drivers.devices.torch_device import FEATURES, TorchDevice, count
from llmos.drivers.engine.place import PROCESSOR, Place
from llmos.syscalls.errors import BadArgument, BadState, NotFound


class Plain(TorchDevice):
    """The least that a device must say."""

    name = "plain0"
    kind = "cpu"
    there = True

    def __init__(self) -> None:
        super().__init__()
        self.entered: list[str] = []

    def _find(self, config: Mapping[str, Any]) -> None:
        if not self.there:
            raise NotFound("there is none")

    def _register_own(self) -> None:
        self.ops.register("add", "own", lambda x, y: x + y, lambda spec: (True, ""))

    def _place(self, threads: int, config: Mapping[str, Any]) -> Place:
        return PROCESSOR

    def _watched(self) -> AbstractContextManager[None]:
        @contextmanager
        def watch() -> Any:
            self.entered.append("in")
            yield
            self.entered.append("out")

        return watch()

    def _held(self) -> int:
        return 7

    def facts(self) -> Facts:
        return Facts(self.name, self.kind, 1 << 30, features=FEATURES)


def test_it_serves_where_it_says_and_all_of_it_is_watched(tmp_path: Path) -> None:
    device = Plain()
    with pytest.raises(BadState):
        device.step()
    device.start("plain0", 1, {})
    assert device.ops.names("add") == ("own", "torch")
    device.entered.clear()
    device.load("m", source_of(build(tmp_path / "llama")), LoadSettings(), silent)
    assert device.entered == ["in", "out"]
    assert choice(device, ask(PROMPT, max_tokens=2)).tokens
    assert device.entered.count("in") == device.entered.count("out") > 3
    assert sum(row.driver for row in device.memory()) == 7
    device.sleep("m")
    device.wake("m", silent)
    assert device.unload("m") > 0
    device.stop()
    with pytest.raises(BadState):
        device.memory()


def test_without_hardware_nothing_is_imported_or_kept() -> None:
    device = Plain()
    device.there = False
    with pytest.raises(NotFound):
        device.start("plain0", 1, {})
    device.stop()


@pytest.mark.parametrize("value", [0, -1, "4", True, 1.5])
def test_a_number_of_things_is_a_whole_one(value: object) -> None:
    with pytest.raises(BadArgument, match="things"):
        count({"things": value}, "things", 1)
    with pytest.raises(BadArgument, match="prefill_tokens"):
        Plain().start("plain0", 1, {"prefill_tokens": value})
    assert count({}, "things", 3) == 3
