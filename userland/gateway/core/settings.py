"""The settings of the gateway: the table `[gateway.config]` of the kernel's file, checked once at the start."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from llmos.syscalls.describe import suggest

from .scopes import Scope

DEFAULT_HTTP = "127.0.0.1:7411"

Bytes = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class BadSettings(Exception):
    """A setting has the wrong name or value; the text says which and what it takes."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the gateway serves. Sizes in bytes, times in seconds."""

    http: str = DEFAULT_HTTP
    """Where it listens: `HOST:PORT`, or `unix:PATH`; port 0 takes a free one."""
    certificate: str = ""
    """A file with the certificate chain (PEM); with it the gateway speaks HTTPS."""
    private_key: str = ""
    """The file with the key of the certificate."""
    anonymous: Literal["no", "local"] = "no"
    """`local` lets callers of this machine in without a key."""
    anonymous_scopes: list[Scope] = field(default_factory=lambda: ["infer", "read"])
    """What callers without a key may do."""
    hosts: list[str] = []
    """Names that callers without a key may use for this machine, beside localhost and the address it listens on."""
    origins: list[str] = []
    """Web pages of these origins may call (CORS); none by default."""
    body_bytes: Bytes = 32 << 20
    """The largest body of a request."""
    upload_bytes: Bytes = 1 << 30
    """The largest file that is uploaded."""
    header_bytes: Bytes = 32 << 10
    """The largest head of a request."""
    header_s: Seconds = 15
    """How long the head of a request may take to arrive."""
    body_s: Seconds = 60
    """How long a body may pause while it arrives."""
    idle_s: Seconds = 75
    """How long a connection without a request stays open."""
    request_s: Seconds = 3600
    """How long a request may take in all."""
    stalled_reader_s: Seconds = 60
    """A connection whose reader takes nothing for so long is closed, and its request cancelled."""
    connections: Count = 1000
    """Open connections."""
    per_key_connections: Count = 256
    """Requests that one key may have under way."""
    load_on_request: bool = True
    """A stored model is loaded when a request names it."""
    keep_alive: Annotated[float, Meta(ge=-1)] = 300.0
    """How long a model loaded by a request stays awake without use; -1 for ever."""
    aliases: dict[str, str] = {}
    """Names that stand for others: `"gpt-4o-mini" = "tiny"`."""
    moderation_model: str = ""
    """A text classifier that serves /v1/moderations."""
    embedding_pooling: Literal["mean", "cls", "last"] = "mean"
    """How the states of the tokens become one vector."""
    drain_s: Annotated[float, Meta(ge=0)] = 20
    """How long requests that run may take to end when the gateway stops."""
    session_idle_s: Seconds = 60
    """A key's session with the kernel is closed so long after its last request."""
    upload_idle_s: Seconds = 86400
    """An unfinished upload of a model is removed so long after the last file of it that arrived."""
    log: Literal["all", "errors", "none"] = "errors"
    """Which requests leave a line in the log."""


def settings_of(table: Mapping[str, Any]) -> Settings:
    """The settings from a table.

    Raises:
        BadSettings: an unknown name or a wrong value.
    """
    try:
        made = msgspec.convert(dict(table), Settings)
    except msgspec.ValidationError as error:
        for name in table:
            if name not in Settings.__struct_fields__:
                hint = suggest(str(name), Settings.__struct_fields__)
                raise BadSettings(f"unknown key gateway.config.{name}; {hint}") from None
        raise BadSettings(f"gateway.config: {error}") from None
    address_of(made.http)
    if bool(made.certificate) != bool(made.private_key):
        raise BadSettings("gateway.config: certificate and private_key are given together or not at all")
    return made


class Address(Struct, frozen=True, kw_only=True):
    """Where the gateway listens: a host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def url(self, secure: bool = False) -> str:
        """The base URL; that of a Unix socket names its path."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if secure else 'http'}://{host}:{self.port}"


def address_of(text: str) -> Address:
    """`HOST:PORT`, `[::1]:PORT` or `unix:PATH`. Raises BadSettings."""
    if text.startswith("unix:") and len(text) > 5:
        return Address(path=text[5:])
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BadSettings(f"{text!r} is no address; expected HOST:PORT, such as {DEFAULT_HTTP}, or unix:PATH")
    return Address(host=host.removeprefix("[").removesuffix("]"), port=int(port))
