"""The process of one other rank: `python -m llmos.drivers.engine.parallel.rank FD`, started by the host process.

It is bound to the host before anything large is imported: from its first moment it ends with it.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from ...parent import end_with_parent


def main(argv: Sequence[str] | None = None) -> int:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kernel decides what it means
    parser = argparse.ArgumentParser(prog="python -m llmos.drivers.engine.parallel.rank")
    parser.add_argument("fd", type=int, help="this end of the host's socket pair")
    arguments = parser.parse_args(argv)
    from .member import serve

    return serve(arguments.fd)


if __name__ == "__main__":
    sys.exit(main())
