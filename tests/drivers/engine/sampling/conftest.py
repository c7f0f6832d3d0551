"""What tests of choosing tokens share."""

from __future__ import annotations

import pytest

from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.loader import Bundle


@pytest.fixture(scope="session")
def vocabulary(bundle: Bundle) -> Vocabulary:
    return Vocabulary(bundle.tokenizer)
