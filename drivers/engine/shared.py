"""One module that several runners use in turn."""

from __future__ import annotations

from typing import Any

from . import adapters



class SharedModule:
    """A model's module, and what it is set to now: its attention function, and the adapter that takes part."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self._plain = str(module.config._attn_implementation)
        self._attention = self._plain
        self._adapter: str | None = None

    def use(self, adapter: str = "", attention: str = "") -> Any:
        """The module with an adapter (none when empty) and an attention function (the library's choice when empty)."""
        wanted = attention or self._plain
        if wanted != self._attention:
            self.module.set_attn_implementation(wanted)
            self._attention = wanted
        if adapter != (self._adapter or ""):
            adapters.activate(self.module, adapter)
            self._adapter = adapter
        return self.module

    def changed(self) -> None:
        """An adapter came or went, which leaves none of them active."""
        self._adapter = None
