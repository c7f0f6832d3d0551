"""Types of the bodies of all routes that are not derived from a call, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ollama import bodies as ollama
from ..openai.adapters import LoadBody, UnloadBody
from ..openai.bodies import ChatBody, CompletionBody
from ..openai.embeddings import EmbeddingBody
from ..openai.jobs import JobBody
from ..openai.ranking import ModerationBody, RerankBody, ScoreBody
from ..openai.responses import ResponseBody
from ..openai.tokens import DetokenizeBody, TokenizeBody
from .keys import KeyBody
from .queries import ROOT
from .seed import MicrotuneBody, RegisterBody
from .store import CommitBody, UploadBody

BODIES: Mapping[str, type[Any]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/embeddings": EmbeddingBody,
    "/v1/responses": ResponseBody,
    **{f"{prefix}/tokenize": TokenizeBody for prefix in ("", "/v1")},
    **{f"{prefix}/detokenize": DetokenizeBody for prefix in ("", "/v1")},
    **{f"{prefix}/rerank": RerankBody for prefix in ("", "/v1")},
    **{f"{prefix}/score": ScoreBody for prefix in ("", "/v1")},
    "/v1/moderations": ModerationBody,
    "/v1/fine_tuning/jobs": JobBody,
    "/v1/load_lora_adapter": LoadBody,
    "/v1/unload_lora_adapter": UnloadBody,
    "/api/chat": ollama.ChatBody,
    "/api/generate": ollama.GenerateBody,
    "/api/embed": ollama.EmbedBody,
    "/api/embeddings": ollama.EmbeddingsBody,
    "/api/show": ollama.Named,
    "/api/delete": ollama.Named,
    "/api/pull": ollama.PullBody,
    f"{ROOT}/keys": KeyBody,
    "/register": RegisterBody,
    "/microtune": MicrotuneBody,
    f"{ROOT}/store/models/{{path:path}}": UploadBody,
    f"{ROOT}/store/uploads/{{upload}}": CommitBody,
}
"""By path."""

FORMS = frozenset({"/v1/files", "/v1/audio/transcriptions", "/v1/audio/translations"})
"""Routes whose body is a form with a file."""
EMPTY = frozenset({
    "/dashboard/logout", "/v2/repository/index", "/v2/repository/models/{model:path}/load",
    "/v2/repository/models/{model:path}/unload", "/v1/fine_tuning/jobs/{job}/cancel",
    "/v1/fine_tuning/jobs/{job}/pause", "/v1/fine_tuning/jobs/{job}/resume",
})  # fmt: skip
"""POST routes that need no body."""
