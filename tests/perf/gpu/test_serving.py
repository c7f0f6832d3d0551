"""What parts of serving find, and what ends them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gpu import serving
from gpu.setting import Setting


class Quick:
    """Stands for an engine, which takes too long to load here."""

    def __init__(self, *_given: Any, **_named: Any) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {}

    def rate(self, *_given: Any) -> float:
        return 1.0

    def seconds_of(self, jobs: list[tuple[list[int], int, str]]) -> float:
        assert {(len(prompt), new) for prompt, new, _ in jobs} == {(128, 512)} and len(jobs) == 64
        return 2.0


@pytest.mark.parametrize("same", [True, False])
def test_a_model_that_answers_otherwise_after_it_slept_is_an_error(same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "Ours", Quick)
    monkeypatch.setattr(serving, "folder_of", lambda *_given: Path())
    for part in ("prefix", "between", "adapters"):
        monkeypatch.setattr(serving, part, lambda *_given: {})
    monkeypatch.setattr(serving, "wake", lambda _ours: {"same": same})
    found: dict[str, Any] = {}

    def through() -> None:
        for piece in serving.many(Setting("cpu", False, Path())):
            found.update(piece)

    if same:
        through()
    else:
        with pytest.raises(RuntimeError, match="after it slept"):
            through()
    assert found["wake"] == {"same": same}
    assert found["requests"] == {"rows": 64, "prompt": 128, "new": 512, "seconds": 2.0, "rate": 64 * 512 / 2.0}
