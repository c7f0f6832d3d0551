"""Client, embedding, shell, programs. Never torch."""

if __name__ != "llmos.userland":
    raise ImportError("import llmos.userland, not userland: userland/ is the source folder of the package llmos.userland")
