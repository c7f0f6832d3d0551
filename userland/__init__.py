"""Client, embedding, shell, programs. Never torch."""

if __name__ != "llmos.userland":
    raise ImportError(
        "import llmos.userland, not userland: userland/ is the source folder of the package llmos.userland"
    )

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aio import AsyncClient as AsyncClient
    from .embedding import aboot as aboot
    from .embedding import aconnect as aconnect
    from .embedding import boot as boot
    from .embedding import connect as connect
    from .client import Client as Client
    from .link import NoKernel as NoKernel
    from .private import BootFailed as BootFailed

_WHERE = {
    "aboot": "embedding", "aconnect": "embedding", "boot": "embedding", "connect": "embedding", "BootFailed": "private",
    "NoKernel": "link", "Client": "client", "AsyncClient": "aio",
}  # fmt: skip

__all__ = ["AsyncClient", "BootFailed", "Client", "NoKernel", "aboot", "aconnect", "boot", "connect"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Load what is asked for only then: the command line imports this package for every `--help`."""
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"llmos.userland has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"llmos.userland.{where}"), name)
