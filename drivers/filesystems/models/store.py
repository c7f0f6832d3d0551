"""Where models lie on disk: folders laid over each other, versions, aliases and which version is current.

A model is a folder `[org/]name` with `versions/VERSION/` inside, each with its `manifest.json`; a plain Hugging Face
folder is a model of one version. Publishing is one rename of a whole version folder, so nothing half-made is seen here.
`refs.json` holds what is not in the versions themselves: aliases, and a pin when an older version was made current.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from llmos.syscalls.errors import BadModel, NotFound

from ..paths import Parts, is_text, join, replace_file
from .derive import MARKERS
from .manifest import read_object
from .scan import MANIFEST, REFS, VERSIONS

PLAIN = "local"
"""The version of a plain folder whose manifest names none."""
LATEST = "latest"
"""Always an alias of the current version."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Version and alias names."""


@dataclass(frozen=True)
class Layer:
    """A folder of models; only the first one of a source may be writable."""

    root: Path
    writable: bool


@dataclass(frozen=True)
class Version:
    """One version of a model. `plain` ones lie directly in the model's folder; `order` grows with each commit."""

    name: str
    folder: Path
    plain: bool
    writable: bool
    order: int = 0
    previous: str = ""

    @property
    def marker(self) -> Path:
        """The file that is locked while this version is in use."""
        names = MARKERS if self.plain else (MANIFEST,)
        return next((path for name in names if (path := self.folder / name).exists()), self.folder / names[0])


@dataclass(frozen=True)
class Refs:
    """`pinned` is current for as long as `newest` is the newest version; `last` is the highest order ever given.

    An alias names one version; a tag may be on several.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    pinned: str = ""
    newest: str = ""
    last: int = 0
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model with at least one version, oldest first."""

    parts: Parts
    versions: Mapping[str, Version]
    refs: Refs
    problem: BadModel | None = None

    @property
    def path(self) -> str:
        return join(self.parts)

    @cached_property
    def newest(self) -> str:
        return [*self.versions][-1]

    @cached_property
    def current(self) -> str:
        pinned = self.refs.pinned
        return pinned if pinned in self.versions and self.refs.newest == self.newest else self.newest

    def choose(self, selector: str) -> Version:
        """The version that a name, an alias or nothing (the current one) selects. Raises NotFound."""
        if selector in ("", LATEST):
            return self.versions[self.current]
        name = selector if selector in self.versions else self.refs.aliases.get(selector, "")
        if name in self.versions:
            return self.versions[name]
        known = ", ".join([*self.versions, *self.refs.aliases])
        raise NotFound(f"{self.path} has no version or alias {selector!r}; it has {known}")

    def before(self, version: Version) -> Version | None:
        """The version that was current before this one was committed; by age where that is not known."""
        if version.previous in self.versions:
            return self.versions[version.previous]
        names = [*self.versions]
        place = names.index(version.name)
        return self.versions[names[place - 1]] if place else None


@dataclass(frozen=True)
class Target:
    """What a path means: a file or folder `inner` of a model, the model itself, or a folder of models (no model)."""

    model: Model | None
    selector: str = ""
    inner: Parts = ()


class Store:
    """Models below one or several folders. A single folder that is itself a model is served as `/`."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.single = len(layers) == 1 and _is_model(layers[0].root)

    @property
    def writable_root(self) -> Path | None:
        """Where new versions go, or None."""
        return self.layers[0].root if self.layers[0].writable and not self.single else None

    def resolve(self, parts: Parts) -> Target:
        """Find out what a path means. Raises NotFound."""
        if self.single:
            model = self.model(())
            if model is None:
                raise NotFound(f"the model in {self.layers[0].root} is gone")
            return Target(model, inner=parts)
        for depth in range(1, min(len(parts), 2) + 1):
            name, _, selector = parts[depth - 1].partition("@")
            model = self.model((*parts[: depth - 1], name))
            if model is not None:
                return Target(model, selector, parts[depth:])
            if selector:
                break
        if len(parts) <= 2 and self._is_folder(parts):
            return Target(None)
        raise NotFound(f"there is no model {join(parts)}{self._suggest(parts)}")

    def model(self, parts: Parts) -> Model | None:
        """The model of this name, its versions merged over the layers, or None."""
        versions: dict[str, Version] = {}
        refs: Refs | None = None
        problem: BadModel | None = None
        for layer in self.layers:
            folder = layer.root.joinpath(*parts)
            writable = layer.writable and not self.single and not folder.is_symlink()
            for version in _versions(folder, writable):
                versions.setdefault(version.name, version)
            if refs is None and (folder / REFS).exists():
                try:
                    refs = read_refs(folder)
                except BadModel as error:
                    refs, problem = Refs(), error
        if not versions:
            return None
        ordered = sorted(versions.values(), key=lambda version: (version.order, version.writable, version.name))
        return Model(parts, {version.name: version for version in ordered}, refs or Refs(), problem)

    def children(self, parts: Parts) -> Iterator[Parts]:
        """Models and folders directly below a folder of models, each once, in no order."""
        seen: set[str] = set()
        for layer in self.layers:
            folder = layer.root.joinpath(*parts)
            for entry in folder.iterdir() if folder.is_dir() else ():
                if entry.name not in seen and _shown(entry):
                    seen.add(entry.name)
                    yield (*parts, entry.name)

    def models(self, below: Parts = ()) -> Iterator[Model]:
        """Every model, or every one below a folder of models."""
        if self.single:
            found = self.model(())
            yield from () if found is None else (found,)
            return
        for child in sorted(self.children(below)):
            found = self.model(child)
            if found is not None:
                yield found
            elif not below:
                yield from self.models(child)

    def _is_folder(self, parts: Parts) -> bool:
        folders = [layer.root.joinpath(*parts) for layer in self.layers]
        return not parts or any(folder.is_dir() and _shown(folder) for folder in folders)

    def _suggest(self, parts: Parts) -> str:
        folder = parts[:1] if len(parts) == 2 and self._is_folder(parts[:1]) else ()
        known = [join(child).lstrip("/") for child in self.children(folder)]
        close = get_close_matches(join(parts).lstrip("/"), known, n=1)
        if close:
            return f"; did you mean {close[0]}?"
        return f"; there is {', '.join(sorted(known)[:8])}" if known else "; there are no models here yet"


def read_refs(folder: Path) -> Refs:
    """Aliases and pin of a model's folder; none of them when there is no file. Raises BadModel."""
    path = folder / REFS
    if not path.exists():
        return Refs()
    found = read_object(path, REFS)
    aliases = found.get("aliases", {})
    if not isinstance(aliases, dict) or not all(isinstance(version, str) for version in aliases.values()):
        raise BadModel(f"{REFS}: aliases is not a map from names to versions", file=REFS, why="damaged")
    tags = found.get("tags", {})
    if not isinstance(tags, dict) or not all(_are_texts(listed) for listed in tags.values()):
        raise BadModel(f"{REFS}: tags is not a map from versions to lists of texts", file=REFS, why="damaged")
    last = found.get("last", 0)
    pinned, newest = (str(found.get(key, "")) for key in ("pinned", "newest"))
    kept = {version: tuple(listed) for version, listed in tags.items()}
    return Refs(aliases, pinned, newest, last if isinstance(last, int) else 0, kept)


def write_refs(folder: Path, refs: Refs) -> None:
    """Replace a model's refs; to be called with the lock of the tree held. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "aliases": dict(refs.aliases), "tags": {version: [*listed] for version, listed in refs.tags.items() if listed},
        "pinned": refs.pinned, "newest": refs.newest, "last": refs.last,
    }  # fmt: skip
    replace_file(folder / REFS, json.dumps(content, indent=2).encode())


def next_order(model: Model | None) -> int:
    """The order, and by default the name, of the next version: above all that were ever given."""
    if model is None:
        return 1
    numbers = [int(name) for name in model.versions if _is_number(name)]
    return 1 + max([model.refs.last, *numbers, *(version.order for version in model.versions.values())])


def without_version(model: Model, name: str) -> Refs:
    """The refs to keep when a version is removed: its number is not given again, and a pin on another one stays."""
    left = [other for other in model.versions if other != name]
    pinned = model.current if model.current not in (name, model.newest) else ""
    tags = {other: listed for other, listed in model.refs.tags.items() if other != name}
    return replace(model.refs, tags=tags, last=next_order(model) - 1, pinned=pinned, newest=left[-1] if pinned else "")


def _are_texts(listed: object) -> bool:
    return isinstance(listed, list) and all(isinstance(item, str) for item in listed)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _versions(folder: Path, writable: bool) -> Iterator[Version]:
    if any((folder / marker).is_file() for marker in MARKERS):
        manifest = _manifest(folder)
        name = manifest.get("version")
        known = isinstance(name, str) and NAME.fullmatch(name)
        yield Version(str(name) if known else PLAIN, folder, True, writable)
    kept = folder / VERSIONS
    for entry in kept.iterdir() if kept.is_dir() else ():
        if NAME.fullmatch(entry.name) and (entry / MANIFEST).is_file() and not entry.is_symlink():
            manifest = _manifest(entry)
            order, previous = manifest.get("order"), manifest.get("previous")
            if not isinstance(order, int):
                order = int(entry.name) if _is_number(entry.name) else 0
            yield Version(entry.name, entry, False, writable, order, previous if isinstance(previous, str) else "")


def _manifest(folder: Path) -> Mapping[str, Any]:
    try:
        return read_object(folder / MANIFEST, MANIFEST)
    except (BadModel, OSError):
        return {}  # damaged or absent: what uses the version says so, its place in the order does not depend on it


def _is_model(folder: Path) -> bool:
    return next(_versions(folder, False), None) is not None


def _shown(folder: Path) -> bool:
    """Whether a folder is listed: not what an interrupted commit left, nor names that no path can spell."""
    name = folder.name
    if name.startswith(".") or "@" in name or not is_text(name) or not folder.is_dir():
        return False
    try:
        return _is_model(folder) or any(entry.name != VERSIONS for entry in folder.iterdir())
    except PermissionError:
        return True
