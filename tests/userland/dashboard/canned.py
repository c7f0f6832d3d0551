"""What the fake gateway shows: a machine with a GPU and a CPU, loaded and stored models, runs, a journal, reasons."""

from __future__ import annotations

from typing import Any

GIB = 1 << 30
MIB = 1 << 20

DEVICES: list[dict[str, Any]] = [
    {"id": "d-1", "name": "cuda0", "state": "ready", "health": "ok", "total": 24 * GIB, "free": int(7.4 * GIB),
     "restarts": 1, "cause": "killed by signal 9",
     "rows": [{"what": "weights", "owner": "qwen3-4b", "bytes": int(7.6 * GIB)},
              {"what": "kv", "owner": "qwen3-4b", "bytes": int(3.1 * GIB)},
              {"what": "workspace", "owner": "qwen3-4b", "bytes": int(0.6 * GIB)},
              {"what": "tuning", "owner": "support-lora", "bytes": int(2.2 * GIB)},
              {"what": "lease", "owner": "notebook", "bytes": GIB},
              {"what": "foreign", "owner": "pid 2211 Xorg", "bytes": int(1.1 * GIB)},
              {"what": "reserve", "owner": "", "bytes": GIB}]},
    {"id": "d-2", "name": "cpu0", "state": "ready", "health": "ok", "total": 64 * GIB, "free": int(57.5 * GIB),
     "restarts": 0, "cause": "",
     "rows": [{"what": "weights", "owner": "bge-small", "bytes": 134 * MIB},
              {"what": "weights", "owner": "tiny", "bytes": 17 * MIB},
              {"what": "kv", "owner": "tiny", "bytes": 64 * MIB},
              {"what": "foreign", "owner": "other processes", "bytes": int(6.2 * GIB)}]},
]  # fmt: skip

DRIVERS: list[dict[str, Any]] = [
    {"name": "cpu0", "state": "ready", "health": "ok", "restarts": 0, "pid": 4720},
    {"name": "cuda0", "state": "ready", "health": "ok", "restarts": 1, "pid": 5102},
    {"name": "files", "state": "ready", "health": "ok", "restarts": 0, "pid": 4722},
    {"name": "models", "state": "ready", "health": "ok", "restarts": 0, "pid": 4723},
]


def _model(number: int, name: str, device: str, state: str, bytes: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"m-{number}", "name": name, "path": f"/models/{name}", "version": "v2", "device": device, "state": state,
        "health": "ok", "bytes": bytes, "running": 0, "waiting": 0, "requests": 0, "tokens_per_s": 0.0,
        "throughput": 0.0, "first_token_s": 0.0, "base": "", "rung": "P", "keep_alive": -1, "used": 0.0, **more,
    }  # fmt: skip


MODELS: list[dict[str, Any]] = [
    _model(1, "qwen3-4b", "cuda0", "awake", int(11.3 * GIB), running=3, waiting=1, requests=18204, first_token_s=0.064),
    _model(2, "support-lora", "cuda0", "awake", 48 * MIB, requests=911, first_token_s=0.071, base="qwen3-4b"),
    _model(3, "tiny", "cpu0", "asleep", 0, requests=42, first_token_s=0.009, keep_alive=300),
    _model(4, "bge-small", "cpu0", "awake", 134 * MIB, requests=60311),
]

QUEUES: list[dict[str, Any]] = [
    {"model": "m-1", "name": "qwen3-4b", "work_class": "interactive", "owner": "uid:1000", "waiting": 1, "running": 3,
     "oldest_s": 0.4},
    {"model": "m-1", "name": "qwen3-4b", "work_class": "batch", "owner": "uid:1001", "waiting": 12, "running": 1,
     "oldest_s": 31.0},
]  # fmt: skip

ADVICE: list[dict[str, Any]] = [
    {"code": "pin", "about": "m-3", "name": "tiny",
     "text": "tiny had to leave cpu0 4 times in the last 15 minutes and took 2.10 s to come back each time; it is "
     "asked most often of those that come and go",
     "evidence": {"evictions": 4, "reload_s": 2.1, "requests": 42}, "gain": {"evictions": -4, "seconds": -8.4},
     "action": "llmos pin tiny"},
    {"code": "quantize", "about": "m-1", "name": "qwen3-4b",
     "text": "with weights of 8 bits qwen3-4b takes 4.1 GiB of weights instead of 7.6 GiB: cuda0 refused 2 times for "
     "want of memory in the last 15 minutes",
     "evidence": {"refused": 2, "weights_bytes": int(7.6 * GIB)}, "gain": {"weights_bytes": -int(3.5 * GIB)},
     "action": "llmos load /models/qwen3-4b --device cuda0 --name qwen3-4b --replace --quant w8"},
]  # fmt: skip

TASKS: list[dict[str, Any]] = [
    {"id": "t-18", "kind": "tune", "name": "support-lora r8", "state": "running", "progress": {}},
    {"id": "t-17", "kind": "tune", "name": "support-lora r16", "state": "done",
     "progress": {"done": 800, "total": 800, "unit": "steps", "stage": "train"}},
    {"id": "t-19", "kind": "import", "name": "llama-3.2-1b", "state": "running",
     "progress": {"done": int(1.1 * GIB), "total": int(2.3 * GIB), "unit": "bytes", "stage": "download"}},
]  # fmt: skip


def _stored(
    name: str, architecture: str, tasks: list[str], parameters: int, size: int, reason: str, **more: Any
) -> Any:
    fields = {
        "architecture": architecture, "tasks": tasks, "parameters": parameters, "bytes": size, "dtype": "bfloat16",
        "context": 32768, "licence": "apache-2.0", "chat_template": True, "languages": ["en", "de"], "version": "v2",
        "created": "2026-11-20T09:12:44Z", "origin": f"hf:org/{name}", **more,
    }  # fmt: skip
    return {"path": f"/models/{name}", "score": 1.0, "fields": fields, "reason": reason}


STORED: list[dict[str, Any]] = [
    _stored("qwen3-4b", "Qwen3ForCausalLM", ["text-generation"], 4_022_468_096, int(7.6 * GIB),
            "41 tokens/s measured on cuda0", measured={"cuda0": {"tokens_per_s": 41.2}}),
    _stored("support-lora", "Qwen3ForCausalLM", ["text-generation"], 11_800_000, 48 * MIB, "adapter of qwen3-4b",
            adapter_of="qwen3-4b", parents=[{"path": "/models/qwen3-4b", "version": "v2", "how": "adapter"}]),
    _stored("llama-3.2-1b", "LlamaForCausalLM", ["text-generation"], 1_235_814_400, int(2.3 * GIB), "newest first",
            licence="llama3.2", context=131072),
    _stored("tiny", "LlamaForCausalLM", ["text-generation"], 4_400_000, 17 * MIB, "comes with LLM OS", context=512,
            measured={"cpu0": {"tokens_per_s": 361.4}}),
    _stored("bge-small", "BertModel", ["feature-extraction"], 33_360_000, 134 * MIB, "task feature-extraction",
            licence="mit", context=512, chat_template=False),
    _stored("distil-sst2", "DistilBertForSequenceClassification", ["text-classification"], 66_955_010, 268 * MIB,
            "task text-classification", context=512, chat_template=False),
    _stored("mixtral-8x22b", "MixtralForCausalLM", ["text-generation"], 140_620_634_112, int(262 * GIB), "newest first",
            context=65536),
]  # fmt: skip

JOURNAL: list[tuple[float, str, str, str, str]] = [
    (8040, "kernel", "info", "", "LLM OS 0.1.0 has started, pid 4711"),
    (8038, "supervisor", "info", "cpu0", "cpu0 is ready after 1.2 s"),
    (8036, "supervisor", "info", "cuda0", "cuda0 is ready after 3.4 s"),
    (7900, "models", "info", "m-1", "qwen3-4b is loaded on cuda0 in 6.1 s"),
    (7100, "models", "info", "m-2", "support-lora is loaded on qwen3-4b in 0.21 s"),
    (3600, "supervisor", "warning", "cuda0", "cuda0 was killed by signal 9; it is started again (restart 1)"),
    (3598, "models", "info", "m-1", "qwen3-4b is back on cuda0; 2 requests that had not begun were kept"),
    (2400, "inference", "error", "r-3311", "request r-3311 ended: PeerGone after 118 tokens"),
    (600, "residency", "info", "m-3", "tiny is put to sleep: idle for 300 s"),
    (45, "tasks", "info", "t-18", "t-18 has saved a checkpoint at step 600"),
]

WHY: list[dict[str, Any]] = [
    {"code": "model.loaded", "text": "qwen3-4b is loaded on cuda0 in 6.1 s", "at": 7900, "rule": "",
     "numbers": {"needed": int(11.3 * GIB), "free": int(22.9 * GIB)}},
    {"code": "place.device", "text": "cuda0 was chosen: it is the fastest device on which it fits", "at": 7906,
     "rule": "fastest first", "numbers": {"tokens_per_s": 41.2}},
    {"code": "driver.lost", "text": "cuda0 was killed by signal 9", "at": 3600, "rule": "", "numbers": {"restarts": 1}},
    {"code": "model.back", "text": "qwen3-4b is back on cuda0 from its recipe", "at": 3598, "rule": "",
     "numbers": {"took_s": 5.8}},
]  # fmt: skip
