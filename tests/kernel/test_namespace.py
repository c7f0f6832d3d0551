"""Paths and mount tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.namespace import MAX_PATH, MountPoint, MountTable, check_mode, normalize, told_from_outside
from llmos.syscalls.errors import BadArgument, Exists, NotFound, ReadOnly


def point(path: str, mode: str = "rw", id: str = "", root: str = "/") -> MountPoint:
    return MountPoint(path, "models", "/srv", mode, id or f"mount{path}", root)


@pytest.fixture
def table() -> MountTable:
    return MountTable([point("/models"), point("/models/shared", "ro"), point("/data/team/one")])


@pytest.mark.parametrize(("path", "normal"), [("/", "/"), ("/a", "/a"), ("/a/b/", "/a/b"), ("/a..b/...", "/a..b/...")])
def test_normal_paths(path: str, normal: str) -> None:
    assert normalize(path) == normal


@pytest.mark.parametrize(
    "path", ["", "a", "a/b", "//", "/a//b", "/a//", "/..", "/a/../b", "/a/..", "/./a", "/a/.", "/a\0b", "~/x", "../x"]
)
def test_other_paths_are_refused_by_name(path: str) -> None:
    with pytest.raises(BadArgument) as error:
        normalize(path)
    assert error.value.got == path and error.value.name == "path" and repr(path) in str(error.value)


@pytest.mark.parametrize(
    ("inner", "path", "said", "told"),
    [
        ("/m", "/models/m", "there is no /m", "there is no /models/m"),
        ("/m@v1/x", "/models/m@v1/x", "'/m@v1', (/m) /m/x /m:", "'/models/m@v1', (/models/m) /m/x /models/m:"),
        ("/o/m", "/a/o/m", "/o has /o/m@2", "/a/o has /a/o/m@2"),
        ("/", "/mnt/m", "/@local is at /", "/mnt/m@local is at /mnt/m"),
        ("/x", "/mnt/m/x", "no /x in /@local; write / only once", "no /mnt/m/x in /mnt/m@local; write / only once"),
        ("/team/one/x", "/mine/x", "/team/one/x is in /team/one in /team", "/mine/x is in /mine in /team"),
        ("/x", "/x", "/x lies in /", "/x lies in /"),
    ],
)  # fmt: skip
def test_errors_of_a_file_system_name_the_paths_of_the_program(inner: str, path: str, said: str, told: str) -> None:
    with pytest.raises(NotFound) as error, told_from_outside(inner, path):
        raise NotFound(said)
    assert str(error.value) == told


def test_the_path_that_an_argument_had_is_the_programs_too() -> None:
    for got, told in (("/x", "/home/x"), ("3", "3")):
        with pytest.raises(BadArgument) as error, told_from_outside("/x", "/home/x"):
            raise BadArgument("bad", name="path", got=got)
        assert error.value.got == told


def test_the_longest_path() -> None:
    longest = "/" + "a" * (MAX_PATH - 1)
    assert normalize(longest) == longest
    with pytest.raises(BadArgument, match="has 4097 characters"):
        normalize(longest + "a")


@given(st.text(alphabet="/.a~\0é", max_size=12))
def test_a_path_is_normal_or_refused(path: str) -> None:
    try:
        normal = normalize(path)
    except BadArgument:
        return
    assert normalize(normal) == normal
    parts = normal.split("/")[1:]
    assert normal.startswith("/") and "\0" not in normal
    assert normal == "/" or not {"", ".", ".."} & set(parts)


def test_modes() -> None:
    assert check_mode("ro") == "ro"
    with pytest.raises(BadArgument, match="'w'"):
        check_mode("w")


@pytest.mark.parametrize(
    ("path", "mount", "inner"),
    [
        ("/models", "/models", "/"),
        ("/models/tiny", "/models", "/tiny"),
        ("/models/shared", "/models/shared", "/"),
        ("/models/shared/x/y", "/models/shared", "/x/y"),
        ("/models/sharedx", "/models", "/sharedx"),
        ("/data/team/one/f", "/data/team/one", "/f"),
    ],
)
def test_the_longest_prefix_serves_a_path(table: MountTable, path: str, mount: str, inner: str) -> None:
    found, rest = table.resolve(path)
    assert (found.path, rest) == (mount, inner)


@pytest.mark.parametrize("path", ["/", "/mode", "/modelsx", "/data", "/data/team"])
def test_a_path_below_no_mount_point_is_not_found(table: MountTable, path: str) -> None:
    with pytest.raises(NotFound, match="mounted are /data/team/one, /models, /models/shared"):
        table.resolve(path)


def test_an_empty_table_says_so() -> None:
    with pytest.raises(NotFound, match="mounted are none"):
        MountTable().resolve("/x")


def test_a_mount_at_the_root_serves_the_rest() -> None:
    table = MountTable([point("/"), point("/models")])
    assert table.resolve("/etc/x")[1] == "/etc/x" and table.resolve("/")[1] == "/"
    assert table.resolve("/models/m")[0].path == "/models"
    assert table.children("/") == ["models"]


def test_a_mount_shows_a_folder_of_its_file_system() -> None:
    table = MountTable([point("/here", root="/team/a")])
    assert table.resolve("/here")[1] == "/team/a"
    assert table.resolve("/here/f")[1] == "/team/a/f"
    assert MountTable([point("/", root="/team")]).resolve("/")[1] == "/team"


def test_what_is_mounted_ro_is_not_writable(table: MountTable) -> None:
    assert table.writable("/models/tiny") == (table.find("mount/models"), "/tiny")
    with pytest.raises(ReadOnly, match="/models/shared is mounted ro"):
        table.writable("/models/shared/x")


def test_children_are_the_names_that_lead_to_mount_points(table: MountTable) -> None:
    assert table.children("/") == ["data", "models"]
    assert table.children("/models") == ["shared"]
    assert table.children("/data") == ["team"]
    assert table.children("/data/team/one") == []
    assert table.children("/mod") == []


def test_mount_and_unmount(table: MountTable) -> None:
    with pytest.raises(Exists, match="/models is taken by models"):
        table.mount(point("/models/"))
    with pytest.raises(BadArgument):
        table.mount(point("/x", mode="w"))
    with pytest.raises(BadArgument):
        table.mount(point("x"))
    with pytest.raises(BadArgument):
        table.mount(point("/x", root="../up"))
    with pytest.raises(NotFound, match="nothing is mounted at /models/tiny"):
        table.unmount("/models/tiny")
    assert table.unmount("/models/shared").path == "/models/shared"
    assert table.resolve("/models/shared/x")[0].path == "/models"
    assert [p.path for p in table.points()] == ["/data/team/one", "/models"]
    assert table.find("mount/models/shared") is None


def test_a_narrowed_table_has_the_named_paths_only(table: MountTable) -> None:
    narrow = table.narrowed([("/models/tiny", "ro"), ("/data/team/one", "rw")])
    assert narrow.resolve("/models/tiny/config.json") == (narrow.find("mount/models"), "/tiny/config.json")
    with pytest.raises(ReadOnly):
        narrow.writable("/models/tiny/x")
    assert narrow.writable("/data/team/one/x")[1] == "/x"
    with pytest.raises(NotFound):
        narrow.resolve("/models/other")


def test_mount_points_below_a_named_path_come_along(table: MountTable) -> None:
    narrow = table.narrowed([("/models", "rw")])
    assert narrow.writable("/models/x")[1] == "/x"
    with pytest.raises(ReadOnly):
        narrow.writable("/models/shared/x")
    everything = table.narrowed([("/", "rw")])
    assert [(p.path, p.mode) for p in everything.points()] == [(p.path, p.mode) for p in table.points()]
    assert {p.mode for p in table.narrowed([("/", "ro")]).points()} == {"ro"}


def test_a_path_named_itself_is_not_taken_twice(table: MountTable) -> None:
    narrow = table.narrowed([("/models", "ro"), ("/models/shared", "ro")])
    assert [p.path for p in narrow.points()] == ["/models", "/models/shared"]
    with pytest.raises(Exists):
        table.narrowed([("/models", "ro"), ("/models/", "rw")])


def test_a_table_cannot_be_widened(table: MountTable) -> None:
    with pytest.raises(ReadOnly):
        table.narrowed([("/models/shared", "rw")])
    with pytest.raises(ReadOnly):
        table.narrowed([("/models/shared/x", "rw")])
    with pytest.raises(NotFound):
        table.narrowed([("/etc", "ro")])
    with pytest.raises(BadArgument):
        table.narrowed([("/models", "x")])


PATHS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(lambda parts: "/" + "/".join(parts))
MODES = st.sampled_from(["ro", "rw"])


@given(st.dictionaries(PATHS, MODES), st.lists(st.tuples(PATHS, MODES), max_size=3, unique_by=lambda w: w[0]), PATHS)
def test_narrowing_never_adds_authority(mounts: dict[str, str], wanted: list[tuple[str, str]], path: str) -> None:
    table = MountTable([point(p, mode) for p, mode in mounts.items()])
    try:
        narrow = table.narrowed(wanted)
        found, inner = narrow.resolve(path)
    except (NotFound, ReadOnly):
        return
    original, original_inner = table.resolve(path)
    assert (found.id, inner) == (original.id, original_inner)
    assert found.mode == "ro" or original.mode == "rw"
    assert any(path == w or path.startswith(w.removesuffix("/") + "/") for w, _ in wanted)
