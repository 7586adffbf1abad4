"""The Agent Execution Service: a worker, and agents for it; see `worker.py` to plug one in."""

from execution.outputs import (
    Delta,
    Event,
    Failed,
    InvalidOutput,
    Output,
    Progress,
    Result,
    Retryable,
    Typing,
    Usage,
)
from execution.settings import WorkerSettings
from execution.task import Task, Turn
from execution.worker import Worker

__all__ = [
    "Delta",
    "Event",
    "Failed",
    "InvalidOutput",
    "Output",
    "Progress",
    "Result",
    "Retryable",
    "Task",
    "Turn",
    "Typing",
    "Usage",
    "Worker",
    "WorkerSettings",
]
