"""What every implementation refuses."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.ops.checks import mismatch, no_gradient
from llmos.syscalls.errors import NotSupported


def test_a_gradient_that_would_be_lost_is_refused() -> None:
    x = torch.zeros(1, requires_grad=True)
    with pytest.raises(NotSupported, match="rope has no gradient"):
        no_gradient("rope", None, x)
    with torch.no_grad():
        no_gradient("rope", x)
    assert str(mismatch("rope", "q", 1, 2)) == "rope: q is 1; expected 2"
