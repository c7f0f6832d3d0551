"""Everything that may crash: hosts, devices, engine, filesystems."""

if __name__ != "llmos.drivers":
    raise ImportError("import llmos.drivers, not drivers: drivers/ is the source folder of the package llmos.drivers")
