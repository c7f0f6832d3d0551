"""What a GPU does: kernels checked and timed, the engine beside its peers and its aims. `make bench-gpu`."""
