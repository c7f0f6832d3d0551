"""A program that takes and gives back memory when it is told to: a number of bytes a line; answers when it has it."""

from __future__ import annotations

import sys


def main() -> None:
    held = bytearray()
    for line in sys.stdin:
        held = bytearray()  # given back before the next is taken
        held = bytearray(b"\1") * int(line)  # written to, and only once in memory
        print(len(held), flush=True)


if __name__ == "__main__":
    main()
