"""A program that takes and gives back memory when it is told to: a number of bytes a line; answers when it has it."""

from __future__ import annotations

import sys


def main() -> None:
    held: list[bytearray] = []
    for line in sys.stdin:
        more = int(line) - sum(map(len, held))
        if more < 0:
            held, more = [], int(line)  # given back before the next is taken
        held.append(bytearray(b"\1") * more)  # written to, and only once in memory
        print(sum(map(len, held)), flush=True)


if __name__ == "__main__":
    main()
