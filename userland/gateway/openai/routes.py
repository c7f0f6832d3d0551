"""All routes of the OpenAI API, and those of vLLM's server that stand beside them."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from ..core.routing import Handler, requires
from ..core.scopes import Scope
from . import adapters, audio, chat, completions, embeddings, files, jobs, models, ranking, responses, tokens


def _post(path: str, scope: Scope, handler: Handler) -> Route:
    return Route(path, requires(scope, handler), methods=["POST"])


def _get(path: str, scope: Scope, handler: Handler) -> Route:
    return Route(path, requires(scope, handler), methods=["GET"])


def _delete(path: str, scope: Scope, handler: Handler) -> Route:
    return Route(path, requires(scope, handler), methods=["DELETE"])


def routes() -> list[BaseRoute]:
    """The routes, each with its scope."""
    job = "/v1/fine_tuning/jobs/{job}"
    return [
        _post("/v1/chat/completions", "infer", chat.chat_completions),
        _post("/v1/completions", "infer", completions.completions),
        _post("/v1/embeddings", "infer", embeddings.embeddings),
        _post("/v1/responses", "infer", responses.create_response),
        _get("/v1/responses/{response}", "infer", responses.get_response),
        _delete("/v1/responses/{response}", "infer", responses.delete_response),
        _get("/v1/models", "read", models.list_models),
        _get("/v1/models/{model:path}", "read", models.get_model),
        *(_post(f"{prefix}/tokenize", "infer", tokens.tokenize) for prefix in ("", "/v1")),
        *(_post(f"{prefix}/detokenize", "infer", tokens.detokenize) for prefix in ("", "/v1")),
        *(_post(f"{prefix}/rerank", "infer", ranking.rerank) for prefix in ("", "/v1")),
        *(_post(f"{prefix}/score", "infer", ranking.score) for prefix in ("", "/v1")),
        _post("/v1/moderations", "infer", ranking.moderations),
        _post("/v1/audio/transcriptions", "infer", audio.transcriptions),
        _post("/v1/audio/translations", "infer", audio.translations),
        _post("/v1/audio/speech", "infer", audio.speech),
        _post("/v1/images/generations", "infer", audio.images),
        _post("/v1/files", "files", files.upload),
        _get("/v1/files", "files", files.list_files),
        _get("/v1/files/{file}", "files", files.get_file),
        _get("/v1/files/{file}/content", "files", files.content),
        _delete("/v1/files/{file}", "files", files.delete_file),
        _post("/v1/fine_tuning/jobs", "tune", jobs.create_job),
        _get("/v1/fine_tuning/jobs", "tune", jobs.list_jobs),
        _get(job, "tune", jobs.get_job),
        _post(f"{job}/cancel", "tune", jobs.cancel_job),
        _post(f"{job}/pause", "tune", jobs.pause_job),
        _post(f"{job}/resume", "tune", jobs.resume_job),
        _get(f"{job}/events", "tune", jobs.events),
        _get(f"{job}/checkpoints", "tune", jobs.checkpoints),
        _post("/v1/load_lora_adapter", "load", adapters.load_adapter),
        _post("/v1/unload_lora_adapter", "load", adapters.unload_adapter),
    ]
