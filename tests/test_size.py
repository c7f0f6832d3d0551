"""Files stay small: a file that grows past the limit is usually two ideas. `make size` prints the totals."""

from __future__ import annotations

import sys

from sources import FOLDERS, ROOT, modules

LIMIT = 420


def lines(folder: str) -> dict[str, int]:
    return {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules(folder)}


def test_no_source_file_is_longer_than_the_limit() -> None:
    long = {name: count for folder in FOLDERS for name, count in lines(folder).items() if count > LIMIT}
    assert not long, f"over {LIMIT} lines; split by idea: {long}"


def test_no_test_file_is_longer_than_twice_the_limit() -> None:
    long = {name: count for name, count in lines("tests").items() if count > 2 * LIMIT}
    assert not long, f"over {2 * LIMIT} lines; split by subject: {long}"


if __name__ == "__main__":
    everything = {folder: lines(folder) for folder in (*FOLDERS, "tests")}
    for folder, files in everything.items():
        largest = max(files, key=lambda name: files[name])
        total = f"{sum(files.values()):7} lines  {len(files):4} files  {folder:10}"
        sys.stdout.write(f"{total} largest {largest} ({files[largest]})\n")
    product = sum(sum(everything[folder].values()) for folder in FOLDERS)
    sys.stdout.write(f"{product:7} lines in the four folders\n")
