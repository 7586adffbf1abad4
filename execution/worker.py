"""The worker that any Python project can use:

    from execution import Worker

    worker = Worker()

    @worker.agent("shout")
    async def shout(task):
        for word in task.message.split():
            yield word.upper() + " "

and then `python -m execution --agents my_module`, or `await worker.run(WorkerSettings(...))`.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from common.domain.ids import is_outside_id
from execution.attempt import Agent
from execution.runner import Runner
from execution.settings import WorkerSettings

A = TypeVar("A", bound=Agent)


class Worker:
    """Knows agents by name, and runs them."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()

    @property
    def agents(self) -> Mapping[str, Agent]:
        return MappingProxyType(self._agents)

    def agent(self, name: str) -> Callable[[A], A]:
        """Makes the decorated async generator function the agent of that name.

        Raises:
            ValueError: if the name is taken, or no `agent_id` (contract, section 1).
            TypeError: if it is no async generator function.
        """

        def register(function: A) -> A:
            self._add(name, function)
            return function

        return register

    def include(self, other: "Worker") -> None:
        """Takes over the agents of another worker. Raises ValueError if a name is taken."""
        for name, function in other.agents.items():
            self._add(name, function)

    def _add(self, name: str, function: Agent) -> None:
        if not is_outside_id(name):
            raise ValueError(f"{name!r} cannot be the name of an agent")
        if name in self._agents:
            raise ValueError(f"there are two agents named {name!r}")
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise TypeError(f"agent {name!r} must be an async generator function: it must yield")
        self._agents[name] = function

    async def run(self, settings: WorkerSettings | None = None) -> None:
        """Runs tasks until `stop`. Once for each Worker.

        Raises ValueError if the Redis URL cannot be read, RedisRefused if Redis will not have us.
        """
        runner = Runner(self.agents, settings or WorkerSettings())
        await runner.run(self._stopping, self._hurrying)

    def stop(self) -> None:
        """Takes no more tasks, lets the running ones finish, gives back what does not.

        Asked a second time, it gives them back at once.
        """
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()
