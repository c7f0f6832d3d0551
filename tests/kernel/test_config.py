"""The configuration: where each value comes from, and what mistakes say."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from llmos.kernel.config import KernelConfig, load
from llmos.kernel.restart import RestartRules
from llmos.kernel.settings import ConfigError
from llmos.syscalls.types import ALL_RIGHTS, Kind


@pytest.fixture
def environ(folder: Path) -> dict[str, str]:
    return {"LLMOS_HOME": str(folder / "home"), "XDG_RUNTIME_DIR": str(folder / "run")}


def read(folder: Path, environ: dict[str, str], text: str, **overrides: Any) -> KernelConfig:
    (folder / "c.toml").write_text(text)
    return load({"config": folder / "c.toml", **overrides}, environ)


def test_without_a_file_everything_has_a_default(folder: Path, environ: dict[str, str]) -> None:
    config = load(None, environ)
    assert config.file is None and config.uid == os.getuid() and not config.listen.shared
    assert config.paths.home == folder / "home" and config.paths.models == folder / "home" / "models"
    assert config.paths.runtime == folder / "run" / "llmos"
    assert config.paths.socket == folder / "run" / "llmos" / "kernel.sock"
    assert config.paths.buffers.parent == Path("/dev/shm") and f"llmos-{os.getuid()}-" in config.paths.buffers.name
    assert config.drivers.load is None and config.drivers.of("cpu0").threads is None
    assert config.gateway.http == "" and config.gateway.config == {}
    assert config.drivers.of("cpu0").rules == RestartRules()
    assert config.journal.path == folder / "home" / "journal.db" and config.journal.level == "info"
    own = config.policy(os.getuid())
    assert own is not None and own.rights(Kind.SYSTEM) == ALL_RIGHTS and config.policy(os.getuid() + 1) is None


def test_two_kernels_have_two_buffer_folders(folder: Path, environ: dict[str, str]) -> None:
    one, two = (load({"paths.runtime": folder / name}, environ) for name in ("a", "b"))
    assert one.paths.buffers != two.paths.buffers
    assert load({"paths.runtime": folder / "a"}, environ).paths.buffers == one.paths.buffers


def test_a_whole_file(folder: Path, environ: dict[str, str]) -> None:
    config = read(
        folder,
        environ,
        """
        [listen]
        shared = true
        [limits]
        sessions = 5
        drain_s = 1.5
        [drivers]
        load = ["null0", "cpu0"]
        [drivers.null0]
        threads = 2
        restarts = 9
        restart_period_s = 60
        config = {slow_ms = 5, crash_on = "submit"}
        [policy.default.handles]
        system = ["read"]
        [journal]
        ring = 50
        level = "debug"
        path = "none"
        [gateway]
        http = "127.0.0.1:7411"
        config = {keep_alive = 60}
        """,
    )
    assert config.gateway.http == "127.0.0.1:7411" and config.gateway.config == {"keep_alive": 60}
    assert config.file == folder / "c.toml" and config.listen.shared
    assert (config.limits.sessions, config.limits.drain_s, config.limits.handles) == (5, 1.5, 10_000)
    assert config.drivers.load == ["null0", "cpu0"] and config.drivers.of("null0").threads == 2
    assert config.drivers.of("null0").config == {"slow_ms": 5, "crash_on": "submit"}
    assert config.drivers.of("null0").rules == RestartRules(restarts=9, period_s=60)
    assert (config.journal.ring, config.journal.level, config.journal.path) == (50, "debug", None)
    assert config.policy(os.getuid() + 1) is not None


def test_flag_over_environment_over_file_over_default(folder: Path, environ: dict[str, str]) -> None:
    text = f"[paths]\nhome = '{folder}/in-file'\nruntime = '{folder}/r-file'\n[drivers]\nload = ['file']\n"
    only_file = read(folder, {}, text)
    assert (only_file.paths.home, only_file.paths.runtime) == (folder / "in-file", folder / "r-file")
    assert only_file.drivers.load == ["file"]
    env = {**environ, "LLMOS_RUNTIME_DIR": f"{folder}/r-env", "LLMOS_LOAD_DRIVERS": "env, two,"}
    with_env = read(folder, env, text)
    assert (with_env.paths.home, with_env.paths.runtime) == (folder / "home", folder / "r-env")
    assert with_env.drivers.load == ["env", "two"]
    flags = {"paths.home": folder / "h-flag", "paths.runtime": f"{folder}/r-flag", "drivers.load": ["flag"]}
    with_flags = read(folder, env, text, **flags)
    assert (with_flags.paths.home, with_flags.paths.runtime) == (folder / "h-flag", folder / "r-flag")
    assert with_flags.drivers.load == ["flag"]
    assert read(folder, env, text, **dict.fromkeys(flags)) == with_env


def test_the_file_is_found_in_the_home_folder_or_named(folder: Path, environ: dict[str, str]) -> None:
    (folder / "home").mkdir()
    (folder / "home" / "config.toml").write_text("[limits]\nsessions = 3\n")
    assert load({}, environ).limits.sessions == 3
    (folder / "other.toml").write_text("[limits]\nsessions = 4\n")
    named = {**environ, "LLMOS_CONFIG": str(folder / "other.toml")}
    assert load({}, named).limits.sessions == 4
    assert load({"config": folder / "home" / "config.toml"}, named).limits.sessions == 3
    (folder / "flag").mkdir()
    (folder / "flag" / "config.toml").write_text("[limits]\nsessions = 6\n")
    assert load({"paths.home": folder / "flag"}, environ).limits.sessions == 6


def test_relative_and_home_paths_become_absolute(
    folder: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    config = load({"paths.home": "x", "paths.runtime": "~/y", "paths.buffers": "z", "journal.path": "~/j.db"}, environ)
    assert (config.paths.home, config.paths.runtime) == (folder / "x", folder / "y")
    assert (config.paths.buffers, config.journal.path) == (folder / "z", folder / "j.db")
    assert load({}, {"XDG_RUNTIME_DIR": "/run"}).paths.home == folder / ".llmos"


def test_the_runtime_folder_without_a_session_manager() -> None:
    config = load({}, {"LLMOS_HOME": "/nowhere"}, uid=4711)
    assert config.paths.runtime == Path(tempfile.gettempdir()) / "llmos-4711" and config.uid == 4711


def test_buffers_lie_in_the_runtime_folder_where_there_is_no_memory_file_system(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_dir", lambda self: False)
    config = load({}, environ)
    assert config.paths.buffers == config.paths.runtime / "buffers"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[limts]", "unknown key limts; did you mean 'limits'?"),
        ("limits = 5", "limits: expected a table, got 5"),
        ("[limits]\nsesions = 5", "unknown key limits.sesions; did you mean 'sessions'?"),
        ("[limits]\nsessions = -5", "limits.sessions is -5; expected int >= 0"),
        ("[limits]\nsessions = 'many'", "limits.sessions is 'many'; expected int, got str"),
        ("[listen]\nshared = 1", "listen.shared is 1; expected bool, got int"),
        ("[paths]\nruntime = 5", "paths.runtime is 5; expected str, got int"),
        ("[drivers]\nload = 'cpu0'", "drivers.load is 'cpu0'; expected array | null, got str"),
        ("[drivers]\nlaod = ['cpu0']", "unknown key drivers.laod; drivers.load lists names"),
        ("[drivers.cpu0]\nthread = 1", "unknown key drivers.cpu0.thread; did you mean 'threads'?"),
        ("[drivers.cpu0]\nthreads = 0", "drivers.cpu0.threads is 0; expected int >= 1"),
        ("[journal]\nlevel = 'loud'", "journal.level is 'loud'"),
        ("[policy.uid.bob]", "policy.uid.bob"),
        ("[policy", "is not TOML: "),
        ("[gateway]\nhttp = 'here'", "gateway.http is 'here'; expected HOST:PORT, such as 127.0.0.1:7411"),
        ("[gateway]\nport = 1", "unknown key gateway.port"),
    ],
)
def test_mistakes_are_named(folder: Path, environ: dict[str, str], text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(folder, environ, text)
    assert error in str(raised.value)


def test_a_misspelt_override_is_answered_with_what_is_near(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'limit.drain_s'.*: did you mean 'limits'\?"):
        load({"limit.drain_s": 5}, environ)


@pytest.mark.parametrize("key", ["speed", "speed.limit", "limits"])
def test_an_override_must_name_a_setting(environ: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown setting '{key}'; write it as section.setting"):
        load({key: 5}, environ)


def test_an_override_is_checked_like_the_file(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"limits\.drain_s is -1; expected float >= 0"):
        load({"limits.drain_s": -1}, environ)


def test_a_named_file_must_exist_and_be_text(folder: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load({"config": folder / "none.toml"}, environ)
    (folder / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load({"config": folder / "binary"}, environ)
    with pytest.raises(ConfigError, match="cannot be read"):
        load({"config": folder}, environ)


def test_a_socket_path_that_is_too_long_is_said_at_once(environ: dict[str, str]) -> None:
    longest = "/" + "a" * (107 - len("/kernel.sock") - 1)
    assert len(os.fsencode(load({"paths.runtime": longest}, environ).paths.socket)) == 107
    with pytest.raises(ConfigError, match="has 108 bytes, the system allows 107; choose a shorter folder"):
        load({"paths.runtime": longest + "a"}, environ)
    with pytest.raises(ConfigError, match="has 108 bytes"):
        load({"paths.runtime": longest[:-1] + "é"}, environ)


def test_a_home_nobody_has(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="'~nobody-has-this-name/x' names no folder"):
        load({"paths.runtime": "~nobody-has-this-name/x"}, environ)


def test_a_file_of_a_driver_named_in_no_table(folder: Path, environ: dict[str, str]) -> None:
    config = read(folder, environ, "[drivers.other]\nthreads = 3")
    assert config.drivers.load is None and config.drivers.of("other").threads == 3
