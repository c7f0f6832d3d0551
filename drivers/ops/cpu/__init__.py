"""Ops for the CPU in C++: AVX-512, one thread pool with torch, bound by ctypes."""
