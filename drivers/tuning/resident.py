"""The model that is served, seen so that it can be trained beside: a second tree of modules over the same weights.

The tree is the library's own class, built without bytes. Its linear layers call the packed layers of the model that
serves, which know the gradient of their input; embeddings and other tensors are shared as they are. What is copied is
small: vectors that were made where autograd may not look at them. So nothing of the base is held twice, and nothing
that training does to the tree (adapters, hooks, another attention function) is seen by requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from llmos.syscalls.errors import NotSupported

from ..engine.loader import Bundle, Description, empty_module
from ..engine.lora.target import LoraTarget
from ..engine.quantized.stored import StoredEmbedding, StoredLinear
from ..engine.surgery.merged import MergedLinear, PackedEmbedding, Product, SingleLinear
from ..ops.linear import PackedLinear, Piece
from . import attention

LARGEST_COPY = 1 << 20
"""Elements: what may be copied because autograd cannot save it where it lies."""


class SharedProduct(Product):
    """A product whose inputs may be in another dtype than its weights, as mixed precision has them."""

    def _split(self, x: Tensor) -> list[Tensor]:
        return super()._split(x.to(self.packed.dtype))


class ResidentLinear(nn.Linear):
    """A frozen linear layer whose weights are another module's: for whatever looks for an `nn.Linear`, as PEFT does.

    `forward` is x [.., in_features] to [.., out_features], bias included. `weight` is a copy [out, in], made when it is
    asked for. `written`: whether answers are written into, as AdaLoRA's layers do it; they are then nobody else's.
    `described`: `weight` has the right shape, dtype and device, and no values. `between` is called between `pieces`.
    """

    written = False
    described = False
    between: Callable[[], None] | None = None

    def __init__(self, layer: nn.Module, number: int = 0, product: Product | None = None) -> None:
        nn.Module.__init__(self)
        held: Any = layer
        self.in_features, self.out_features = int(held.in_features), int(held.out_features)
        self.__dict__["_layer"] = layer  # a child of the model that serves, not of this tree
        self.__dict__["_product"] = product
        self._number = number

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        layer = self.__dict__["_layer"]
        if self.described:
            return torch.zeros((), dtype=self._dtype).expand(self.out_features, self.in_features)
        weight: Tensor = layer.weight
        return weight.detach()

    @property
    def _dtype(self) -> torch.dtype:
        """That of inputs and answers."""
        layer = self.__dict__["_layer"]
        dtype: torch.dtype = layer.packed.dtype if isinstance(layer, SingleLinear) else layer.dtype
        return dtype

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        product: Product | None = self.__dict__["_product"]
        if product is None:
            bias: Tensor | None = self.__dict__["_layer"].bias
            return bias
        whole = product.packed.bias
        return None if whole is None else torch.split(whole, list(product.packed.sizes))[self._number]

    def pieces(self) -> Iterator[Piece]:
        """The weights, some outputs at a time where they lie so; each piece is there until the next is asked for."""
        layer = self.__dict__["_layer"]
        if not isinstance(layer, SingleLinear):
            yield slice(0, self.out_features), self.weight
            return
        for piece in layer.packed.pieces():
            yield piece
            if self.between is not None:
                self.between()

    @property
    def piece(self) -> int:
        """Outputs of a piece at most."""
        layer = self.__dict__["_layer"]
        return layer.packed.piece if isinstance(layer, SingleLinear) else self.out_features

    def scratch(self, tokens: int) -> int:
        """Bytes that the gradient of an input of so many tokens takes for itself at most."""
        product: Product | None = self.__dict__["_product"]
        layer = self.__dict__["_layer"]
        packed: PackedLinear | None = product.packed if product is not None else getattr(layer, "packed", None)
        if packed is None:
            return self.in_features * self.out_features * self._dtype.itemsize
        sums = 0 if packed.piece == packed.out_features else tokens * self.in_features * (4 + self._dtype.itemsize)
        return packed.scratch + sums

    def forward(self, x: Tensor) -> Tensor:
        product: Product | None = self.__dict__["_product"]
        if product is None:
            answer: Tensor = self.__dict__["_layer"](x.to(self._dtype))
            return answer
        part = product.follow(self._number, x) if self._number else product.lead(x)
        return part.clone() if self.written else part


@contextmanager
def described(view: nn.Module) -> Iterator[None]:
    """Code that only looks at what weights are like, again and again, does not have them unpacked each time."""
    layers = [part for part in view.modules() if isinstance(part, ResidentLinear)]
    for layer in layers:
        layer.described = True
    try:
        yield
    finally:
        for layer in layers:
            layer.described = False


class ResidentEmbedding(nn.Module):
    """A frozen embedding that is another module's; ids [..] to [.., H]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        held: Any = layer
        self.num_embeddings, self.embedding_dim = int(held.num_embeddings), int(held.embedding_dim)
        self.padding_idx = held.padding_idx
        self.__dict__["_layer"] = layer

    @property
    def scale(self) -> Tensor | float | None:
        """What rows are multiplied with."""
        layer = self.__dict__["_layer"]
        found: Tensor | float | None = layer.scale if isinstance(layer, PackedEmbedding) else layer.embed_scale
        return found

    @property
    def weight(self) -> Tensor:
        """A copy [V, H]."""
        weight: Tensor = self.__dict__["_layer"].weight
        return weight.detach()

    def forward(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            rows: Tensor = self.__dict__["_layer"](ids)
        return rows


def training_view(bundle: Bundle) -> Any:
    """A module of the library's class over the weights of a loaded model, frozen, in evaluation mode.

    Raises:
        NotSupported: part of the model lies in memory in a way that cannot be trained beside; says which part and why.
    """
    view: Any = empty_module(bundle.about)
    products: dict[int, SharedProduct] = {}
    for path, part in list(view.named_modules()):
        if not _holds(part):
            continue
        theirs = _counterpart(bundle, path)
        made = _shared_layer(part, theirs, products)
        if made is None:
            _share_tensors(bundle, path, part, theirs)
        elif path:
            parent, _, name = path.rpartition(".")
            setattr(view.get_submodule(parent), name, made)
    _check_whole(bundle, view)
    if hasattr(view, "set_attn_implementation") and view.config._attn_implementation != "eager":
        view.set_attn_implementation(attention.NAME)
    return view.eval().requires_grad_(False)


def empty_view(about: Description) -> Any:
    """The same tree without bytes: layers of quantized weights are ordinary ones in it, as they are in a view."""
    view: Any = empty_module(about)
    for path, part in list(view.named_modules()):
        parent, _, name = path.rpartition(".")
        if isinstance(part, StoredLinear):
            sizes = part.in_features, part.out_features
            setattr(
                view.get_submodule(parent), name,
                nn.Linear(*sizes, part.bias is not None, device="meta", dtype=part.dtype),
            )  # fmt: skip
        elif isinstance(part, StoredEmbedding):
            sizes = part.num_embeddings, part.embedding_dim
            setattr(view.get_submodule(parent), name, nn.Embedding(*sizes, device="meta", dtype=part.head.dtype))
    return view.requires_grad_(False)


def copied_bytes(view: nn.Module, bundle: Bundle) -> int:
    """Bytes of the view that are not the model's own: what had to be copied."""
    theirs = {tensor.data_ptr() for tensor in (*bundle.module.parameters(), *bundle.module.buffers())}
    mine = {tensor.data_ptr(): tensor.nbytes for tensor in (*view.parameters(), *view.buffers())}
    return sum(size for address, size in mine.items() if address not in theirs)


def _holds(part: nn.Module) -> bool:
    """Whether a module has tensors of its own, which it needs a counterpart for."""
    own = (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
    return bool(own) or isinstance(part, StoredEmbedding)


def _counterpart(bundle: Bundle, path: str) -> nn.Module:
    """What stands for a module in the model that serves, without the adapters around it."""
    try:
        found: nn.Module = bundle.module.get_submodule(path)
    except AttributeError:
        raise _refused(bundle, path, "it was made part of something else when it was loaded") from None
    while isinstance(found, LoraTarget):
        found = found.base
    return found


def _shared_layer(part: nn.Module, theirs: nn.Module, products: dict[int, SharedProduct]) -> nn.Module | None:
    if isinstance(part, nn.Linear | StoredLinear):
        if isinstance(theirs, MergedLinear):
            held = theirs.product
            product = products.setdefault(id(held), SharedProduct(held.packed))
            return ResidentLinear(theirs, theirs.number, product)
        return ResidentLinear(theirs) if isinstance(theirs, SingleLinear | StoredLinear) else None
    if isinstance(part, nn.Embedding | StoredEmbedding):
        return ResidentEmbedding(theirs) if isinstance(theirs, PackedEmbedding | StoredEmbedding) else None
    return None


def _share_tensors(bundle: Bundle, path: str, part: nn.Module, theirs: nn.Module) -> None:
    """Put the tensors that a module holds itself in the place of those without bytes."""
    for name, empty in [*part.named_parameters(recurse=False)]:
        found = getattr(theirs, name, None)
        if not isinstance(found, Tensor) or found.shape != empty.shape:
            raise _refused(bundle, f"{path}.{name}".lstrip("."), "its weights lie in memory in another order")
        part.register_parameter(name, nn.Parameter(_usable(bundle, path, part, found), requires_grad=False))
    for name, buffer in [*part.named_buffers(recurse=False)]:
        found = getattr(theirs, name, None)
        if not isinstance(found, Tensor):
            raise _refused(bundle, f"{path}.{name}".lstrip("."), "it has no counterpart in the model that serves")
        lasting = name not in part._non_persistent_buffers_set
        part.register_buffer(name, _usable(bundle, path, part, found) if buffer is not None else None, lasting)


def _usable(bundle: Bundle, path: str, part: nn.Module, tensor: Tensor) -> Tensor:
    """The same tensor, or a copy where autograd could not save it for a backward pass."""
    if not tensor.is_inference() or isinstance(part, nn.Embedding):
        return tensor.detach()
    if tensor.numel() > LARGEST_COPY:
        raise _refused(bundle, path, "its weights were made without a gradient in mind, and are too large to copy")
    return tensor.detach().clone()


def _check_whole(bundle: Bundle, view: nn.Module) -> None:
    for name, tensor in (*view.named_parameters(), *view.named_buffers()):
        if tensor.is_meta:
            raise _refused(bundle, name, "it has no counterpart in the model that serves")


def _refused(bundle: Bundle, path: str, why: str) -> NotSupported:
    said = f"{bundle.about.architecture} cannot be tuned where it serves: {path or 'the whole model'}: {why}"
    return NotSupported(said, why=why)
