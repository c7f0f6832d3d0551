"""A killed job: a process that ends itself before the Nth change to the disk, for each N until one gets through."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from llmos.drivers.filesystems.models.plugin import open_source

MakeModel = Callable[..., Path]
KILLED = """
import os, shutil, signal, sys
from itertools import count
from llmos.drivers.filesystems.models.plugin import open_source
stores, cache, elsewhere = sys.argv[1:]

def bring(root, last):
    os.mkdir(root)
    here = open_source(elsewhere, {"cache": cache})
    token, source = here.locate("/mine")
    system = open_source(root, {"cache": cache})
    changes = count(1)
    def watch(event, args):
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link")) and next(changes) == last:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    system.bring("/org/new", [source], {"options": {}}, lambda *_said: None)

for last in count(1):
    child = os.fork()
    if child == 0:
        bring(os.path.join(stores, f"{last:03}"), last)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert status == signal.SIGKILL, status
"""


@pytest.mark.slow
def test_killed_before_any_change_there_is_nothing_or_a_whole_version(tmp_path: Path, make_model: MakeModel) -> None:
    mine = make_model(tmp_path / "elsewhere/mine")
    (tmp_path / "stores").mkdir()
    cache = tmp_path / "cache"
    where = [str(tmp_path / "stores"), str(cache), str(tmp_path / "elsewhere")]
    subprocess.run([sys.executable, "-c", KILLED, *where], check=True)
    stores = sorted((tmp_path / "stores").iterdir())
    assert len(stores) > 15
    whole = 0
    for store in stores:
        system = open_source(str(store), {"cache": str(cache)})
        seen = [info for info in system.list("/") if info.path == "/org"] and system.list("/org")
        if seen:
            whole += 1
            token, source = system.locate("/org/new")
            assert {file.name: file.path.read_bytes() for file in source.files} == {
                path.name: path.read_bytes() for path in mine.iterdir()
            }
            system.release(token)
        else:
            answer = system.bring("/org/new", [_located(tmp_path, cache)], {"options": {}}, lambda *_said: None)
            assert answer["version"] == "1" and not answer["unchanged"]
        manifest = json.loads((store / "org/new/versions/1/manifest.json").read_bytes())
        assert len(manifest["files"]) == 3
        assert list((store / ".llmos/scratch").iterdir()) == []
        system.close()
    assert 0 < whole < len(stores)


def _located(tmp_path: Path, cache: Path) -> object:
    system = open_source(str(tmp_path / "elsewhere"), {"cache": str(cache)})
    token, source = system.locate("/mine")
    system.release(token)
    system.close()
    return source
