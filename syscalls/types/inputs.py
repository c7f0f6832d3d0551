"""What goes into a model. Tagged unions: the client turns str, list[int] and list[dict] into them."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from .common import Argument, Bytes, Tensor

TokenId = Annotated[int, Meta(ge=0)]


class Text(Argument, tag="text"):
    """Raw text with the tokenizer's default special tokens; no chat template."""

    text: str


class Tokens(Argument, tag="tokens"):
    """Token ids, taken as they are."""

    ids: list[TokenId]


class Chat(Argument, tag="chat"):
    """Messages for the model's chat template: maps with `role` and `content`."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    template_options: dict[str, Any] = {}


class Image(Argument, tag="image"):
    """An encoded image (PNG, JPEG, ...) as bytes; the client library reads those of a `path` of the namespace."""

    data: Bytes = b""
    path: str = ""


class Audio(Argument, tag="audio"):
    """Encoded audio (WAV, FLAC, ...) as bytes; the client library reads those of a `path` of the namespace."""

    data: Bytes = b""
    path: str = ""


class Video(Argument, tag="video"):
    """Encoded video as bytes; the client library reads those of a `path` of the namespace."""

    data: Bytes = b""
    path: str = ""


class Table(Argument, tag="table"):
    """Rows under named columns."""

    columns: list[str]
    rows: list[list[Any]]


class Parts(Argument, tag="parts"):
    """Several media in order."""

    parts: list[Text | Image | Audio | Video | Table]


class Tensors(Argument, tag="tensors"):
    """Named tensors for models without a text front."""

    named: dict[str, Tensor]


Input = Text | Tokens | Chat | Parts | Tensors
