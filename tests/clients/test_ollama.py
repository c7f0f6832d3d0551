"""The real Ollama client, in an environment of its own, before a gateway."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import install
from gateway_server import GatewayServer, kernel_for_gateway, serving

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(install.missing("ollama")), reason=install.missing("ollama"))]


@pytest.fixture
def gateway() -> Iterator[GatewayServer]:
    with kernel_for_gateway() as kernel, serving(kernel) as server:
        yield server


def test_what_the_client_offers(gateway: GatewayServer) -> None:
    script = Path(__file__).with_name("ollama_script.py")
    argv = [str(install.python("ollama")), "-P", str(script), gateway.url, gateway.key()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["whole"] == ["assistant", "hello", "stop", 6]
    assert seen["streamed"] == ["hel", "length"] and seen["generated"] == ["abc", True]
    assert seen["called"] == [["look", {"at": "sky"}]]
    assert seen["embedded"] == [64, 64] and seen["embedding"] == 64
    assert {"null:latest", "org/third:latest", "other:latest"} <= set(seen["stored"])
    assert seen["running"] == ["null:latest"]
    assert "completion" in seen["shown"] and seen["pulled"] == ["pulling manifest", "success"]
    assert seen["together"] == ["first", "second"]
    assert seen["unknown"][0] == 404 and "'none'" in seen["unknown"][1]
    assert seen["no key"][0] == 401
    assert seen["schema"][0] == 501  # the null device takes no grammar
