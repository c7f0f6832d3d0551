"""schemathesis, in an environment of its own, sends what the OpenAPI document allows, and what it does not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from clients import install
from gateway_server import kernel_for_gateway, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(install.missing("schemathesis")), reason=install.missing("schemathesis")),
]

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
ENDLESS = ("/api/v1/live", "/api/v1/watch_events")
"""Streams without an end."""


@pytest.mark.parametrize(
    ("phase", "examples", "checks"),
    [("coverage", 1, CHECKS), ("fuzzing", 12, CHECKS), ("coverage", 1, "negative_data_rejection")],
    ids=["coverage", "fuzzing", "rejection"],
)
def test_every_answer_is_as_the_document_says(tmp_path: Path, phase: str, examples: int, checks: str) -> None:
    command = install.python("schemathesis").with_name("schemathesis")
    with kernel_for_gateway() as kernel, serving(kernel, body_s=5) as gateway:
        http = gateway.client()
        assert http.post("/api/v1/load_model", json={"path": "/models/null"}).is_success
        document = tmp_path / "openapi.json"
        document.write_text(json.dumps(http.get("/openapi.json").json()))
        argv = [
            str(command), "--config-file", str(Path(__file__).with_name("schemathesis.toml")), "run", str(document),
            "--url", gateway.url, "--header", http.headers["authorization"].join(("Authorization: ", "")),
            "--phases", phase, "--checks", checks, "--max-examples", str(examples), "--seed", "1", "--no-shrink",
            "--request-timeout", "20", "--continue-on-failure", "--warnings", "off",
            "--suppress-health-check", "all",
        ]  # fmt: skip
        for path in ENDLESS:
            argv += ["--exclude-path", path]
        if checks == "negative_data_rejection":  # the APIs of others take fields that they do not know
            argv += ["--include-path-regex", "^/(api/v1|register|discover)"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4000:]
        assert http.get("/health/live").is_success
