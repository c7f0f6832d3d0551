"""The gateway: programs that speak HTTP reach the same syscalls, as OpenAI, Ollama, KServe or our own REST."""
