"""Every kind of source that the documentation names has somebody who brings it."""

from __future__ import annotations

from llmos.drivers.filesystems.models.bring.folder import fill
from llmos.drivers.filesystems.models.bring.kinds import FILLERS


def test_plain_files_are_copied() -> None:
    assert FILLERS.files is fill
