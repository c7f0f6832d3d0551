"""Places with shares: what stays on the processor keeps no more than the share, and plans count all ranks."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from llmos.drivers.engine.memory import live_bytes, tensors_of
from llmos.drivers.engine.parallel.divided import HostPlace, RankPlace
from llmos.drivers.engine.parallel.ranks import Crew, Ranks
from llmos.drivers.engine.parallel.team import Planned
from llmos.drivers.engine.place import PROCESSOR, Place
from tiny_models import config_of, random_module


def test_a_rank_keeps_only_its_share_and_waits_for_the_others() -> None:
    module = random_module(config_of("llama"))
    whole = live_bytes(tensors_of(module))
    embeddings = module.get_input_embeddings().weight.nbytes
    waited: list[bool] = []
    place: Place = RankPlace(PROCESSOR, Planned(2), lambda: waited.append(True))
    assert place.divide(module, "m") == 2
    assert waited == [True]
    assert live_bytes(tensors_of(module)) < embeddings + 0.51 * (whole - embeddings)
    assert all(part.is_contiguous() for part in module.parameters())


def test_a_plan_is_divided_without_ranks() -> None:
    place: Place = HostPlace(PROCESSOR, Ranks(Crew(2, "", "cpu0", 1, {}, torch.device("cpu"))))
    with torch.device("meta"):
        module: Any = transformers.AutoModelForCausalLM.from_config(config_of("llama"))
    assert place.divide(module, "m") == 2
    assert module.model.layers[0].mlp.up_proj.out_features == 64
    assert place.capture("m") is None
    assert place.rest((), ()) is None
    assert place.pages(128, 1, 0) == PROCESSOR.pages(128, 1, 0)
    assert place.free_bytes() > 0
