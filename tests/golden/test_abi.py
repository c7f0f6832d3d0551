"""The contract changes only where somebody looks: abi.txt lists it, one line per call, type and error."""

from __future__ import annotations

import difflib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_the_contract_is_the_recorded_one() -> None:
    now = subprocess.run([sys.executable, HERE / "abi.py"], capture_output=True, text=True, check=True).stdout
    recorded = (HERE / "abi.txt").read_text()
    diff = difflib.unified_diff(recorded.splitlines(), now.splitlines(), "recorded", "now", lineterm="", n=0)
    changes = "\n".join(diff)
    assert recorded == now, f"the contract changed; if that is meant, run `make abi` and review its diff:\n{changes}"
