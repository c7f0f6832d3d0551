"""A model folder in Hugging Face layout to a module and a tokenizer, from local safetensors files only.

No code of the folder is ever run and nothing is fetched. What is wrong with a folder is said with the file's name.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from llmos.syscalls.errors import BadArgument, BadModel, LlmosError, NotSupported

from ..contract import LoadSettings, ModelSource, ProgressSink
from ..formats.foreign import Foreign
from ..quant.rule import Wish
from . import bottleneck, checkpoint, fronts, kinds, learned, plugged
from .checkpoint import CONFIG, Weights
from .finite import check_answer, check_finite, check_moved
from .kinds import Kind
from .lengths import context_of, usable_context
from .mapped import FilePages
from .memory import device_of, out_of_memory
from .pages import NARROW
from .place import PROCESSOR, Place
from .plugged import NONE, Architectures
from .quantized import library
from .quantized.asked import AUTO, quantized_asked, refuse_plugged, settle
from .quantized.folder import Quantized
from .quantized.foreign import fitted, load_foreign, opened
from .quantized.quantizing import Report, chosen

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""What safetensors calls them."""

TRIAL_TOKENS = 4
TRIAL_TEXT = "a b"

DERIVED = re.compile(r"(^|\.)(inv_freq|masked_bias|position_ids|(attn|attention)\.bias)$")
"""Tensors that old checkpoints carry although they follow from the configuration: frequencies, masks, positions."""

FAILURES = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, ImportError, ZeroDivisionError,
    AssertionError, OverflowError, StrictDataclassError, SafetensorError,
)  # fmt: skip
"""What transformers raises on files it cannot use."""

LOCAL: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class Description:
    """What a folder says about its model before anything is loaded."""

    config: Any
    architecture: str
    kind: Kind
    dtype: torch.dtype
    context: int
    narrow: torch.dtype | None = None
    quantized: Quantized | None = None
    """How its weights are kept."""
    wish: Wish | None = None
    """How they are to be quantized while they are loaded."""
    foreign: Foreign | None = None
    """The files, where another project quantized them."""
    bottlenecks: bottleneck.Bottlenecks | None = None
    """Small layers behind some of its own."""
    learned: int = 0
    """Tokens before each text, which are no part of the context."""

    @property
    def activations(self) -> str:
        """What inputs of quantized layers are rounded to."""
        asked = self.quantized or self.wish
        return AUTO if asked is None else asked.activations

    @property
    def pages(self) -> torch.dtype:
        """What keys and values are kept as where they are in pages: the model's dtype, or the narrow one asked for."""
        return self.narrow or self.dtype

    @property
    def causal(self) -> bool:
        return self.kind is kinds.CAUSAL


@dataclass(frozen=True)
class Bundle:
    """A loaded model: its module, and what turns inputs into tensors.

    A model has a `tokenizer`, a `processor` of pictures or sounds, or both, as its kind needs them; None otherwise.
    """

    module: Any
    tokenizer: Any
    about: Description
    eos: frozenset[int]
    vocabulary: int
    processor: Any = None
    learned: learned.Learned = ()

    @property
    def chat(self) -> bool:
        return any(getattr(front, "chat_template", None) for front in (self.tokenizer, self.processor))


def describe(
    source: ModelSource, settings: LoadSettings, folder: Path, weights: Weights, own: Architectures = NONE,
    place: Place = PROCESSOR,
) -> Description:  # fmt: skip
    """Read and judge the configuration; `own` are the classes that packages bring.

    Raises BadModel, BadArgument (settings), NotSupported.
    """
    raw = checkpoint.read_json(source, CONFIG)
    plugged_config = plugged.find(own, raw)
    if plugged_config is not None:
        refuse_plugged(source, settings.quant)
        name = plugged_config.architecture.name
        return Description(plugged_config, name, kinds.PLUGIN, _dtype(raw, weights, settings, place), 0)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        why = f"unknown architecture: model_type {kind!r}"
        if "auto_map" in raw:
            why += " needs code of the folder, which is never run"
        raise BadModel(f"{CONFIG} of {source.path}: {why}", file=CONFIG, why=why)
    quantized, wish = quantized_asked(source, raw, settings.quant)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
        text = config.get_text_config(decoder=True)
        kind, architecture = _kind(source, config)
        context = context_of(text, settings.max_context) if kind.tokens else 0
    except FAILURES as error:
        raise bad_model(source, error, CONFIG) from error
    fronts.check(source, kind)
    dtype, narrow = _dtype(raw, weights, settings, place), NARROW.get(settings.kv_dtype)
    small, before = bottleneck.read(source), learned.count(source)
    about = Description(config, architecture, kind, dtype, context, narrow, quantized, wish, bottlenecks=small)
    about = replace(about, context=max(1, context - before) if before else context, learned=before)
    try:
        if (found := opened(source, raw, folder, weights)) is None:
            return about
        found, quantized = fitted(found, empty_module(about), config)
    except FAILURES as error:
        raise bad_model(source, error, CONFIG) from error
    return replace(about, quantized=quantized, foreign=found)


def load(
    source: ModelSource, settings: LoadSettings, progress: ProgressSink, own: Architectures = NONE,
    place: Place = PROCESSOR, causal: bool = True, sparing: bool = False,
) -> Bundle:  # fmt: skip
    """Load weights and tokenizer; a model runs a few tokens, a causal one only if `causal`: else the caller tries it.

    `sparing`: pages of files are given back as soon as they were read, though the model will read them again.

    Raises BadModel naming the file, BadArgument, NotSupported.
    """
    weights = checkpoint.check_weights(source)
    with checkpoint.folder_of(source) as folder:
        about = describe(source, settings, folder, weights, own, place)
        here = place.device.type == "cpu"
        pages = FilePages([folder / name for name in weights.files])
        others, nothing = _others(about, weights), contextlib.nullcontext()
        with pages.watched() if others or sparing else nothing:
            if here:
                check_finite(folder, weights, progress)
        tokenizer = _tokenizer(source, folder) if about.kind.text else None
        processor = _processor(source, folder, about.kind)
        progress(weights.bytes, weights.bytes, "bytes", "build")
        with pages.watched() if others else nothing:
            module = _module(source, folder, about, weights, partial(_told, progress, pages))
        if about.bottlenecks is not None:
            bottleneck.load(module, about.bottlenecks, about.dtype, source, progress)
            module.eval().requires_grad_(False)
        tokens = learned.load(source, module, about.dtype, progress) if about.learned else ()
        settle(module, about.activations, place)
        place.divide(module, source.path)
        if not here:
            place.move(module, lambda done, total: progress(done, total, "bytes", "read"))
            check_moved(module, weights)
    with pages.watched() if sparing else nothing:
        vocabulary = _try(source, module, about, causal)
    if about.kind.tokens and not about.causal:
        about = replace(about, context=usable_context(module, tokenizer, about.context))
    about = replace(about, foreign=None)
    tokens = tuple((keys.to(device_of(module)), values.to(device_of(module))) for keys, values in tokens)
    return Bundle(module, tokenizer, about, _eos(module), vocabulary, processor, tokens)


def _told(progress: ProgressSink, pages: FilePages) -> None:
    """A sign of life, and of how much was read, from who quantizes."""
    progress(0, 0, "", "quantize")
    pages.trim()


def empty_module(about: Description) -> Any:
    """The model on the meta device: shapes without bytes. Experts are batched, which is what runs there."""
    if about.kind is kinds.PLUGIN:
        with torch.device("meta"):
            return plugged.PluggedModule(about.config).to(about.dtype)
    config = copy.deepcopy(about.config)
    auto = _auto_class(about)
    with torch.device("meta"):
        if not about.kind.auto:
            return auto(config).to(about.dtype)
        made = auto.from_config(
            config, dtype=about.dtype, trust_remote_code=False, experts_implementation="batched_mm"
        )
        if about.quantized is not None:
            library.put(made, about.quantized.modules, about.quantized.scales)
        elif about.wish is not None:
            library.put(made, chosen(made, about.wish))
        if about.bottlenecks is not None:
            bottleneck.put(made, about.bottlenecks, about.dtype)
        return made


def _others(about: Description, weights: Weights) -> bool:
    """Whether weights become others than those of the files, which nobody reads again then."""
    converted = set(weights.dtypes) & set(NAMES.values()) - {NAMES[about.dtype]}
    return about.foreign is not None or (about.quantized is None and bool(converted or about.wish))


def _module(source: ModelSource, folder: Path, about: Description, weights: Weights, report: Report) -> Any:
    if about.kind is kinds.PLUGIN:
        return plugged.load(source, folder, about.config, about.dtype, weights)
    options = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True, **LOCAL}
    options |= {} if about.wish is None else {"quantization_config": library.Wanted(about.wish, report)}
    auto = _auto_class(about)
    try:
        if about.foreign is not None:
            made = type(empty_module(about))
            module, info = load_foreign(
                made, about.foreign, folder, about.config, about.dtype, report, **options
            )
        else:
            module, info = auto.from_pretrained(folder, config=about.config, dtype=about.dtype, **options)
    except FAILURES as error:
        raise bad_model(source, error, weights.file_of(*str(error).replace(",", " ").split())) from error
    _check_tensors(source, module, about, weights, info)
    _check_numbers(module, weights)
    return module.eval().requires_grad_(False)


def _check_tensors(
    source: ModelSource, module: Any, about: Description, weights: Weights, info: Mapping[str, Any]
) -> None:
    """Raises BadModel for tensors that the architecture needs and lacks, of another shape than it needs, or that it
    has no place for inside its own modules.

    Extra heads, and tensors that follow from the configuration, are left out without a word: they take no part in what
    this model computes.
    """
    own = {name for part in (module, module.base_model) for name, _ in part.named_children()}
    extra = [key for key in info["unexpected_keys"] if key.split(".")[0] in own and not DERIVED.search(key)]
    wrong = {
        "needs": sorted(key for key in info["missing_keys"] if about.kind is not kinds.ENCODER or "pooler" not in key),
        "needs another shape of": sorted(key for key, *_ in info["mismatched_keys"]),
        "has no place for": sorted(extra),
    }
    for what, keys in wrong.items():
        if keys:
            file = checkpoint.INDEX if what == "needs" and len(weights.files) > 1 else weights.file_of(*keys)
            why = f"{about.architecture} {what} {', '.join(keys[:3])}{' and others' if len(keys) > 3 else ''}"
            raise BadModel(f"{file} of {source.path} does not fit {CONFIG}: {why}", file=file, why=why)


def _check_numbers(module: Any, weights: Weights) -> None:
    """Raises BadModel for quantized weights whose parts have another dtype or shape than their scheme."""
    for name, layer in library.stored(module):
        try:
            layer.quantized.check(name)
        except BadArgument as error:
            raise BadModel(error.text, file=weights.file_of(f"{name}.numbers"), why=error.text) from error


def _try(source: ModelSource, module: Any, about: Description, causal: bool) -> int:
    """Run a few tokens, `causal` models too, so that a model that cannot is refused now; answers how many tokens it
    knows.

    What reads more than token ids is tried by its runner.
    """
    if about.kind.reads != kinds.TEXT:
        return fronts.vocabulary(module) if about.kind.tokens else 0
    with running(source, about):
        vocabulary = int(module.get_input_embeddings().num_embeddings)
        ids = torch.arange(min(TRIAL_TOKENS, vocabulary), device=device_of(module))[None]
        more = {"decoder_input_ids": ids} if about.kind is kinds.SEQ2SEQ else {}
        answer = module(input_ids=ids, **more)[0] if causal or not about.causal else ids
    check_answer(source.path, about.architecture, answer)
    if about.kind.writes and not module.can_generate():
        why = f"{about.architecture} cannot generate"
        raise NotSupported(f"{source.path}: {why}", why=why)
    return vocabulary


@contextlib.contextmanager
def running(source: ModelSource, about: Description) -> Iterator[None]:
    """While tokens go through a model for the first time. Raises NotSupported where they do not."""
    try:
        with torch.inference_mode():
            yield
    except FAILURES as error:
        why = f"{about.architecture} does not run on token ids alone: {str(error).partition(chr(10))[0][:200]}"
        raise out_of_memory(error) or NotSupported(f"{source.path}: {why}", why=why) from error


def _tokenizer(source: ModelSource, folder: Path) -> Any:
    with _TokenizerFailures(source):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
        tokenizer.decode(tokenizer(TRIAL_TEXT)["input_ids"])
    return tokenizer


def _processor(source: ModelSource, folder: Path, kind: Kind) -> Any:
    if not kind.processor:
        return None
    try:
        return fronts.load_processor(folder, kind)
    except FAILURES as error:
        raise bad_model(source, error, fronts.processor_file(source)) from error


class _TokenizerFailures(contextlib.AbstractContextManager[None]):
    """Raises BadModel for a tokenizer that cannot be used. The tokenizers library raises `Exception` itself."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, FAILURES) or type(error) is Exception:
            name = next(name for name in checkpoint.TOKENIZERS if checkpoint.find(self._source, name))
            raise bad_model(self._source, error, name) from error


def _auto_class(about: Description) -> Any:
    return getattr(transformers, about.kind.auto or about.architecture)


def _kind(source: ModelSource, config: Any) -> tuple[Kind, str]:
    """What the model is for, and its class name. Raises NotSupported."""
    kind, name = kinds.kind_of(config, [file.name for file in source.files])
    if kind is None:
        why = f"{name} is of no kind that this device serves"
        raise NotSupported(f"{source.path}: {why}", why=why)
    return kind, name


def _dtype(raw: Mapping[str, Any], weights: Weights, settings: LoadSettings, place: Place) -> torch.dtype:
    """The dtype to compute in; for `auto` the place chooses by that of the weights."""
    if settings.dtype != "auto":
        if settings.dtype not in DTYPES:
            want = "auto, " + ", ".join(DTYPES)
            said = f"dtype is {settings.dtype!r}, not one of {want}"
            raise BadArgument(said, name="dtype", got=settings.dtype, want=want)
        return DTYPES[settings.dtype]
    text = raw.get("text_config")
    stored = raw.get("dtype") or raw.get("torch_dtype") or (text.get("dtype") if isinstance(text, dict) else None)
    if stored is None:
        stored = "bfloat16" if max(weights.dtypes, key=weights.dtypes.__getitem__, default="") == "BF16" else "float32"
    return place.dtype(DTYPES.get(stored, torch.float32) if isinstance(stored, str) else torch.float32)


def _eos(module: Any) -> frozenset[int]:
    """End tokens as `generate` knows them; a model that names none is ended by length or stop strings."""
    found = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    return frozenset(found if isinstance(found, list) else () if found is None else (found,))


def bad_model(source: ModelSource, error: Exception, file: str) -> LlmosError:
    """What to answer when transformers could not use `file`; NoDeviceMemory when that was the cause."""
    full = out_of_memory(error)
    if full is not None:
        return full
    why = str(error).strip().partition("\n")[0][:300] or type(error).__name__
    return BadModel(f"{file} of {source.path} cannot be loaded: {why}", file=file, why=why)
