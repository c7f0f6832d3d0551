"""What a host keeps of its models."""

from __future__ import annotations

from llmos.drivers.held import bytes_of
from llmos.syscalls.driver import LocalFile, Located


def test_the_files_of_a_draft_model_count_too() -> None:
    small = Located(path="/d", version="1", files=[LocalFile(name="w", path="/w", bytes=3)])
    both = Located(path="/m", version="1", files=[LocalFile(name="v", path="/v", bytes=4)] * 2, draft=small)
    assert (bytes_of(small), bytes_of(both)) == (3, 11)
