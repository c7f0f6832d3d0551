"""A stored model without what matters least: single weights set to 0, whole heads or whole layers taken out.

Weights are those of the linear layers inside the model's layers: embeddings, norms, routers and the output head stay.
Zeros take as many bytes as before; heads and layers make the model smaller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument, NotSupported

from ..contract import ModelSource, ProgressSink
from ..quant.rule import ROUTERS
from . import cutting, pruning, shards, structure
from .kinds import options_of
from .shards import Shards, Tensors

if TYPE_CHECKING:
    from .observing import Seen

OPTIONS: Mapping[str, type | tuple[type, ...]] = {"pattern": str, "layers": list}
"""Options of the recipe: `2:4` for two of each four weights; the numbers of the layers that go."""
METHODS = ("magnitude", "wanda", "heads", "layers")
PATTERN = "2:4"
REPORT = "pruning.json"
METRICS = ("method", "sparsity", "removed", "perplexity_before", "perplexity_after", "bytes_before", "bytes_after")
WEIGHTS = ".safetensors"
TRANSPOSED = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
"""Types of models that keep the weights of linear layers [inputs, outputs]."""
def run(
    sources: Sequence[ModelSource], recipe: Mapping[str, Any], folder: Path, progress: ProgressSink
) -> Mapping[str, Any]:
    """Prune `sources[0]`; the others are calibration text. See `kinds.Run`."""
    options = options_of(recipe, OPTIONS)
    method, share = recipe.get("method") or "magnitude", float(recipe.get("sparsity") or 0.0)
    if method not in METHODS:
        raise BadArgument(f"prune has no method {method!r}; {suggest(method, METHODS)}", name="method", got=method)
    if options.get("pattern", PATTERN) != PATTERN:
        got = options["pattern"]
        raise BadArgument(f"the pattern is {got!r}; it can be {PATTERN}", name="pattern", got=got[:80], want=PATTERN)
    if not share and not options.get("pattern") and not options.get("layers"):
        want = "a part such as 0.5, or the option layers"
        raise BadArgument(f"nothing is to be pruned: say sparsity, {want}", name="sparsity", got="0", want=want)
    config = shards.config_of(sources[0])
    if config.get("quantization_config"):
        why = "it is quantized"
        raise NotSupported(f"{sources[0].path} is not pruned: {why}; prune what it was made from", why=why)
    learns = method == "wanda" or (method == "layers" and not options.get("layers"))
    seen = _seen(sources, progress) if learns or sources[1:] else None
    with shards.opened(sources[0]) as model:
        if method == "layers":
            gone = options.get("layers") or _least(seen, share)
            report = cutting.without_layers(model, config, gone, folder, progress)
        elif method == "heads":
            report = cutting.without_heads(model, config, share, folder, progress)
        else:
            used = seen if method == "wanda" else None
            report = _thinned(model, config, share, bool(options.get("pattern")), used, folder, progress)
        report |= {"method": method, "bytes_before": _weights_of(model), "bytes_after": _written(folder)}
    shards.copy_rest(sources[0], folder, progress, without=[path.name for path in folder.iterdir()])
    report |= _measured(sources[0], folder, seen, progress)
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return {"metrics": {name: report[name] for name in METRICS if name in report}}


def _least(seen: Seen | None, share: float) -> list[int]:
    """The layers that change least what goes through them. Raises BadArgument: the share is less than one layer."""
    influence = {} if seen is None else seen.influence
    wanted = round(share * len(influence))
    if not wanted:
        text = f"{share:g} of {len(influence)} layers is less than one; name layers, or say more"
        raise BadArgument(text, name="sparsity", got=f"{share:g}")
    return sorted(sorted(influence, key=lambda number: influence[number])[:wanted])


def _thinned(
    model: Tensors,
    config: Mapping[str, Any],
    share: float,
    pattern: bool,
    seen: Seen | None,
    folder: Path,
    progress: ProgressSink,
) -> dict[str, Any]:
    """Write the model with single weights set to 0; what became of each matrix."""
    norms = {} if seen is None else {model.weight_of(path): norm for path, norm in seen.norms.items()}
    turned = structure.text_config(config).get("model_type") in TRANSPOSED
    out, modules = Shards(folder), dict[str, Any]()
    for done, name in enumerate(model):
        progress(done, len(model), "tensors", "prune")
        tensor = model.read(name)
        if is_prunable(name, model.shape(name)) and model.floating(name):
            weight = tensor.T if turned else tensor
            norm = norms.get(name)
            mask = _mask(weight, norm, share, pattern)
            modules[name.removesuffix(".weight")] = {
                "sparsity": int(mask.sum()) / mask.numel(), "bytes": tensor.nbytes,
                "error": pruning.relative_error(weight, mask, norm),
            }  # fmt: skip
            pruned = weight.masked_fill(mask, 0)
            tensor = pruned.T if turned else pruned
        out.add(name, tensor)
    out.close()
    if not modules:
        why = "it has no matrices inside of layers"
        raise NotSupported(f"{model.source.path} is not pruned: {why}", why=why)
    sparsity = sum(about["sparsity"] * about["bytes"] for about in modules.values())
    whole = sum(about["bytes"] for about in modules.values())
    return {"modules": modules, "sparsity": round(sparsity / whole, 6)}


def is_prunable(name: str, shape: Sequence[int]) -> bool:
    """Whether it is the weight of a linear layer inside of the model's layers, and no router."""
    layer = name.removesuffix(".weight").rpartition(".")[2]
    inside = name.endswith(".weight") and structure.layer_of(name) is not None
    return inside and len(shape) == 2 and min(shape) > 1 and layer not in ROUTERS


def _mask(weight: Tensor, norms: Tensor | None, share: float, pattern: bool) -> Tensor:
    """True where a weight [N, K] becomes 0. By size they compete within the matrix, by text within each output."""
    score = weight.float().abs() if norms is None else pruning.wanda(weight, norms)
    if pattern:
        return pruning.two_of_four(score)
    return pruning.smallest_of_all(score, share) if norms is None else pruning.smallest(score, share)


def _seen(sources: Sequence[ModelSource], progress: ProgressSink) -> Seen:
    from .observing import observe  # transformers is not needed for weights alone

    return observe(sources[0], sources[1:], progress)


def _measured(source: ModelSource, folder: Path, seen: Seen | None, progress: ProgressSink) -> dict[str, Any]:
    """What it cost, on the part of the text that nothing was learnt from."""
    if seen is None:
        return {}
    from .observing import measured

    after = measured(source, folder, seen.text, progress)
    text = {"text": seen.text.origin, "tokens": seen.text.measure.numel()}
    return {**text, "perplexity_before": seen.perplexity, "perplexity_after": after}


def _weights_of(model: Tensors) -> int:
    return sum(file.bytes for file in model.source.files if file.name.endswith(WEIGHTS))


def _written(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"*{WEIGHTS}"))
