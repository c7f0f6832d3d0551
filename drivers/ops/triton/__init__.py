"""Ops in Triton, for CUDA devices; tests run them in Triton's interpreter on the processor."""
