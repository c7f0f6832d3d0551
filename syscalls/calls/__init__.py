"""The call table: 32 syscalls, one module per group."""

from .device import AllocBuffer, AllocGpu
from .files import ListDir, MountFs, OpenFile, ReadFile, RemovePath, SearchFs, StatPath, WriteFile
from .inference import Embed, Infer, InferStream, OpenContext
from .model import LoadModel, TransformModel, UnloadModel
from .monitor import ReadJournal, ReadMetrics, WatchEvents
from .objects import ControlObject, ListObjects, StatObject
from .session import CloseHandle, DupHandle, GrantHandle, Hello, RevokeHandle
from .tasks import CancelTask, SpawnProgram, WaitTask
from .tuning import Tune

__all__ = [
    "AllocBuffer", "AllocGpu", "CancelTask", "CloseHandle", "ControlObject", "DupHandle", "Embed", "GrantHandle",
    "Hello", "Infer", "InferStream", "ListDir", "ListObjects", "LoadModel", "MountFs", "OpenContext", "OpenFile",
    "ReadFile", "ReadJournal", "ReadMetrics", "RemovePath", "RevokeHandle", "SearchFs", "SpawnProgram",
    "StatObject", "StatPath", "TransformModel", "Tune", "UnloadModel", "WaitTask", "WatchEvents", "WriteFile",
]  # fmt: skip
