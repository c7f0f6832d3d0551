"""What is interpreted has a process of its own (`test_interpreted.py`), as the flag holds for a whole process."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
