"""Runs transformers models; knows nothing of processes, sockets or syscalls."""
