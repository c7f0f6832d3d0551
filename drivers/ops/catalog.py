"""Every op there is: what it does, the shapes and dtypes of its arguments, its answer, and what providers are asked.

Names, order and defaults of the arguments are those of the reference; a test compares them. The page docs/ops.md is
made from here.

Shapes: T tokens of all rows, R rows, H hidden width, I inner width of a gated unit, Hq and Hkv query and key heads, D
and Dv widths of a head's keys and values, P pages, B tokens of a page, K and N inputs and outputs of a product, V size
of a vocabulary, E experts. A dtype of `dtype` is that of the case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .table import OpTable

DTYPES = ("float32", "bfloat16", "float16")
"""What models compute in."""


@dataclass(frozen=True)
class Argument:
    """One argument: `shape` and `dtype` as people write them, empty for plain values."""

    name: str
    shape: str = ""
    dtype: str = ""
    what: str = ""


@dataclass(frozen=True)
class Op:
    """One op. `spec` holds what a provider is asked beside device and dtype, each with a usual value; `on_cpu` those
    that are usual there."""

    name: str
    does: str
    arguments: Sequence[Argument]
    answer: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    on_cpu: Mapping[str, Any] = field(default_factory=dict)

    def usual(self, device: str) -> dict[str, Any]:
        """What a provider is usually asked on a kind of device."""
        return {**self.spec, **(self.on_cpu if device == "cpu" else {})}


def _tensor(name: str, shape: str, what: str = "") -> Argument:
    return Argument(name, shape, "dtype", what)


X, RESIDUAL = _tensor("x", "[..., H]"), _tensor("residual", "[..., H]")
Q, K, V = _tensor("q", "[T, Hq, D]"), _tensor("k", "[T, Hkv, D]"), _tensor("v", "[T, Hkv, Dv]")
PAGES = (
    Argument("k_pages", "[P, Hkv, B, D]", "dtype, int8 or float8_e4m3fn", "any stride between pages"),
    Argument("v_pages", "[P, Hkv, B, Dv]", "as k_pages", "any stride between pages"),
)
SLOTS = Argument("slots", "[T]", "int64", "page * B + place in the page")
SCALES = (
    Argument("key_scale", "[P, Hkv, B]", "float32", "what numbers of pages of 8 bits are times; nothing for others"),
    Argument("value_scale", "[P, Hkv, B]", "float32", "as `key_scale`"),
)
SCALE = Argument("scale", what="of the scores")
EPS = Argument("eps", what="added to the mean square")
NORM = (
    _tensor("weight", "[H]"),
    EPS,
    Argument("unit_offset", what="the scale is 1 + weight"),
    Argument("round_first", what="round to the dtype before the scale, not after"),
)
LAYER_NORM = (
    _tensor("weight", "[H]", "or nothing"),
    _tensor("bias", "[H]", "or nothing"),
    Argument("eps", what="added to the variance"),
)
ANGLES = (_tensor("cos", "[T, R]", "R dimensions are turned"), _tensor("sin", "[T, R]"))
GATED = (_tensor("gate_up", "[..., 2 I]", "side by side"),)
WIDTHS = {"key_width": 128, "value_width": 128, "page_tokens": 16}
WAYS = {"where": "segments"}
QUANTIZED = {"width": 4, "group": 128, "kind": "int", "shift": False, "activations": "model"}
WHERE = Argument("where", what="which tokens go through which adapter: `Segments`, or `Slots` with ids on the device")

CATALOG: Sequence[Op] = (
    Op("replay", "makes what carries out a function of ops and may repeat it, `Replay`", (), "a `Replay`"),
    Op(
        "pool_states",
        "one vector for each row of states",
        (
            Argument("states", "[R, T, H]", "dtype"),
            Argument("mask", "[R, T]", "int64", "1 where there is a token"),
            Argument("how", what="`mean`, `cls` or `last`"),
        ),
        "[R, H] float32",
    ),
    Op(
        "paged_attention",
        "causal attention of packed rows to keys and values in pages",
        (
            Q, *PAGES,
            Argument("page_table", "[R, most pages]", "int32", "the pages of each row in order"),
            Argument("cu_q", "[R + 1]", "int32", "where each row's queries begin"),
            Argument("lengths", "[R]", "int32", "tokens of each row with those of this step"),
            SCALE,
            Argument("window", what="how many tokens a query sees; 0: all"),
            Argument("softcap", what="c: a score is c * tanh(score / c); 0: off"),
            Argument("sinks", "[Hq]", "dtype", "scores without a value"),
            *SCALES,
        ),
        "[T, Hq, Dv]",
        WIDTHS,
    ),
    Op(
        "packed_attention",
        "attention of packed rows, each token to its whole row",
        (Q, K, V, Argument("starts", "[R + 1]", "int32", "where each row begins"), SCALE),
        "[T, Hq, Dv]",
        {"key_width": 64},
    ),
    Op(
        "write_kv",
        "puts keys and values into pages",
        (K, V, *PAGES, SLOTS, *SCALES),
        "nothing; writes the pages",
        WIDTHS,
    ),
    Op("rope", "turns queries and keys by their positions", (Q, K, *ANGLES), "nothing; writes q and k"),
    Op(
        "rope_write",
        "`rope`, then `write_kv` of the turned keys",
        (Q, K, *ANGLES, V, *PAGES, SLOTS, *SCALES),
        "nothing; writes q and the pages",
    ),
    Op("add", "residual + x", (X, RESIDUAL), "[..., H]"),
    Op("rms_norm", "x / sqrt(mean(x^2) + eps) * weight", (X, *NORM), "[..., H]"),
    Op("add_rms_norm", "`rms_norm` of residual + x", (X, RESIDUAL, *NORM), "the norm and the sum, [..., H] each"),
    Op(
        "rms_norm_float8", "`rms_norm`, rounded to e4m3 for each row", (X, *NORM),
        "`Float8Rows`: numbers and scales, rows and columns filled up to multiples of 16",
    ),
    Op(
        "add_rms_norm_float8", "`add_rms_norm`, with the norm rounded to e4m3 for each row", (X, RESIDUAL, *NORM),
        "`Float8Rows`, and the sum, [..., H]",
    ),
    Op("layer_norm", "(x - mean(x)) / sqrt(var(x) + eps) * weight + bias", (X, *LAYER_NORM), "[..., H]"),
    Op(
        "add_layer_norm", "`layer_norm` of residual + x", (X, RESIDUAL, *LAYER_NORM),
        "the norm and the sum, [..., H] each",
    ),
    Op("silu_mul", "silu(gate) * up", GATED, "[..., I]"),
    Op("gelu_mul", "gelu(gate) * up, with erf", GATED, "[..., I]"),
    Op("gelu_tanh_mul", "gelu(gate) * up, with tanh", GATED, "[..., I]"),
    Op(
        "lora_shrink",
        "x times the transposed A of each token's adapter",
        (_tensor("x", "[T, K]"), _tensor("a", "[adapters, rank, K]"), WHERE),
        "[tokens of all segments, rank]; [T, rank] of slots",
        WAYS,
    ),
    Op(
        "lora_expand",
        "adds hidden times the B of each token's adapter to y",
        (
            _tensor("y", "[T, N]"), _tensor("hidden", "[tokens of all segments, rank]"),
            _tensor("b", "[adapters, rank, N]"), WHERE,
            Argument("slices", what="first column in y and width, for each of several b side by side; none: all of y"),
        ),
        "nothing; writes y",
        WAYS,
    ),
    Op(
        "experts",
        "each token through the gated units that its router chose, weighted and added up",
        (
            _tensor("x", "[T, H]"), _tensor("gate_up", "[E, 2 I, H]", "any strides"),
            _tensor("down", "[E, H, I]", "any strides"),
            Argument("chosen", "[T, K]", "int64", "experts of each token; one that is not in 0 to E - 1 is left out"),
            Argument("weights", "[T, K]", "any", "of the chosen"),
            Argument("gate", what="what is between the two products, `Gate`"),
            _tensor("gate_up_bias", "[E, 2 I]", "or nothing"), _tensor("down_bias", "[E, H]", "or nothing"),
        ),
        "[T, H]",
    ),
    Op(
        "sample",
        "a token for each row, drawn by noise that its seed and counter decide",
        (
            Argument("logits", "[R, V]", "dtype", "computed with in float32"),
            Argument("temperature", "[R]", "float32", "0: the greatest logit"),
            Argument("top_k", "[R]", "int32", "0: off"),
            Argument("top_p", "[R]", "float32", "1: off"),
            Argument("min_p", "[R]", "float32", "0: off"),
            Argument("seed", "[R]", "int64", "the key of Philox"),
            Argument("counter", "[R]", "int64", "position in the low, number of the answer in the high 32 bits"),
        ),
        "[R] int64, -1 where no logit is finite",
    ),
    Op(
        "linear",
        "makes a layer of frozen weights, `PackedLinear`: [..., K] to [..., N]",
        (
            _tensor("weights", "[N, K] each", "merged in this order"),
            _tensor("bias", "[N of all]", "or nothing"),
        ),
        "a module",
    ),
    Op(
        "quantized_linear",
        "makes a layer of weights of 4 or 8 bits, `QuantizedLinear`: [..., K] to [..., N]",
        (
            Argument("weights", "[N, K] each", "`QuantizedWeight`", "of one scheme, merged in this order"),
            _tensor("bias", "[N of all]", "or nothing"),
            Argument("dtype", what="of inputs and answers"),
            Argument("activations", what="`model`, `int8` or `float8`: what inputs are rounded to"),
        ),
        "a module",
        QUANTIZED,
        {"activations": "int8"},
    ),
)  # fmt: skip


def find(name: str) -> Op:
    """Raises KeyError."""
    return {op.name: op for op in CATALOG}[name]


def serving(table: OpTable, device: str) -> dict[str, dict[str, Any]]:
    """For each op of a table and each dtype: who serves its usual case on a kind of device, and why others do not.

    `{"rms_norm": {"bfloat16": {"serves": "triton", "refused": {"native": "..."}, "others": ["torch"]}}}`; `others`
    would serve it too and are asked later. An op that nothing serves has an empty `serves`.
    """
    usual = {op.name: op.usual(device) for op in CATALOG}
    found: dict[str, dict[str, Any]] = {}
    for op in table.ops():
        found[op] = {}
        for dtype in DTYPES:
            fits = {
                name: table.implementation(op, name).supports({**usual.get(op, {}), "device": device, "dtype": dtype})
                for name in table.names(op)
            }
            serving = [name for name, (yes, _) in fits.items() if yes]
            refused = {name: reason for name, (yes, reason) in fits.items() if not yes}
            found[op][dtype] = {"serves": (serving or [""])[0], "others": serving[1:], "refused": refused}
    return found
