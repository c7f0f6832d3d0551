"""Parts of a model that move themselves: copies of their own, in float32, in the place of what serves.

What moves is the model itself (all of it, its last layers, its biases) and not something around it. The rest of the
tree stays what serves, and nothing of that ever changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmos.syscalls.errors import NotSupported

from ..engine import kinds
from .resident import ResidentEmbedding, ResidentLinear

HEADS: Mapping[kinds.Kind, Sequence[str]] = {
    kinds.SEQUENCE: ("classifier", "score"), kinds.TOKEN: ("classifier", "score"), kinds.QUESTION: ("qa_outputs",),
}  # fmt: skip
"""What a head of classes is called in models of a kind. It begins at random, so it moves whatever the method is: PEFT
lets the modules of these names move, and saves them beside the adapters."""


class OwnLinear(nn.Linear):
    """A linear layer with its own float32 weights. x [.., in_features] of any dtype to float32 [.., out_features]."""

    @classmethod
    def of(cls, layer: Any) -> OwnLinear:
        """With a copy of the weights of another one."""
        with torch.device("meta"):
            made = cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        made.weight = nn.Parameter(layer.weight.detach().to(torch.float32, copy=True))
        if layer.bias is not None:
            made.bias = nn.Parameter(layer.bias.detach().to(torch.float32, copy=True))
        return made

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.float(), self.weight, self.bias)


def own_heads(view: nn.Module, kind: kinds.Kind) -> None:
    """Give a model of classes a head of its own."""
    for name in HEADS.get(kind, ()):
        head = view._modules.get(name)
        if isinstance(head, nn.Linear):
            setattr(view, name, OwnLinear.of(head))
        elif head is not None:
            for path, part in list(head.named_modules()):
                if isinstance(part, nn.Linear):
                    parent, _, last = path.rpartition(".")
                    setattr(head.get_submodule(parent), last, OwnLinear.of(part))


class OwnEmbedding(nn.Embedding):
    """An embedding with its own float32 weights; ids [..] to float32 [.., H], times what the model's class multiplies
    with."""

    scale: Tensor | float | None = None

    @classmethod
    def of(cls, layer: ResidentEmbedding) -> OwnEmbedding:
        """With a copy of the weights of another one."""
        with torch.device("meta"):
            made = cls(layer.num_embeddings, layer.embedding_dim, layer.padding_idx)
        made.weight = nn.Parameter(layer.weight.to(torch.float32, copy=True))
        made.scale = layer.scale
        return made

    def forward(self, ids: Tensor) -> Tensor:
        rows = super().forward(ids)
        return rows if self.scale is None else rows * self.scale


class Shifted(nn.Module):
    """A layer whose bias moves: what has moved is added to its answers, of which the last dimension is the bias's."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.shift = nn.Parameter(torch.zeros_like(inner.bias, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner(x)
        return (answer.float() + self.shift).to(answer.dtype)


def own(view: nn.Module, roots: Sequence[nn.Module]) -> None:
    """Give these parts of a view, and all that is in them, weights of their own, which require a gradient.

    What comes into them is float32 from then on. An output layer and an embedding that are one stay one.
    """
    inside = {id(part) for root in roots for part in root.modules()}
    for path, part in list(view.named_modules()):
        if id(part) not in inside or isinstance(part, OwnLinear):
            continue
        if isinstance(part, nn.Linear | ResidentEmbedding):
            parent, _, name = path.rpartition(".")
            setattr(view.get_submodule(parent), name, _own_copy(part))
            continue
        for name, value in list(part.named_parameters(recurse=False)):
            part.register_parameter(name, nn.Parameter(value.detach().to(torch.float32, copy=True)))
    head = _outputs(view)
    if tied(view) and isinstance(head, OwnLinear):
        held: Any = view
        held.get_input_embeddings().weight = head.weight
    for root in roots:
        root.register_forward_pre_hook(_widened, with_kwargs=True)


def own_named(view: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Give parts of a view that are called so, as PEFT's `modules_to_save` has it, weights of their own; what stood
    there, by its path."""
    found: dict[str, nn.Module] = {
        path: part for path, part in view.named_modules()
        if isinstance(part, ResidentLinear | ResidentEmbedding) and any(path.endswith(name) for name in names)
    }  # fmt: skip
    for path, part in found.items():
        parent, _, name = path.rpartition(".")
        setattr(view.get_submodule(parent), name, _own_copy(part))
    return found


def _own_copy(part: nn.Module) -> nn.Module:
    return OwnEmbedding.of(part) if isinstance(part, ResidentEmbedding) else OwnLinear.of(part)


def own_all(view: nn.Module) -> None:
    """Every weight of a view moves."""
    own(view, [view])


def own_last(view: nn.Module, count: int) -> None:
    """The last layers of a view move, with the norm behind them and its output layer, where that is no embedding too.

    Raises:
        NotSupported: the model has no list of layers.
    """
    found = [(path, part) for path, part in view.named_modules() if isinstance(part, nn.ModuleList) and len(part) > 1]
    if not found:
        why = "no list of layers is found in it"
        raise NotSupported(f"last-layers: {type(view).__name__}: {why}; take full or lora", why=why)
    outermost = [each for each in found if not any(each[0].startswith(f"{other}.") for other, _ in found)]
    path, layers = outermost[-1]  # of an encoder and a decoder the decoder's
    siblings = list(view.get_submodule(path.rpartition(".")[0]).children())
    behind = siblings[next(n for n, each in enumerate(siblings) if each is layers) + 1 :]
    head = _outputs(view)
    heads = [] if head is None or tied(view) else [head]
    norms = [part for part in behind if not isinstance(part, nn.ModuleList) and any(True for _ in part.parameters())]
    own(view, [*list(layers)[-count:], *norms, *heads])
    if head is not None and not heads and not isinstance(head, ResidentLinear):  # which takes inputs of any dtype
        head.register_forward_pre_hook(_narrowed)


def own_biases(view: nn.Module) -> None:
    """What a view adds to its products and norms moves, and nothing else (BitFit, arXiv:2106.10199).

    Raises:
        NotSupported: the model adds nothing.
    """
    places = [
        path for path, part in view.named_modules()
        if isinstance(getattr(part, "bias", None), Tensor) and not isinstance(part, OwnLinear)
    ]  # fmt: skip
    if not places:
        why = "its layers have no biases"
        raise NotSupported(f"bitfit: {type(view).__name__}: {why}; take lora or last-layers", why=why)
    for path in places:
        parent, _, name = path.rpartition(".")
        setattr(view.get_submodule(parent), name, Shifted(view.get_submodule(path)))


def tied(view: Any) -> bool:
    """Whether the output layer has the weights of the embedding."""
    return _outputs(view) is not None and bool(view.config.get_text_config().tie_word_embeddings)


def _outputs(view: Any) -> Any:
    return view.get_output_embeddings() if hasattr(view, "get_output_embeddings") else None


def _narrowed(part: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    held: Any = part
    return (given[0].to(held.weight.dtype), *given[1:])


def _widened(_part: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    def wide(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(wide, value))
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(wide, given)), {name: wide(value) for name, value in named.items()}
