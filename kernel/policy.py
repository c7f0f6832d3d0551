"""Who may do what: decided once, when a session opens, from the user's uid and the tenant it names.

The kernel's own user has everything unless the file narrows it; anybody else has only what the file says. A tenant is a
part of its user's share and can only have less.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import ALL_RIGHTS, Kind, Limits, Right, Rights

from .namespace import normalize
from .settings import ConfigError, Section, convert

KERNEL_FILESYSTEM = "kernel"
"""The file system of /dev, /proc and /sys, served by the kernel from its own tables."""

OverQuota = Literal["refuse", "wait"]

_GIVEN = (Kind.SYSTEM, Kind.DEVICE, Kind.DRIVER)
"""Kinds a session holds from the start; without a word in the policy it holds none of them."""


class MountRule(Section):
    """One mounted file system."""

    filesystem: str
    source: str = ""
    mode: Literal["ro", "rw"] = "ro"


class Rule(Section):
    """One table of the policy. What it does not name is taken from the table above it."""

    handles: dict[str, list[Right] | Literal["all"]] | None = None
    """Rights by kind, or by `kind:name` for one object, such as `device:cpu0`."""
    mounts: dict[str, MountRule | Literal["ro", "rw"]] | None = None
    """By path; only a mode for one of the standard mounts."""
    limits: Limits = Limits()
    over_quota: OverQuota | None = None
    """What happens to a request over quota: it is refused, or it waits."""


class UserRule(Rule):
    """The table of a uid, with its tenants."""

    tenant: dict[str, Rule] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """What one session may do."""

    handles: Mapping[str, Rights]
    mounts: Mapping[str, MountRule]
    limits: Limits
    own: bool
    """Whether the session belongs to the kernel's own user."""
    over_quota: OverQuota = "refuse"

    def rights(self, kind: Kind, name: str = "") -> Rights:
        """The rights on what is given at the start (system, devices, drivers); the most it gets on anything else."""
        for key in (f"{kind}:{name}", kind.value):
            if key in self.handles:
                return self.handles[key]
        return frozenset() if kind in _GIVEN else ALL_RIGHTS


@dataclass(frozen=True)
class Policies:
    """The policies of all users: the table for everybody else, and those by uid."""

    default: UserRule | None = None
    users: Mapping[int, UserRule] = field(default_factory=dict)

    @classmethod
    def parse(cls, table: Mapping[str, object]) -> Policies:
        """Check the `[policy]` table of the file. Raises ConfigError."""
        for key in table:
            if key not in ("default", "uid"):
                raise ConfigError(f"unknown key policy.{key}; {suggest(key, ['default', 'uid'])}")
        users: dict[int, UserRule] = {}
        by_uid = table.get("uid", {})
        if not isinstance(by_uid, dict):
            raise ConfigError(f"policy.uid is {by_uid!r}; expected tables such as [policy.uid.1000]")
        for uid, inner in by_uid.items():
            if not uid.isascii() or not uid.isdigit():
                raise ConfigError(f"policy.uid.{uid}: {uid!r} is no uid; `id -u NAME` prints the number of a user")
            users[int(uid)] = _rule(inner, f"policy.uid.{uid}")
        return cls(_rule(table["default"], "policy.default") if "default" in table else None, users)

    def of(self, uid: int, tenant: str, own_uid: int, home: Path) -> Policy | None:
        """The policy of a session; None when the file does not let this user in."""
        rule = self.users.get(uid)
        standard = standard_mounts(home)
        own = uid == own_uid
        if own:
            policy = Policy({kind.value: ALL_RIGHTS for kind in Kind}, standard, Limits(), own=True)
        elif self.default is not None:
            rule = rule or UserRule(tenant=self.default.tenant)
            policy = _laid_over(Policy({}, {}, Limits(), own=False), self.default, standard)
        elif rule is not None:
            policy = Policy({}, {}, Limits(), own=False)
        else:
            return None
        if rule is not None:
            policy = _laid_over(policy, rule, standard)
            if tenant in rule.tenant:
                policy = _narrowed(policy, rule.tenant[tenant])
        return policy

    def tenant_weight(self, uid: int, tenant: str) -> int:
        """The weight of a tenant among those of its user; 0 when none is named."""
        rule = self.users.get(uid) or self.default
        named = rule.tenant.get(tenant) if rule is not None else None
        return named.limits.weight if named is not None else 0


def standard_mounts(home: Path) -> dict[str, MountRule]:
    """What everybody knows: /models from the home folder and the package, /home, and the kernel's own tables."""
    own = {f"/{name}": MountRule(filesystem=KERNEL_FILESYSTEM, source=name) for name in ("dev", "proc", "sys")}
    models = MountRule(filesystem="models", source=os.pathsep.join([str(home / "models"), "bundled"]), mode="rw")
    files = MountRule(filesystem="files", source=str(home / "files"), mode="rw")
    return {"/models": models, "/home": files, **own}


def _rule(table: object, where: str) -> UserRule:
    rule = convert(table, UserRule, where)
    _check(rule, where)
    for name, tenant in rule.tenant.items():
        _check(tenant, f"{where}.tenant.{name}")
    return rule


def _check(rule: Rule, where: str) -> None:
    kinds = [kind.value for kind in Kind]
    for key in rule.handles or ():
        kind = key.partition(":")[0]
        if kind not in kinds:
            raise ConfigError(f"{where}.handles.{key}: {kind!r} is no kind of object; {suggest(kind, kinds)}")
    standard = standard_mounts(Path("/"))
    for path, mount in (rule.mounts or {}).items():
        try:
            normal = normalize(path)
        except BadArgument as error:
            raise ConfigError(f"{where}.mounts: {error}") from None
        if normal != path:
            raise ConfigError(f"{where}.mounts: write {normal!r} instead of {path!r}")
        if isinstance(mount, str) and path not in standard:
            raise ConfigError(
                f"{where}.mounts.{path}: a mode alone is enough only for {', '.join(standard)}; "
                'name the file system: {filesystem = "...", source = "...", mode = "ro"}'
            )


def _laid_over(policy: Policy, rule: Rule, standard: Mapping[str, MountRule]) -> Policy:
    """What `rule` names replaces what `policy` has; a limit of 0 names nothing."""
    if rule.handles is not None:
        policy = replace(policy, handles=_rights(rule))
    if rule.mounts is not None:
        policy = replace(policy, mounts={path: _mount(path, mount, standard) for path, mount in rule.mounts.items()})
    limits = {
        name: getattr(rule.limits, name) or getattr(policy.limits, name) for name in rule.limits.__struct_fields__
    }
    return replace(policy, limits=Limits(**limits), over_quota=rule.over_quota or policy.over_quota)


def _narrowed(policy: Policy, rule: Rule) -> Policy:
    """What `rule` names bounds what `policy` has."""
    if rule.handles is not None:
        wanted = replace(policy, handles=_rights(rule))
        keys = {*policy.handles, *wanted.handles, *(kind.value for kind in Kind)}
        handles = {}
        for key in keys:
            kind, _, name = key.partition(":")
            handles[key] = policy.rights(Kind(kind), name) & wanted.rights(Kind(kind), name)
        policy = replace(policy, handles=handles)
    if rule.mounts is not None:
        mounts = {}
        for path, mount in rule.mounts.items():
            held = policy.mounts.get(path)
            if held is not None:
                mode = mount if isinstance(mount, str) else mount.mode
                mounts[path] = msgspec.structs.replace(held, mode="rw" if mode == held.mode == "rw" else "ro")
        policy = replace(policy, mounts=mounts)
    limits = narrower(policy.limits, rule.limits)
    return replace(policy, limits=limits, over_quota=rule.over_quota or policy.over_quota)


def narrower(one: Limits, other: Limits) -> Limits:
    """The lower of each pair of limits; 0 is no limit."""
    limits = {}
    for name in one.__struct_fields__:
        named = [limit for limit in (getattr(one, name), getattr(other, name)) if limit]
        limits[name] = min(named, default=0)
    return Limits(**limits)


def _rights(rule: Rule) -> dict[str, Rights]:
    handles = rule.handles or {}
    return {key: ALL_RIGHTS if rights == "all" else frozenset(rights) for key, rights in handles.items()}


def _mount(path: str, mount: MountRule | str, standard: Mapping[str, MountRule]) -> MountRule:
    if isinstance(mount, MountRule):
        return mount
    return msgspec.structs.replace(standard[path], mode=mount)
