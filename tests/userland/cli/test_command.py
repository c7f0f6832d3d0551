"""What a command is made of: its arguments and options, and the names their values are found under."""

from llmos.userland.cli.command import JSON, Argument, Kind, flag, one, option


def test_an_option_is_named_after_its_long_spelling() -> None:
    made = option("-k --keep-alive --stay", Kind.DURATION, "how long")
    assert (made.flags, made.name, made.kind) == (("-k", "--keep-alive", "--stay"), "keep_alive", Kind.DURATION)


def test_a_flag_has_no_value() -> None:
    assert flag("-n --dry-run", "only plan").kind is None
    assert (JSON.name, JSON.kind) == ("json", None)


def test_one_argument_is_named_by_its_kind_or_by_name() -> None:
    assert one(Kind.MODEL_PATH, "a model") == (Argument(name="model", kind=Kind.MODEL_PATH, help="a model"),)
    (named,) = one(Kind.NAME, "the alias", name="alias", required=False)
    assert (named.name, named.required, named.many) == ("alias", False, False)
