"""Who may do what."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.policy import MountRule, Policies, Policy, Rule, UserRule, standard_mounts
from llmos.kernel.settings import ConfigError
from llmos.syscalls.types import ALL_RIGHTS, Kind, Limits, Right

HOME = Path("/srv/llmos")
OWN = 1000

TEXT = """
[default.handles]
system = ["read", "list"]
device = ["read", "create"]
"device:cuda0" = ["read"]
model = ["read", "run"]
[default.mounts]
"/models" = "ro"
[default.limits]
sessions = 4
tokens_per_minute = 1000

[uid.1001]
[uid.1001.limits]
sessions = 8
[uid.1001.mounts]
"/models" = "rw"
"/data" = {filesystem = "files", source = "/srv/data", mode = "rw"}
[uid.1001.tenant.web.handles]
system = ["read", "manage"]
model = "all"
[uid.1001.tenant.web.mounts]
"/models" = "ro"
"/data" = {filesystem = "other", source = "/etc", mode = "rw"}
"/elsewhere" = {filesystem = "files", source = "/", mode = "rw"}
[uid.1001.tenant.web.limits]
sessions = 100
tokens_per_minute = 10
handles = 7
"""


@pytest.fixture
def policies() -> Policies:
    return Policies.parse(tomllib.loads(TEXT))


def of(policies: Policies, uid: int, tenant: str = "") -> Policy:
    policy = policies.of(uid, tenant, OWN, HOME)
    assert policy is not None
    return policy


def test_the_kernels_own_user_has_everything(policies: Policies) -> None:
    for found in (policies, Policies()):
        policy = of(found, OWN)
        assert all(policy.rights(kind) == ALL_RIGHTS for kind in Kind)
        assert policy.mounts == standard_mounts(HOME) and policy.limits == Limits() and policy.own
    assert policy.mounts["/models"].mode == "rw" and str(HOME / "models") in policy.mounts["/models"].source
    assert policy.mounts["/proc"] == MountRule(filesystem="kernel", source="proc")


def test_nobody_else_is_let_in_without_a_word() -> None:
    assert Policies().of(1001, "", OWN, HOME) is None
    assert Policies(users={1002: UserRule()}).of(1001, "", OWN, HOME) is None


def test_the_default_is_for_users_without_a_table(policies: Policies) -> None:
    policy = of(policies, 4711)
    assert policy.rights(Kind.SYSTEM) == {Right.READ, Right.LIST}
    assert policy.rights(Kind.DEVICE, "cpu0") == {Right.READ, Right.CREATE}
    assert policy.rights(Kind.DEVICE, "cuda0") == {Right.READ}
    assert policy.rights(Kind.MODEL, "m1") == {Right.READ, Right.RUN}
    assert policy.rights(Kind.DRIVER) == frozenset()
    assert policy.rights(Kind.BUFFER) == policy.rights(Kind.SESSION) == ALL_RIGHTS
    assert list(policy.mounts) == ["/models"] and policy.mounts["/models"].mode == "ro"
    assert policy.limits == Limits(sessions=4, tokens_per_minute=1000) and not policy.own


def test_a_user_table_lies_over_the_default(policies: Policies) -> None:
    policy = of(policies, 1001)
    assert policy.rights(Kind.SYSTEM) == {Right.READ, Right.LIST}
    assert policy.mounts["/models"].mode == "rw" and policy.mounts["/data"].source == "/srv/data"
    assert policy.limits == Limits(sessions=8, tokens_per_minute=1000)


def test_a_user_table_without_a_default_is_all_there_is() -> None:
    policies = Policies.parse({"uid": {"7": {"handles": {"system": "all"}}}})
    policy = of(policies, 7)
    assert policy.rights(Kind.SYSTEM) == ALL_RIGHTS and policy.rights(Kind.DEVICE) == frozenset()
    assert policy.mounts == {} and policies.of(8, "", OWN, HOME) is None


def test_the_own_user_can_be_narrowed_by_its_table() -> None:
    policy = of(Policies.parse({"default": {}, "uid": {str(OWN): {"mounts": {"/models": "ro"}}}}), OWN)
    assert list(policy.mounts) == ["/models"] and policy.mounts["/models"].mode == "ro"
    assert policy.rights(Kind.SYSTEM) == ALL_RIGHTS


def test_a_tenant_has_at_most_its_users_share(policies: Policies) -> None:
    user, tenant = of(policies, 1001), of(policies, 1001, "web")
    assert tenant.rights(Kind.SYSTEM) == {Right.READ}
    assert tenant.rights(Kind.MODEL) == user.rights(Kind.MODEL)
    assert tenant.rights(Kind.DEVICE, "cpu0") == frozenset() == tenant.rights(Kind.DEVICE, "cuda0")
    assert tenant.mounts == {
        "/models": MountRule(filesystem="models", source=user.mounts["/models"].source, mode="ro"),
        "/data": user.mounts["/data"],
    }
    assert tenant.limits == Limits(sessions=8, tokens_per_minute=10, handles=7)
    assert of(policies, 1001, "other") == user


def test_a_tenant_may_name_limits_only() -> None:
    policies = Policies.parse(
        {"default": {"tenant": {"web": {"limits": {"handles": 5}}}, "handles": {"system": "all"}}}
    )
    assert of(policies, 7, "web").limits == Limits(handles=5)
    assert of(policies, 7, "web").rights(Kind.SYSTEM) == ALL_RIGHTS


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[defualt]", "unknown key policy.defualt; did you mean 'default'?"),
        ("uid = 5", "policy.uid is 5; expected tables such as [policy.uid.1000]"),
        ("[uid.bob]", "policy.uid.bob: 'bob' is no uid"),
        ("[uid.1.limits]\nsesions = 1", "unknown key policy.uid.1.limits.sesions; did you mean 'sessions'?"),
        ("[default.limits]\nsessions = -1", "policy.default.limits.sessions is -1; expected int >= 0"),
        (
            "[default.handles]\nmodle = 'all'",
            "policy.default.handles.modle: 'modle' is no kind of object; did you mean",
        ),
        ("[default.handles]\nmodel = ['fly']", "expected"),
        ("[default.mounts]\n'/data' = 'ro'", "a mode alone is enough only for /models"),
        ("[default.mounts]\n'data' = 'ro'", "policy.default.mounts: the path 'data' is not absolute"),
        ("[default.mounts]\n'/models/' = 'ro'", "policy.default.mounts: write '/models' instead of '/models/'"),
        ("[default.mounts]\n'/models' = 'w'", "expected"),
        ("[uid.1.tenant.web.handles]\nx = 'all'", "policy.uid.1.tenant.web.handles.x: 'x' is no kind"),
    ],
)
def test_mistakes_are_named(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Policies.parse(tomllib.loads(text))
    assert error in str(raised.value)


RIGHTS = st.lists(st.sampled_from(sorted(Right)), max_size=9) | st.just("all")
KEYS = st.sampled_from(["system", "device", "device:cpu0", "driver", "model", "model:m1"])
MOUNTS = st.dictionaries(st.sampled_from(["/models", "/proc"]), st.sampled_from(["ro", "rw"]))
NUMBERS = st.integers(0, 3)
RULES = st.builds(
    Rule,
    handles=st.none() | st.dictionaries(KEYS, RIGHTS),
    mounts=st.none() | MOUNTS,
    limits=st.builds(Limits, handles=NUMBERS, sessions=NUMBERS),
)


@given(RULES, RULES, st.booleans())
def test_no_tenant_table_ever_adds_authority(user: Rule, tenant: Rule, own: bool) -> None:
    rule = UserRule(handles=user.handles, mounts=user.mounts, limits=user.limits, tenant={"t": tenant})
    policies = Policies(users={7: rule})
    whole, part = policies.of(7, "", 7 if own else 1, HOME), policies.of(7, "t", 7 if own else 1, HOME)
    assert whole is not None and part is not None
    for kind in Kind:
        for name in ("", "cpu0", "m1"):
            assert part.rights(kind, name) <= whole.rights(kind, name)
    for path, mount in part.mounts.items():
        assert mount.source == whole.mounts[path].source and (mount.mode == "ro" or whole.mounts[path].mode == "rw")
    for field in ("handles", "sessions"):
        bound = getattr(whole.limits, field)
        assert not bound or 0 < getattr(part.limits, field) <= bound
