"""The bundled model does what its card says, with nothing but transformers, and its manifest is true."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmos.userland.cli.parser import parse_line

FOLDER = Path(__file__).parents[4] / "drivers" / "filesystems" / "models" / "bundled" / "tiny"
LIMIT = 12 * 2**20
REQUESTS = {
    "which models are loaded": "ps",
    "Which models are loaded?": "ps",
    "show me the devices": "devices",
    "load the model acme/fox-7 on cpu0": "load /models/acme/fox-7 --device cpu0",
    "why is task t-17 waiting": "why t-17",
    "stop request r42": "cancel r42",
    "last 20 log lines": "logs -n 20",
    "put tiny to sleep": "sleep tiny",
    "please wake up tiny": "wake tiny",
    "unload tiny": "unload tiny",
    "what models are available": "ls",
    "how big is tiny?": "show /models/tiny",
    "keep tiny loaded for 10 minutes": "keep-alive tiny 10m",
    "restart the driver cpu0": "driver restart cpu0",
    "pause task t-3": "pause t-3",
    "show me the errors": "logs --level error",
    "who is connected": "sessions",
    "delete the file /data/notes.txt": "rm /data/notes.txt",
    "chat with tiny": "run /models/tiny",
    "help": "help",
}
OUT_OF_SCOPE = ("what is the weather today", "tell me a joke", "order a pizza", "who won the world cup")

Ask = Callable[[str], tuple[str, float]]


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def ask() -> Ask:
    """A request's answer and its confidence: the product of the token probabilities, greedy."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()

    def answer(request: str) -> tuple[str, float]:
        chat = [{"role": "user", "content": request}]
        given = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**given, return_dict_in_generate=True, output_logits=True)
        new = out.sequences[0, given["input_ids"].shape[1] :]
        logs = torch.stack(out.logits)[:, 0].log_softmax(-1).gather(1, new[:, None])
        return tokenizer.decode(new, skip_special_tokens=True), float(logs.sum().exp())

    return answer


def test_manifest_lists_every_file_with_its_size_and_hash(manifest: dict[str, Any]) -> None:
    listed = {entry["name"]: entry for entry in manifest["files"]}
    assert set(listed) == {path.name for path in FOLDER.iterdir()} - {"manifest.json", "README.md"}
    for name, entry in listed.items():
        content = (FOLDER / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])


def test_folder_is_small_and_the_shapes_fit_the_kernels(manifest: dict[str, Any]) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= LIMIT
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["hidden_size"] % 128 == 0 and config["intermediate_size"] % 128 == 0
    assert config["architectures"] == ["LlamaForCausalLM"] == [manifest["architecture"]]
    assert config["max_position_embeddings"] == manifest["context"]


@pytest.mark.parametrize(("request_text", "command"), REQUESTS.items(), ids=lambda text: text)
def test_requests_become_commands(ask: Ask, manifest: dict[str, Any], request_text: str, command: str) -> None:
    text, confidence = ask(request_text)
    assert text == command
    assert confidence >= manifest["metrics"]["confidence"]["threshold"]
    parse_line(text)


@pytest.mark.parametrize("request_text", OUT_OF_SCOPE)
def test_what_no_command_can_do_is_refused(ask: Ask, manifest: dict[str, Any], request_text: str) -> None:
    text, confidence = ask(request_text)
    assert text == "unknown" or confidence < manifest["metrics"]["confidence"]["threshold"]


def test_the_numbers_of_the_card_are_those_measured_at_export(manifest: dict[str, Any]) -> None:
    metrics = manifest["metrics"]
    assert metrics["exact_match_phrasings"] >= 0.9
    assert metrics["exact_match_names"] >= 0.8
    perplexity = metrics["docstring_perplexity"]
    assert perplexity["model"] < perplexity["bigram"] < perplexity["unigram"]
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in ("exact_match_phrasings", "exact_match_names", "exact_match_templates", "refused_templates"):
        assert f"{metrics[name]:.3f}" in card, name
