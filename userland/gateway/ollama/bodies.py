"""The bodies of Ollama's API, as far as they are served; other fields are ignored and named in a header.

https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

LATEST = ":latest"

Name = Annotated[str, Meta(max_length=512)]


class Options(Struct, frozen=True, kw_only=True):
    """How tokens are chosen; what is not given has Ollama's default."""

    num_predict: int | None = None
    temperature: Annotated[float, Meta(ge=0)] = 0.8
    top_k: Annotated[int, Meta(ge=0)] = 40
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.9
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0


NO_OPTIONS = Options()


class Named(Struct, frozen=True, kw_only=True):
    """A body that names a model, by its new or its old field."""

    model: Name = ""
    name: Name = ""

    @property
    def wanted(self) -> str:
        """The name as the gateway knows it: `x:latest` is `x`."""
        return (self.model or self.name).removesuffix(LATEST)


def streams(wanted: bool | None) -> bool:
    """Answers are streams unless that is refused."""
    return wanted is not False


class Asked(Named, frozen=True, kw_only=True):
    """What asks for text."""

    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: Options | None = None
    keep_alive: float | str | None = None


class GenerateBody(Asked, frozen=True, kw_only=True):
    """`POST /api/generate`."""

    prompt: str = ""
    suffix: str | None = None
    images: list[str] | None = None
    system: str | None = None
    raw: bool = False


class Message(Struct, frozen=True, kw_only=True):
    """One message of a chat; images are base64."""

    role: str
    content: str | None = None
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_name: str | None = None


class ChatBody(Asked, frozen=True, kw_only=True):
    """`POST /api/chat`."""

    messages: list[Message] = []
    tools: list[dict[str, Any]] | None = None


class EmbedBody(Named, frozen=True, kw_only=True):
    """`POST /api/embed`."""

    input: str | list[str]
    truncate: bool = True
    keep_alive: float | str | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class EmbeddingsBody(Named, frozen=True, kw_only=True):
    """`POST /api/embeddings`, the older form for a single text."""

    prompt: str = ""
    keep_alive: float | str | None = None


class PullBody(Named, frozen=True, kw_only=True):
    """`POST /api/pull`."""

    stream: bool | None = None
