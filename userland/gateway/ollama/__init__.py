"""The routes that programs written for Ollama use."""
