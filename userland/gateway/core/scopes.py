"""What a key may do, and the paths that need no key. Only names: the command line imports this without a web server."""

from __future__ import annotations

from typing import Literal, get_args

Scope = Literal["infer", "read", "load", "files", "tune", "manage", "admin"]
"""`infer` run models; `read` lists, search, metrics, journal; `load` load models and lease memory; `files` store files;
`tune` adapt models; `manage` control, unload, alias, clean up, pull; `admin` keys, and everything of everybody."""

SCOPES: frozenset[str] = frozenset(get_args(Scope))

PUBLIC = frozenset({"/", "/health/live", "/dashboard", "/dashboard/login", "/dashboard/logout"})
"""Paths that answer without a key."""

PUBLIC_PREFIXES = ("/dashboard/static/",)
"""The same for what lies below: the files of the dashboard's pages, which say nothing of this machine."""

_PAGES = frozenset({"/", "/dashboard"})


def is_public(path: str) -> bool:
    """Whether the path answers without a key."""
    return path in PUBLIC or path.startswith(PUBLIC_PREFIXES)


def is_page(path: str) -> bool:
    """Whether it is the dashboard's page or a file of it: who looks asks for dozens, which count for no key."""
    return path in _PAGES or path.startswith(PUBLIC_PREFIXES)
