"""One module that several runners use in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .lora.store import LoraStore
from .steps import RowStep


class SharedModule:
    """A model's module, and what it is set to now: its attention function, and the adapters that take part."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.adapters = LoraStore(module)
        self._plain = str(module.config._attn_implementation)
        self._attention = self._plain
        self.own_attention = False
        """Whether it keeps the library's function even on pages, because it attends in a way of its own."""

    def use(self, adapter: str = "", attention: str = "", rows: Sequence[RowStep] = ()) -> Any:
        """The module with an attention function (the library's choice when empty), and with adapters: one for all
        tokens, or those of rows that are sorted by adapter; none otherwise.
        """
        wanted = self._plain if self.own_attention else attention or self._plain
        if wanted != self._attention:
            self.module.set_attn_implementation(wanted)
            self._attention = wanted
        if adapter:
            self.adapters.step.set_whole(self.adapters.slot(adapter))
        else:
            self.adapters.step.set_rows(rows)
        return self.module
