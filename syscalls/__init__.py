"""The contract: every message that crosses a process boundary."""

if __name__ != "llmos.syscalls":
    raise ImportError("import llmos.syscalls, not syscalls: the folder syscalls/ is the source of llmos.syscalls")
