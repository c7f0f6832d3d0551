"""Models: how to load them and what they are once loaded."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from .authority import Handle
from .common import Argument, Reason, Value


class Quant(Argument):
    """How to quantize weights: at load, or of a stored model."""

    width: Literal[4, 8] = 8
    """Bits of a weight."""
    group: Literal[0, 32, 64, 128] = 128
    """Inputs that share a scale; 0: all inputs of an output."""
    kind: Literal["int", "float"] = "int"
    """Whole numbers, or floating ones (e4m3, of 8 bits alone)."""
    shift: bool = False
    """Each group has a shift beside its scale (asymmetric)."""
    method: Literal["rtn", "gptq", "awq", "smoothquant"] = "rtn"
    """Nearest numbers, with the scales of least error; or by what text does in the model, of a stored model alone."""
    activations: Literal["auto", "model", "int8", "float8"] = "auto"
    """What inputs of products are rounded to; by default what the device is fastest with."""
    head: Literal[4, 8, 16] = 8
    """Bits of the output layer, at least `width`; 16 leaves it as it is."""
    byte_budget: Annotated[int, Meta(ge=0)] | None = None
    """Bytes of all weights at most: layers that suffer most are kept wider as far as it reaches."""
    keep: list[str] = []
    """Layers that stay as they are, by names or patterns such as `*.down_proj`."""


class LoadOptions(Argument):
    """How to load a model."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    kv_dtype: str = "auto"
    max_context: Annotated[int, Meta(ge=1)] | None = None
    quant: Quant | None = None
    adapter: bool = False
    """The path is an adapter; `base` says for which loaded model."""
    name: str = ""
    """Name among loaded models; the path's last part by default."""
    replace: bool = False
    """Take over the name from a loaded model, which leaves when its requests have ended."""
    keep_alive: Annotated[float, Meta(ge=-1, le=1e9)] = -1
    """Seconds without use after which the model may be put to sleep; -1 never, 0 at once."""
    pin: bool = False
    group: str = ""
    draft: str = ""
    """Path of a smaller model with the same vocabulary, which guesses ahead for requests that ask for it."""
    prefix_cache: bool = True
    """Requests use what was computed of the same beginning for others of their tenant; False: each computes its own."""
    rung: Annotated[str, "force a rung of the runner ladder: P, H, S, G or F"] = ""
    dry_run: bool = False
    """Only plan: `ModelInfo.plan` says whether it would fit; nothing is loaded."""
    devices: list[str] = []


class LedgerRow(Value):
    """One row of the ledger of bytes."""

    device: str
    what: Annotated[str, "weights, kv, workspace, tuning, lease, buffer, runtime, foreign or reserve"]
    owner: str
    predicted: int = 0
    ledger: int = 0
    allocator: int = 0
    driver: int = 0


class Eviction(Value):
    """A model that would be put to sleep to make room."""

    model: str
    """Its name."""
    bytes: int
    """What the device gets back."""
    reload_s: float
    """Seconds it is expected to take until it can run again."""
    idle_s: float
    """Seconds since it was used last."""
    reason: Reason


class Plan(Value):
    """Whether a model fits, and what would have to leave."""

    rows: list[LedgerRow]
    fits: bool
    """Now, or after what `would_evict` names has left."""
    would_evict: list[str] = []
    needed: int = 0
    free: int = 0
    evictions: list[Eviction] = []
    short: int = 0
    """Bytes that are missing even then."""
    reasons: list[Reason] = []
    """What the plan rests on, and who holds the bytes when it does not fit."""


class ModelInfo(Value):
    """A loaded (or, after a dry run, planned) model."""

    handle: Handle
    id: str
    path: str
    version: str
    device: str
    architecture: str
    tasks: list[str] = []
    context: int = 0
    parameters: int = 0
    rung: str = ""
    rung_reasons: list[Reason] = []
    bytes: list[LedgerRow] = []
    plan: Plan | None = None
    name: str = ""
    chat: bool = False
    """Has a chat template."""


class Freed(Value):
    """What an unload gave back."""

    bytes: int


class TuneRecipe(Argument):
    """How to adapt a model; identical as Python dict, TOML file and JSON."""

    method: str
    objective: str = "causal-lm"
    rank: Annotated[int, Meta(ge=1)] = 8
    alpha: float = 16.0
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    target_modules: list[str] = []
    epochs: Annotated[float, Meta(gt=0)] = 1.0
    max_steps: Annotated[int, Meta(ge=0)] = 0
    batch_size: Annotated[int, Meta(ge=1)] = 8
    learning_rate: Annotated[float, Meta(gt=0)] = 2e-4
    schedule: str = "cosine"
    warmup_ratio: Annotated[float, Meta(ge=0, lt=1)] = 0.03
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    max_length: Annotated[int, Meta(ge=1)] | None = None
    packing: bool = True
    seed: int = 0
    eval_fraction: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    promote_if: str = ""
    checkpoint_every: Annotated[int, Meta(ge=0)] = 0
    options: dict[str, Any] = {}
    search: dict[str, Any] = {}
    """What to try instead of one recipe: `space`, `trials`, `parallel`, `metric`, ..."""


class TunePlan(Value):
    """What tuning would take: bytes beside the model, optimizer steps, tokens in all."""

    rows: list[LedgerRow]
    needed: int
    """Bytes of the device."""
    free: int
    steps: int
    tokens: int
    facts: dict[str, Any] = {}
    """What the driver tells of data and method, for people."""


class TransformRecipe(Argument):
    """How to turn stored models into another: quantize, prune, merge, export, import or push."""

    kind: Annotated[str, "quantize, prune, merge, export, import or push"]
    quant: Quant | None = None
    method: str = ""
    weights: list[float] = []
    sparsity: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    format: str = ""
    options: dict[str, Any] = {}
