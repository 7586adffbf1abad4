"""The way in: an action from the edge becomes a task, a look at one, its end, or a push."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import assert_never

import structlog

from actors.counters import Counters
from actors.loop_actor import LoopActor
from common.domain.actions import (
    ChatAction,
    ChatCancelTaskAction,
    ChatGetStatusAction,
    ChatSendMessageAction,
    PushAction,
    WebSocketBroadcastAction,
    WebSocketSendAction,
)
from common.domain.errors import AgentNotFound, InternalError, OrchestratorError
from common.domain.tasks import CancelOutcome, Submitted, Task
from common.failpoints import failpoint
from common.queues.actions import ActionQueue
from common.queues.session_log import SessionLog
from common.queues.submissions import Submissions
from common.queues.tasks import TaskStore
from config.settings import AgentSettings

log = structlog.get_logger(__name__)

Answer = Submitted | Task | CancelOutcome | str
_Single = ChatGetStatusAction | ChatCancelTaskAction | PushAction


class ChatRouterActor(LoopActor):
    """Turns actions into work for the Agent Execution Service, or into events of a session.

    Receives the Domain Actions; answers `Submitted`, `Task`, `CancelOutcome`, or a push's
    `action_id`. A send is answered only once its task is in Redis. All that waits is handled at
    once: the sends of a batch share their round trips, and no action waits for one that fails.
    One that fails for a mistake of ours is answered with `InternalError`, and recorded.
    """

    mailbox_size = 5000

    def __init__(
        self,
        submissions: Submissions,
        tasks: TaskStore,
        session_log: SessionLog,
        pushes: ActionQueue,
        agents: Mapping[str, AgentSettings],
        counters: Counters,
    ) -> None:
        super().__init__()
        self._submissions = submissions
        self._tasks = tasks
        self._session_log = session_log
        self._pushes = pushes
        self._agents = agents
        self._counters = counters

    def on_start(self) -> None:
        failpoint("chat_router.on_start")

    async def on_batch(
        self, actions: Sequence[ChatAction | PushAction]
    ) -> list[Answer | OrchestratorError]:
        failpoint("chat_router.on_batch")
        sends = [action for action in actions if isinstance(action, ChatSendMessageAction)]
        others = [action for action in actions if not isinstance(action, ChatSendMessageAction)]
        sent, answered = await asyncio.gather(
            self._send_all(sends), asyncio.gather(*map(self._try, others))
        )
        of_sends, of_others = iter(sent), iter(answered)
        return [
            next(of_sends) if isinstance(action, ChatSendMessageAction) else next(of_others)
            for action in actions
        ]

    async def _try(self, action: _Single) -> Answer | OrchestratorError:
        """One action's answer or refusal, so that it concerns nobody else in the batch."""
        try:
            return await self._answer(action)
        except OrchestratorError as error:
            return error
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this action's
            self.contain(error, action)
            return InternalError()

    async def _send_all(
        self, actions: Sequence[ChatSendMessageAction]
    ) -> Sequence[Submitted | OrchestratorError]:
        try:
            return await self._send(actions)
        except OrchestratorError as error:  # Redis is away: none is known to be taken
            return [error] * len(actions)
        except Exception as error:  # noqa: BLE001  # of one of them, perhaps
            if len(actions) == 1:
                self.contain(error, *actions)
                return [InternalError()]
        # Submitting again those that were taken changes nothing.
        return [(await self._send_all([action]))[0] for action in actions]

    async def _answer(self, action: _Single) -> Answer:
        failpoint("chat_router.before_answer")
        match action:
            case ChatGetStatusAction():
                return await self._tasks.get(action.tenant_id, action.task_id, action.within)
            case ChatCancelTaskAction():
                return await self._tasks.cancel(action)
            case WebSocketSendAction():
                await self._session_log.push(action)
                return action.action_id
            case WebSocketBroadcastAction():
                await self._pushes.broadcast(action)
                return action.action_id
            case _:
                assert_never(action)

    async def _send(
        self, actions: Sequence[ChatSendMessageAction]
    ) -> list[Submitted | OrchestratorError]:
        refused = {i: AgentNotFound() for i, each in enumerate(actions) if not self._serves(each)}
        taken = [action for i, action in enumerate(actions) if i not in refused]
        outcomes = iter(await self._submissions.submit(taken))
        failpoint("chat_router.after_submit")
        answers = [refused.get(i) or next(outcomes) for i in range(len(actions))]
        self._counters.messages_refused.update(
            answer.code for answer in answers if isinstance(answer, OrchestratorError)
        )
        await self._set_out(
            [
                (action, self._count(answer))
                for action, answer in zip(actions, answers, strict=True)
                if isinstance(answer, Submitted)
            ]
        )
        return answers

    async def _set_out(self, taken: Sequence[tuple[ChatSendMessageAction, Submitted]]) -> None:
        """Hands new tasks on. They are safe already: if this fails, a sweep does it soon."""
        try:
            await self._submissions.set_out(taken)
        except OrchestratorError as error:
            log.warning("delivery.postponed", tasks=len(taken), error=error.code)
        except Exception as error:  # noqa: BLE001  # the senders are not to be told otherwise
            self.contain(error, *(action for action, _ in taken))

    def _serves(self, action: ChatSendMessageAction) -> bool:
        """Whether the agent exists for the tenant; without configured agents, any does."""
        if not self._agents:
            return True
        agent = self._agents.get(action.agent_id)
        return agent is not None and (agent.tenants is None or action.tenant_id in agent.tenants)

    def _count(self, submitted: Submitted) -> Submitted:
        if submitted.replayed:
            self._counters.messages_replayed += 1
        else:
            self._counters.messages_accepted += 1
        return submitted
