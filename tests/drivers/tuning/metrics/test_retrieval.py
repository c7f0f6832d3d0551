"""Places of the right text against torchmetrics and by hand."""

from __future__ import annotations

import pytest
import torch
from llmos.drivers.tuning.metrics.retrieval import found, places
from torchmetrics.functional.retrieval import retrieval_recall, retrieval_reciprocal_rank


def test_places_and_figures_are_those_of_the_library() -> None:
    generator = torch.Generator().manual_seed(0)  # the library takes scores below 0 for texts that were not found
    scores, wanted = torch.rand(50, 12, generator=generator), torch.randint(12, (50,), generator=generator)
    at = places(scores, wanted)
    right = torch.nn.functional.one_hot(wanted, 12).bool()
    theirs = [float(retrieval_reciprocal_rank(*pair)) for pair in zip(scores, right, strict=True)]
    assert (1 / at).tolist() == pytest.approx(theirs)
    figures = found(at)
    assert figures["mrr"] == pytest.approx(sum(theirs) / 50)
    for kept in (1, 5, 10):
        recalls = [float(retrieval_recall(*pair, top_k=kept)) for pair in zip(scores, right, strict=True)]
        assert figures[f"recall_at_{kept}"] == pytest.approx(sum(recalls) / 50)


def test_equal_scores_are_no_success() -> None:
    """A model that finds all texts alike finds nothing."""
    assert places(torch.zeros(3, 4), torch.tensor([0, 1, 3])).tolist() == [4, 4, 4]
    assert places(torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([1])).tolist() == [2]
