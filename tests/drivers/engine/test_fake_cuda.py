"""Steps of causal models on a GPU without numbers: everything is made there, and nothing is asked of it."""

from __future__ import annotations

import pytest
import torch
from fake_cuda import DEVICE, FakeCuda, fake_module, shaped_ops

from llmos.drivers.engine import attention
from llmos.drivers.engine.paged import PagedModel, layers_of
from llmos.drivers.engine.pages import PagePool
from llmos.drivers.engine.steps import Row, RowStep, StepPlan


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2"])
def test_a_step_stays_on_the_gpu_and_never_waits_for_it(name: str) -> None:
    with FakeCuda() as gpu, torch.inference_mode():
        module = fake_module(name)
        module.set_attn_implementation(attention.NAME)
        layers = layers_of(module, 128)
        pool = PagePool(layers.shapes, 8, torch.bfloat16, device="cuda")
        model = PagedModel(module, layers, pool, shaped_ops())
        gpu.crossings.clear()
        decoded = RowStep(Row("a", [1, 2, 3], pages=[1]), 2, 1, 1)
        prompt = RowStep(Row("b", [1, 2, 3, 4], pages=[2]), 0, 4, 1)
        logits = model.run(StepPlan([decoded, prompt]))
        assert logits.device == DEVICE and logits.shape == (2, 320)
        assert not gpu.to_host()


def test_what_a_gpu_refuses_or_waits_for_is_seen() -> None:
    with FakeCuda() as gpu:
        on_gpu, on_host = torch.empty(4, 5, device="cuda"), torch.ones(5)
        with pytest.raises(RuntimeError, match="two devices"):
            on_gpu + on_host
        for wait in (on_gpu.sum().item, on_gpu.tolist, on_gpu.sum().__bool__):
            with pytest.raises(Exception, match="_local_scalar_dense"):
                wait()
        with pytest.raises(Exception, match="nonzero"):
            on_gpu.nonzero()
        assert not gpu.crossings
        on_gpu.cpu()
        on_gpu[0] = on_host
        assert [(each.source, each.target) for each in gpu.crossings] == [("cuda", "cpu"), ("cpu", "cuda")]
        assert len(gpu.to_host()) == 1


def test_indexing_has_the_shapes_of_torch() -> None:
    plain = torch.empty(3, 4, 5)
    picked = torch.tensor([0, 2])
    indices = (0, -1, slice(1, None), None, (slice(None), 1), (..., 2), (0, ..., None), (slice(None, 2), slice(1, 3)))
    lists = ([0, 1], (slice(None), [1, 2]), (0, [1, 2], 3))
    wanted = [plain[index].shape for index in (*indices, *lists, picked, (picked, picked), (slice(None), picked))]
    with FakeCuda():
        fake, there = torch.empty(3, 4, 5, device="cuda"), torch.tensor([0, 2], device="cuda")
        found = [fake[index].shape for index in (*indices, *lists, there, (there, there), (slice(None), there))]
        fake[:, 1] = 0.0
        fake[there, 1:] = 1.0
    assert found == wanted
