"""Models of the Hugging Face hub: `hf:ORG/NAME[@REVISION]`.

Names, addresses, login and offline mode are those of `huggingface_hub`. The bytes are fetched by `fetch`, since what
that library has fetched of a file when it is interrupted is lost. Only formats that run no code are taken. In offline
mode the cache of that library is what there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from llmos.drivers.contract import SourceFile
from llmos.syscalls.errors import BadArgument, Unavailable

from ..derive import INDEX, WEIGHTS
from ..scan import MANIFEST, PICKLES, bad
from .fetch import Remote, fetch, move
from .folder import check_name, copy_file
from .job import Filled, Meter, Wanted
from .partial import finished, partial
from .web import get_json

START = "hf:"
ENDINGS = frozenset({".safetensors", ".json", ".txt", ".model", ".tiktoken", ".jinja", ".md", ".spm", ".vocab"})
NAMES = ("LICENSE*", "LICENCE*", "NOTICE*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9][\w./+-]{0,254}")


def fill(wanted: Wanted, folder: Path) -> Filled:
    """Fetch a model of the hub.

    Raises:
        BadArgument: not a name or revision of the hub.
        NotFound, Denied: there is no such model or revision, or it needs a login.
        BadModel: it has no safetensors, or a file is damaged.
        Unavailable: offline mode is on and the cache has no such model, or the hub cannot be reached.
    """
    from huggingface_hub import constants

    repository, revision = parse(str(wanted.source), str(wanted.options.get("revision") or ""))
    if constants.HF_HUB_OFFLINE:
        return _from_cache(wanted, repository, revision, folder)
    endpoint, headers = _login()
    address = f"{endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    info = get_json(address, headers)
    commit = str(info.get("sha") or "")
    if not re.fullmatch(r"[0-9a-f]{6,64}", commit):
        raise Unavailable(f"{address} names no commit; is it a hub?")
    files = [
        _remote(each, f"{endpoint}/{repository}/resolve/{commit}", headers)
        for each in choose(info.get("siblings") or [], _patterns(wanted))
    ]
    origin = f"{START}{repository}@{commit}"
    wanted.ready(origin)
    with partial(wanted.root, origin, wanted.progress) as place:
        wanted.ready(origin)
        got = fetch(files, place, wanted.progress)
        move(files, place, folder)
        finished(place)
    return Filled({"origin": origin, **_card(info)}, got.known, got.bytes)


def parse(source: str, revision: str) -> tuple[str, str]:
    """Repository and revision of `hf:ORG/NAME[@REVISION]`; `main` where none is named. Raises BadArgument."""
    repository, _, named = source.removeprefix(START).partition("@")
    if named and revision and named != revision:
        text = f"{source} names the revision {named}, the options {revision}; give one of them"
        raise BadArgument(text, name="revision", got=revision, want=named)
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise BadArgument(f"{source!r} names no model of the hub", name="source", got=source, want="hf:ORG/NAME")
    chosen = named or revision or "main"
    if not _REVISION.fullmatch(chosen) or ".." in chosen:
        raise BadArgument(f"{chosen!r} is no revision", name="revision", got=chosen, want="a branch, tag or commit")
    return repository, chosen


def choose(siblings: Sequence[Any], include: Sequence[str]) -> list[Mapping[str, Any]]:
    """The files of a repository that are fetched. Raises BadModel when there are no weights among them."""
    files = [each for each in siblings if isinstance(each, Mapping) and isinstance(each.get("rfilename"), str)]
    names = [check_name(each["rfilename"]) for each in files]
    whole = [name for name in (INDEX, "model.safetensors") if name in names]
    taken = [each for each in files if _taken(each["rfilename"], include, bool(whole))]
    if not any(each["rfilename"].endswith(WEIGHTS) for each in taken):
        pickles = [name for name in names if PurePosixPath(name).suffix in PICKLES]
        if pickles:
            raise bad(pickles[0], "the only weights are a pickle, which could run any code; look for a safetensors one")
        raise bad("model.safetensors", "is missing: the repository has no safetensors weights")
    return taken


def _taken(name: str, include: Sequence[str], whole: bool) -> bool:
    path = PurePosixPath(name)
    if name == MANIFEST or any(part.startswith(".") for part in path.parts):
        return False
    if path.suffix not in ENDINGS and not any(fnmatch(path.name, pattern) for pattern in NAMES):
        return False
    if include:
        return any(fnmatch(name, pattern) for pattern in include)
    if path.suffix != WEIGHTS or not whole:
        return True
    return len(path.parts) == 1 and path.name.startswith("model")  # not the same weights in the form of another library


def _remote(sibling: Mapping[str, Any], base: str, headers: Mapping[str, str]) -> Remote:
    name, size, large = sibling["rfilename"], sibling.get("size"), sibling.get("lfs")
    if isinstance(large, Mapping):
        size = large.get("size", size)
    if type(size) is not int or size < 0:
        raise Unavailable(f"the hub does not say how large {name} is")
    digest = large.get("sha256") if isinstance(large, Mapping) else None
    blob = None if digest else sibling.get("blobId")
    return Remote(name, f"{base}/{quote(name)}", size, str(digest or ""), str(blob or ""), headers)


def _from_cache(wanted: Wanted, repository: str, revision: str, folder: Path) -> Filled:
    """Copy what the library has fetched before. Raises Unavailable when that has no weights, or is nothing."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    why = f"{START}{repository} is not fetched: the hub is in offline mode (HF_HUB_OFFLINE) and its cache"
    advice = "Unset it where the kernel runs, or pull a folder of this machine"
    try:
        place = Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        raise Unavailable(f"{why}, {constants.HF_HUB_CACHE}, has nothing of {revision}. {advice}") from None
    names = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    if not any(name.endswith(WEIGHTS) for name in names):
        raise Unavailable(f"{why} has no safetensors of it, but {', '.join(names)[:200] or 'nothing'}. {advice}")
    origin = f"{START}{repository}@{place.name}"
    wanted.ready(origin)
    taken = [each["rfilename"] for each in choose([{"rfilename": name} for name in names], _patterns(wanted))]
    files = [SourceFile(name, place / name, (place / name).stat().st_size) for name in taken]
    meter = Meter(wanted.progress, sum(file.bytes for file in files), "copy")
    return Filled({"origin": origin}, {file.name: copy_file(file, folder, meter) for file in files})


def _patterns(wanted: Wanted) -> list[str]:
    return wanted.options.get("include") or []


def _login() -> tuple[str, dict[str, str]]:
    """Address of the hub and the headers of whoever is logged in."""
    from huggingface_hub import constants, get_token

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    login = {"Authorization": f"Bearer {token}"} if token else {}
    return constants.ENDPOINT.rstrip("/"), {"User-Agent": "llmos", **login}


def _card(info: Mapping[str, Any]) -> dict[str, Any]:
    card = info.get("cardData")
    licence = card.get("license") if isinstance(card, Mapping) else None
    return {"licence": licence} if isinstance(licence, str) else {}
