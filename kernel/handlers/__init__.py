"""One module per file of calls: what each syscall does."""

from . import device, files, inference, model, monitor, objects, session, tasks, tuning
from .registry import HANDLERS

__all__ = ["HANDLERS", "device", "files", "inference", "model", "monitor", "objects", "session", "tasks", "tuning"]
