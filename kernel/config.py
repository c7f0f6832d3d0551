"""The kernel's configuration: one TOML file, the environment, and overrides; read and checked once.

Flag over environment over file over default. Whatever is wrong is one `ConfigError` that names the file, the key and
the value. Who may do what is policy, in `policy.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from llmos.syscalls.describe import suggest

from .arbiter.policies import PolicyName
from .alert_rules import AlertRule, parse
from .policy import Policies, Policy
from .restart import RestartRules
from .settings import ConfigError, Section, convert

TABLES = ("listen", "paths", "limits", "memory", "drivers", "policy", "journal", "gateway")
SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket on Linux (unix(7): 108 bytes with the closing NUL)."""

_ADDRESS = re.compile(r"unix:.+|[^\s/]+:\d{1,5}")

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Part = Annotated[float, Meta(ge=0, le=0.5)]


class Listen(Section):
    """Who may connect."""

    shared: bool = False
    """Let other users connect, as far as policy allows."""


class Paths(Struct, frozen=True, kw_only=True):
    """Where things are, with every default filled in."""

    home: Path
    """Models, journal and configuration; `~/.llmos`."""
    runtime: Path
    """Sockets, lock and buffers; `$XDG_RUNTIME_DIR/llmos`, else `llmos-<uid>` in the system's temporary folder."""
    buffers: Path
    """Shared buffers: on the memory file system where there is one, else below the runtime folder."""

    @property
    def socket(self) -> Path:
        """Where clients connect."""
        return self.runtime / "kernel.sock"

    @property
    def models(self) -> Path:
        """The folder of the models."""
        return self.home / "models"


class SystemLimits(Section):
    """What all sessions together may use, and how long the kernel waits; 0 means no limit."""

    sessions: Count = 1024
    handles: Count = 10_000
    """Open handles of one session."""
    queued_requests: Count = 10_000
    buffer_bytes: Count = 8 << 30
    """Shared-memory buffers of all sessions."""
    stalled_reader_s: Seconds = 60
    """A stream whose reader takes nothing for so long ends with TimedOut."""
    drain_s: Seconds = 20
    """How long running requests may take to end when the kernel stops."""
    resume_s: Seconds = 10
    """How long a session without connection can be resumed."""
    aging_s: Seconds = 30
    """A request that waited longer is lifted over requests of higher rank from time to time."""
    queue_s: Seconds = 0
    """A request that would wait longer is refused when it arrives; 0 means no limit but its own deadline."""
    batch_share: Part = 0.1
    """The part of a device's time that batch work keeps while interactive work wants all of it."""
    background_share: Part = 0.05
    """The same of background work."""
    tune_slice_s: Seconds = 0.02
    """How long a tuning job computes before it looks whether a request waits."""


class MemoryConfig(Section):
    """Which models stay in memory."""

    policy: PolicyName = "value"
    """Who leaves a device to make room."""
    models: Count = 0
    """How many may be awake on a device by the policy `count`; 0 means no limit."""
    reserve_bytes: Count | None = None
    """What of the machine's memory is given to nobody; by default a twentieth, at most 512 MiB."""


class DriverConfig(Section):
    """One driver's process."""

    threads: Annotated[int, Meta(ge=1)] | None = None
    """Threads for compute; by default drivers share the machine's cores."""
    memory_bytes: Count = 0
    """The most memory its models may take; 0 leaves it to the driver."""
    start_s: Annotated[float, Meta(gt=0)] = 120
    """How long it may take to become ready."""
    restarts: Count = 5
    """Restarts allowed within `restart_period_s`; one more and the driver is failed."""
    restart_period_s: Annotated[float, Meta(gt=0)] = 120
    config: dict[str, Any] = field(default_factory=dict)
    """Handed to the driver as it is."""

    @property
    def rules(self) -> RestartRules:
        """The constants of its restart policy."""
        return RestartRules(restarts=self.restarts, period_s=self.restart_period_s)


class Drivers(Struct, frozen=True, kw_only=True):
    """Which drivers start, and how."""

    load: list[str] | None
    """Their names; None starts all that are announced."""
    settings: dict[str, DriverConfig]

    def of(self, name: str) -> DriverConfig:
        """The settings of one driver, all defaults when the file does not name it."""
        return self.settings.get(name, DriverConfig())


class JournalConfig(Struct, frozen=True, kw_only=True):
    """What is kept of what happened."""

    ring: int
    """Records in memory."""
    path: Path | None
    """The durable journal, `journal.db` in the home folder by default; None (`none` in the file) for memory only."""
    max_bytes: int
    """About how large the durable journal may become; the oldest records leave first."""
    level: str
    """The lowest level shown on stderr."""


class GatewayConfig(Section):
    """The HTTP gateway, a program that the kernel starts."""

    http: str = ""
    """Where it listens, `HOST:PORT` or `unix:PATH`; empty for no gateway."""
    config: dict[str, Any] = field(default_factory=dict)
    """Handed to the gateway as it is."""


class KernelConfig(Struct, frozen=True, kw_only=True):
    """Everything the kernel was told, with every default filled in."""

    uid: int
    file: Path | None
    """The file that was read, if any."""
    listen: Listen
    paths: Paths
    limits: SystemLimits
    memory: MemoryConfig
    drivers: Drivers
    policies: Policies
    journal: JournalConfig
    gateway: GatewayConfig
    alerts: tuple[AlertRule, ...] = ()

    def policy(self, uid: int, tenant: str = "") -> Policy | None:
        """What a session of this user may do; None when the configuration does not let the user in."""
        return self.policies.of(uid, tenant, self.uid, self.paths.home)


class _Paths(Section):
    home: str = ""
    runtime: str = ""
    buffers: str = ""


class _Load(Section):
    load: list[str] | None = None


class _Journal(Section):
    ring: Annotated[int, Meta(ge=16)] = 10_000
    path: str = ""
    max_bytes: Annotated[int, Meta(ge=1 << 16)] = 64 << 20
    level: Literal["debug", "info", "warning", "error"] = "info"


def load(
    overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, uid: int | None = None
) -> KernelConfig:
    """Read the configuration.

    `overrides` are dotted keys such as `paths.home`, `drivers.load` or `limits.drain_s`; `config` names the file, which
    must then exist. Only values that are not None count. Environment: LLMOS_CONFIG, LLMOS_HOME, LLMOS_RUNTIME_DIR,
    LLMOS_LOAD_DRIVERS; LLMOS_SHM_DIR is the memory file system for buffers, /dev/shm by default.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong.
    """
    environ = os.environ if environ is None else environ
    uid = os.getuid() if uid is None else uid
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    named = given.pop("config", None) or environ.get("LLMOS_CONFIG")
    path = _folder(named) if named else _home(given, environ) / "config.toml"
    data = _read(path, required=bool(named))
    alerts = parse((data or {}).pop("alerts", []))
    tables = _tables(data or {}, given, environ)
    listed = {"load": tables["drivers"].pop("load")} if "load" in tables["drivers"] else {}
    paths = _paths(convert(tables["paths"], _Paths, "paths"), environ, uid)
    return KernelConfig(
        uid=uid,
        file=None if data is None else path,
        listen=convert(tables["listen"], Listen, "listen"),
        paths=paths,
        limits=convert(tables["limits"], SystemLimits, "limits"),
        memory=convert(tables["memory"], MemoryConfig, "memory"),
        drivers=Drivers(
            load=convert(listed, _Load, "drivers").load,
            settings={name: _driver(name, table) for name, table in tables["drivers"].items()},
        ),
        policies=Policies.parse(tables["policy"]),
        journal=_journal(convert(tables["journal"], _Journal, "journal"), paths.home),
        gateway=_gateway(convert(tables["gateway"], GatewayConfig, "gateway")),
        alerts=alerts,
    )


def _gateway(table: GatewayConfig) -> GatewayConfig:
    if table.http and not _ADDRESS.fullmatch(table.http):
        raise ConfigError(f"gateway.http is {table.http!r}; expected HOST:PORT, such as 127.0.0.1:7411, or unix:PATH")
    return table


def _driver(name: str, table: object) -> DriverConfig:
    if not isinstance(table, dict):
        raise ConfigError(
            f"unknown key drivers.{name}; drivers.load lists names, and [drivers.NAME] is a driver's table"
        )
    return convert(table, DriverConfig, f"drivers.{name}")


def _folder(text: str | Path) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"{str(text)!r} names no folder: {error}; set HOME or give a path from the root") from None


def _home(given: Mapping[str, Any], environ: Mapping[str, str]) -> Path:
    """The home folder as far as it is known before the file is read."""
    return _folder(given.get("paths.home") or environ.get("LLMOS_HOME") or "~/.llmos")


def _paths(named: _Paths, environ: Mapping[str, str], uid: int) -> Paths:
    if named.runtime:
        runtime = _folder(named.runtime)
    elif base := environ.get("XDG_RUNTIME_DIR"):
        runtime = Path(base) / "llmos"
    else:
        import tempfile  # costs start-up time and is not always needed

        runtime = Path(tempfile.gettempdir()) / f"llmos-{uid}"
    shared_memory = _folder(environ.get("LLMOS_SHM_DIR") or "/dev/shm")
    if named.buffers:
        buffers = _folder(named.buffers)
    elif shared_memory.is_dir():
        buffers = shared_memory / f"llmos-{uid}-{hashlib.sha256(os.fsencode(runtime)).hexdigest()[:12]}"
    else:
        buffers = runtime / "buffers"
    paths = Paths(home=_folder(named.home or "~/.llmos"), runtime=runtime, buffers=buffers)
    _check_socket(paths.socket)
    return paths


def _journal(table: _Journal, home: Path) -> JournalConfig:
    path = None if table.path == "none" else _folder(table.path or home / "journal.db")
    return JournalConfig(ring=table.ring, path=path, max_bytes=table.max_bytes, level=table.level)


def _read(path: Path, required: bool) -> dict[str, Any] | None:
    """The file as a map; None when it does not exist and need not."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        if required:
            raise ConfigError(f"the configuration file {path} does not exist") from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from error
    import tomllib  # only when there is a file: it costs start-up time

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _tables(data: Mapping[str, Any], given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """All tables of the file, with environment and overrides laid over them."""
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    for name, table in data.items():
        if name not in tables:
            raise ConfigError(f"unknown key {name}; {suggest(name, (*TABLES, 'alerts'))}")
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: expected a table, got {table!r}")
        tables[name] = dict(table)
    layers: dict[str, Any] = {}
    if drivers := environ.get("LLMOS_LOAD_DRIVERS"):
        layers["drivers.load"] = _names(drivers)
    for variable, setting in (("LLMOS_HOME", "paths.home"), ("LLMOS_RUNTIME_DIR", "paths.runtime")):
        if environ.get(variable):
            layers[setting] = environ[variable]
    for key, value in {**layers, **given}.items():
        section, _, name = key.partition(".")
        if section not in tables or not name:
            raise ConfigError(f"unknown setting {key!r}; write it as section.setting: {suggest(section, TABLES)}")
        tables[section][name] = str(value) if isinstance(value, Path) else value
    return tables


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _check_socket(path: Path) -> None:
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the socket path {path} has {size} bytes, the system allows {SOCKET_PATH_BYTES}; choose a shorter folder "
            "with paths.runtime, --runtime or LLMOS_RUNTIME_DIR"
        )
