"""Bytes that a tuning job takes, before any of them is there.

One pass of the largest micro-batch is gone through on tensors without content (torch's FakeTensorMode), forwards and
backwards, and what lives at once is counted. So no architecture, method or objective needs a formula of its own. What
a run's path depends on (tokens, masks, labels) is small and real.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from transformers.modeling_outputs import BaseModelOutput

from ..contract import Row
from . import aids, optimizing, passes
from .data.batches import Batch
from .objectives.protocol import Objective
from .recipe import Recipe
from .words import PROMPTS

_MASKED = ("aten.index.Tensor", "aten.index_put_.default", "aten.index_put.default", "aten._index_put_impl_.default")
"""Operators whose places may be given as a mask, of which the answer's shape depends on the content."""

_TRIED = (2, 4)
"""How many layers are gone through where all are alike."""


@dataclass(frozen=True)
class Bytes:
    """What a job takes beside the model.

    Attributes:
        trainable: weights that move.
        gradients: of these.
        states: the optimizer's, and what else is kept of each weight.
        best: the copy that `early_stopping` keeps.
        activations: the most that lives at once in a pass beside gradients.
        updating: the most that an update needs beside gradients.
        writing: the most that lives at once while answers are written, when there are no gradients.
    """

    trainable: int
    gradients: int
    states: int
    best: int
    activations: int
    updating: int
    writing: int = 0

    @property
    def total(self) -> int:
        """The most at any time."""
        kept = self.trainable + self.gradients + self.states + self.best
        return kept + max(self.activations, self.updating, self.writing - self.gradients)

    def rows(self, owner: str, device: str = "") -> tuple[Row, ...]:
        """As the device's ledger has it."""
        return (Row("tuning", owner, predicted=self.total, device=device),)

    def facts(self) -> Mapping[str, int]:
        """By name, the total too."""
        return {**dataclasses.asdict(self), "total": self.total}


def plan(
    module: nn.Module, objective: Objective, recipe: Recipe, batches: Sequence[Batch], scratch: int = 0,
    prompts: Mapping[str, Tensor] | None = None,
) -> Bytes:  # fmt: skip
    """What training will take at most.

    Args:
        module: the model with what is trained around it, on the meta device, in the dtypes it computes with. It is
            used up: its tensors are replaced by others without content.
        objective: what is learnt.
        recipe: of which accumulation, early_stopping and gradient_checkpointing count.
        batches: the largest micro-batch of each task, with content.
        scratch: bytes that a product takes for itself on the way back, apart from its answer.
        prompts: the largest ones that are answered at once, as the module gets them; None for no answers.

    Raises:
        BadArgument: as `train`: nothing is trainable, or not in float32.
    """
    moving = optimizing.trainable(module)
    if recipe.gradient_checkpointing:
        aids.save_memory(module)
    size = sum(value.nbytes for value in moving.values())
    largest = max(value.nbytes for value in moving.values())
    most = max(_most_of_a_pass(module, objective, batch, recipe, scratch) for batch in batches)
    answered = _most_of_answers(module, recipe, prompts) if prompts is not None else 0
    held = 2 * size if recipe.earlier is not None and recipe.earlier.ewc else 0
    return Bytes(
        trainable=size, gradients=size, states=2 * size + 4 * len(moving) + held,
        best=size if recipe.early_stopping else 0,
        activations=max(0, most - size), updating=2 * largest,
        writing=answered + scratch if answered else 0,
    )  # fmt: skip


def _most_of_a_pass(module: nn.Module, objective: Objective, batch: Batch, recipe: Recipe, scratch: int) -> int:
    """The most bytes that live at once, gradients included; where several micro-batches make a step, with those of one
    there before. `scratch` comes to what lives on the way back.
    """
    every = recipe.teacher is not None and bool(recipe.teacher.layers)
    return _of_layers(module, lambda: _counted(module, objective, batch, recipe, scratch), every)


def _most_of_answers(module: nn.Module, recipe: Recipe, prompts: Mapping[str, Tensor]) -> int:
    """The most bytes that live at once while answers to prompts are written: while they are read, or at the last token,
    when what is kept of a text is longest."""
    assert recipe.generate is not None
    asked = recipe.generate
    return _of_layers(module, lambda: _answered(module, recipe, prompts, asked.tokens))


def _of_layers(module: nn.Module, counted: Callable[[], int], every: bool = False) -> int:
    """What is counted of a module. Many layers that are alike are not all gone through, unless `every`: each takes as
    much as the one before."""
    layers = alike(module)
    if layers is None or len(layers) <= _TRIED[1] or every:
        return counted()
    whole, few = list(layers), []
    for count in _TRIED:
        del layers[:]
        layers.extend(whole[:count])
        few.append(counted())
    layers.extend(whole[_TRIED[1] :])
    return few[1] + (len(whole) - _TRIED[1]) * (few[1] - few[0]) // (_TRIED[1] - _TRIED[0])


def alike(module: nn.Module) -> nn.ModuleList | None:
    """The model's layers, where there is one list of them and they differ in nothing but what their weights hold."""
    found: dict[str, nn.ModuleList] = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in found):
            forms = {
                tuple((key, value.shape, value.dtype, value.requires_grad) for key, value in layer.named_parameters())
                for layer in part
            }  # fmt: skip
            if len(part) > 1 and len(forms) > 1:
                return None
            found[name] = part
    layers = [part for part in found.values() if len(part) > 1]
    return layers[0] if len(layers) == 1 else None


def _counted(module: nn.Module, objective: Objective, batch: Batch, recipe: Recipe, scratch: int) -> int:
    module.train()
    with torch.random.fork_rng(devices=()):
        prepared = objective.prepare(batch, training=True)
    backward = passes.backward_of(recipe, objective)
    weight = objective.weight(prepared) or 1.0
    with FakeTensorMode(allow_non_fake_inputs=True):
        every = (module, *getattr(objective, "beside", ()))
        for each in every:
            _hollow(each)
        with torch.random.fork_rng(devices=()), Living(*every) as living, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The .grad attribute")  # of sums that have content, which torch looks at
            for _ in range(2 if recipe.accumulation > 1 else 1):
                backward(module, prepared, weight)
    for parameter in module.parameters():
        parameter.grad = None
    return int(max(living.most, living.back + scratch))


def _answered(module: nn.Module, recipe: Recipe, prompts: Mapping[str, Tensor], tokens: int) -> int:
    """Prompts are read, and one token is, behind them and all but the last of an answer."""
    module.eval()
    rows, length = prompts["input_ids"].shape
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        _hollow(module)
        with Living(module) as living:
            if recipe.method in PROMPTS:
                module(input_ids=_ids(rows, length + tokens - 1), use_cache=False)
                return int(living.most)
            whole: Any = module.get_base_model() if isinstance(module, PeftModel) else module
            last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(whole.forward).parameters else {}
            if whole.config.is_encoder_decoder:
                first, late, then = ({**prompts, "decoder_input_ids": _ids(rows, n)} for n in (1, tokens - 1, 1))
            else:
                first, late = dict(prompts), _text(rows, length + tokens - 2)
                then = {**_text(rows, length + tokens - 1), "input_ids": _ids(rows, 1)}
            _scored(whole, **first, **last)
            most = living.most
            begun = whole(**late, **last, use_cache=True) if tokens > 1 else {}
            kept, encoded = begun.get("past_key_values"), begun.get("encoder_last_hidden_state")
            del begun
            if kept is not None:
                living.most = living.now
                beside = {} if encoded is None else {"encoder_outputs": BaseModelOutput(last_hidden_state=encoded)}
                _scored(whole, **then, **beside, **last, past_key_values=kept)
            return int(max(most, living.most if kept is not None else 0))


def _scored(whole: Any, **given: Any) -> None:
    """A pass, and the copy of the last token's scores that `generate` makes while the answer is there."""
    answer = whole(**given, use_cache=True)
    answer.logits[:, -1].to(copy=True, dtype=torch.float32)


def _ids(rows: int, length: int) -> Tensor:
    return torch.zeros(rows, length, dtype=torch.int64)


def _text(rows: int, length: int) -> dict[str, Tensor]:
    """Tokens, whichever."""
    ids = _ids(rows, length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _hollow(module: nn.Module) -> None:
    """Put tensors without content in the place of a module's; buffers of integers become zeros."""
    made: dict[int, Tensor] = {}

    def of(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
        with unset_fake_temporarily():
            return torch.zeros(tensor.shape, dtype=tensor.dtype)

    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                new = made.get(id(parameter))
                if new is None:
                    new = made[id(parameter)] = nn.Parameter(of(parameter), requires_grad=parameter.requires_grad)
                part._parameters[name] = new  # type: ignore[assignment]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = of(buffer)


class Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are made inside it: `now` of those that live, `most` at once, `back` at once
    while gradients are made.

    Inside torch's FakeTensorMode: what has only operands with content is computed as ever. Those of `modules` were
    there before.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = self.back = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                self._note(tensor, counted=False)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if any(isinstance(value, FakeTensor) for value in tree_iter((args, given))):
            if str(func) == "aten.index_put.default" and not torch.is_grad_enabled():
                func = torch.ops.aten.index_put_.default  # torch's own gradient of a choice, outside of any mode
            answer = func(*_with_places(func, args), **given)
            if str(func) == "aten.topk.default":
                answer = (answer[0], _spread(answer[1], args[0].shape[-1]))
        else:
            with unset_fake_temporarily():
                answer = func(*args, **given)
        tree_map_only(Tensor, self._note, answer)
        return answer

    def _note(self, tensor: Tensor, counted: bool = True) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes() if counted else 0
        if key in self._known:
            return
        self._known[key] = weakref.ref(storage, partial(self._gone, key, size))
        self.now += size
        self.most = max(self.most, self.now)
        if torch._C._current_graph_task_id() >= 0:  # within a backward pass
            self.back = max(self.back, self.now)

    def _gone(self, key: int, size: int, _: object) -> None:
        del self._known[key]
        self.now -= size


def _with_places(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments with places as numbers where a real mask says which: the shape is then known."""
    if str(func) not in _MASKED:
        return args
    places: list[Tensor | None] = []
    for index in args[1]:
        if isinstance(index, Tensor) and index.dtype == torch.bool and not isinstance(index, FakeTensor):
            with unset_fake_temporarily():
                places += index.nonzero().unbind(-1)
        else:
            places.append(index)
    return (args[0], places, *args[2:])


def _spread(chosen: Tensor, count: int) -> Tensor:
    """Choices among `count` that are as even as can be, such as experts, with content."""
    with unset_fake_temporarily():
        return (torch.arange(math.prod(chosen.shape)) % count).view(tuple(chosen.shape))
