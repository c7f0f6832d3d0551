"""The daemon: identity, authority, admission, scheduling, supervision. No torch, no plug-ins."""

if __name__ != "llmos.kernel":
    raise ImportError("import llmos.kernel, not kernel: kernel/ is the source folder of the package llmos.kernel")
