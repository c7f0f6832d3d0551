"""The contract: every message that crosses a process boundary."""

if __name__ != "llmos.syscalls":
    raise ImportError("import llmos.syscalls, not syscalls: syscalls/ is the source folder of the package llmos.syscalls")
