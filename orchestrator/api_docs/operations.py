"""Every address with what it takes and answers, in the order of the contract's section 3."""

from common.domain import errors
from orchestrator.api_docs import answers
from orchestrator.api_docs import parameters as given
from orchestrator.api_docs.examples import (
    ACCEPTED,
    BROADCAST,
    CANCEL,
    EVENTS,
    PUSH,
    SEND,
    STATUS,
    TASK,
    UUID,
)
from orchestrator.api_docs.operation import Answer, Operation
from orchestrator.http import chat, dead_letters, documents, operations, push, sessions, usage

STORE = (errors.RedisUnavailable, errors.Overloaded)
WORK = (*STORE, errors.Draining)
LIMITS = (errors.RateLimited, errors.QuotaExceeded, errors.QueueFull)

CHAT = [
    Operation(
        tag="Chat",
        method="post",
        path="/api/chat/send",
        handler=chat.SendHandler,
        summary="Send a message to an agent",
        text="202 is sent only once the task is safely in Redis, and is never taken back.",
        body="SendMessage",
        examples=SEND,
        parameters=(given.IDEMPOTENCY_KEY, given.TRACEPARENT),
        answers={
            202: Answer(
                "Taken, now or by an earlier request with the same `Idempotency-Key`.",
                answers.Accepted,
                ACCEPTED,
                headers=("Idempotent-Replayed",),
            )
        },
        errors=(
            *(errors.AgentNotFound, errors.IdempotencyConflict, errors.SessionBusy),
            *(*LIMITS, *WORK),
        ),
    ),
    Operation(
        tag="Chat",
        method="post",
        path="/api/chat/status",
        handler=chat.StatusHandler,
        summary="Ask how a task is doing",
        body="GetStatus",
        examples=TASK,
        answers={200: Answer("What is known of it.", answers.TaskState, STATUS)},
        errors=(errors.TaskNotFound, *WORK),
    ),
    Operation(
        tag="Chat",
        method="post",
        path="/api/chat/cancel",
        handler=chat.CancelHandler,
        summary="Stop a task",
        body="CancelTask",
        examples=CANCEL,
        answers={
            200: Answer(
                "It has ended as cancelled.",
                answers.Cancelled,
                {"task_id": UUID, "status": "cancelled"},
            ),
            202: Answer(
                "It runs, and a worker is told to stop.",
                answers.Cancelled,
                {"task_id": UUID, "status": "cancelling"},
            ),
        },
        errors=(errors.TaskNotFound, errors.TaskAlreadyFinished, *WORK),
    ),
    Operation(
        tag="Chat",
        method="get",
        path="/api/sessions/{tenant_id}/{session_id}/events",
        handler=sessions.EventsHandler,
        summary="Read a session's log, or follow it as server-sent events",
        text=(
            "With `Accept: text/event-stream` first what is kept, then live: a `connection_ack`"
            " without id, then `id: EPOCH:OFFSET`, `event: TYPE`, `data: FRAME`."
        ),
        parameters=(
            *(given.TENANT, given.SESSION, *given.RESUME, given.limit(), given.COMPACT),
            *(given.TOKEN, given.LAST_EVENT_ID),
        ),
        answers={
            200: Answer(
                "What came after `offset`; `next_offset` is what to pass next.",
                answers.Events,
                EVENTS,
                media_types=("application/json", "text/event-stream"),
            )
        },
        errors=(errors.EpochChanged, errors.RateLimited, *WORK),
    ),
]

PUSHES = [
    Operation(
        tag="Pushes",
        method="post",
        path="/api/ws/send",
        handler=push.PushHandler,
        summary="Push an event into a session, kept in its log",
        body="Push",
        examples=PUSH,
        answers={202: Answer("Taken.", answers.Pushed, {"action_id": UUID})},
        errors=WORK,
    ),
    Operation(
        tag="Pushes",
        method="post",
        path="/api/ws/broadcast",
        handler=push.BroadcastHandler,
        summary="Tell all who are connected, or the sessions named; kept nowhere",
        body="Broadcast",
        examples=BROADCAST,
        answers={202: Answer("Taken.", answers.Pushed, {"action_id": UUID})},
        errors=WORK,
    ),
]

OPERATIONS = [
    Operation(
        tag="Operations",
        method="get",
        path="/health",
        handler=operations.HealthHandler,
        summary="The process lives",
        answers={200: Answer("It does.", answers.Health)},
    ),
    Operation(
        tag="Operations",
        method="get",
        path="/health/ready",
        handler=operations.ReadyHandler,
        summary="Whether traffic may be sent here",
        answers={200: Answer("It may.", answers.Ready, {"status": "ready"})},
        errors=WORK,
    ),
    Operation(
        tag="Operations",
        method="get",
        path="/health/detailed",
        handler=operations.DetailedHealthHandler,
        summary="Each part by itself",
        answers={
            200: Answer("`healthy`, or `degraded` and serving.", answers.DetailedHealth),
            503: Answer("`unhealthy`.", answers.DetailedHealth),
        },
    ),
    Operation(
        tag="Operations",
        method="get",
        path="/ws/stats",
        handler=operations.StatsHandler,
        summary="Connections, here and of all instances",
        answers={200: Answer("Counts.", answers.Stats)},
    ),
    Operation(
        tag="Operations",
        method="get",
        path="/metrics",
        handler=operations.MetricsHandler,
        summary="What Prometheus reads",
        answers={200: Answer("Prometheus text.", media_types=("text/plain",))},
    ),
    Operation(
        tag="Operations",
        method="get",
        path="/actors",
        handler=operations.ActorsHandler,
        summary="The supervision tree",
        answers={200: Answer("Its root.", answers.Actor)},
        errors=WORK,
    ),
    Operation(
        tag="Operations",
        method="get",
        path="/actors/supervision",
        handler=operations.SupervisionHandler,
        summary="What happened to actors, the newest first",
        parameters=(given.limit(),),
        answers={200: Answer("Events.", answers.SupervisionEvents)},
    ),
]

LETTERS = [
    Operation(
        tag="Dead letters",
        method="get",
        path="/dead-letters/{queue}",
        handler=dead_letters.LettersHandler,
        summary="What could not be used, the newest first",
        parameters=(given.QUEUE, given.limit()),
        answers={200: Answer("Letters.", answers.Letters)},
        errors=(errors.NotFound, *STORE),
    ),
    Operation(
        tag="Dead letters",
        method="delete",
        path="/dead-letters/{queue}/{id}",
        handler=dead_letters.LetterHandler,
        summary="Throw a letter away",
        parameters=(given.QUEUE, given.LETTER),
        answers={204: Answer("It is gone.", media_types=())},
        errors=(errors.NotFound, *STORE),
    ),
    Operation(
        tag="Dead letters",
        method="post",
        path="/dead-letters/{queue}/{id}/requeue",
        handler=dead_letters.RequeueHandler,
        summary="Try a letter again",
        text="A message becomes a new task; a callback is added again. The letter goes then.",
        parameters=(given.QUEUE, given.LETTER),
        answers={
            202: Answer(
                "Of `execute` the new task, of `callbacks` the new entry.",
                answers.Accepted,
                ACCEPTED,
                or_else=answers.Requeued,
            )
        },
        errors=(
            *(errors.NotFound, errors.AgentNotFound, errors.IdempotencyConflict),
            *(errors.SessionBusy, errors.MalformedJson, errors.ValidationFailed, *LIMITS, *WORK),
        ),
    ),
]

USAGE = [
    Operation(
        tag="Usage",
        method="get",
        path="/usage/{tenant_id}",
        handler=usage.UsageHandler,
        summary="What a tenant used on a day",
        parameters=(given.TENANT, given.DATE),
        answers={200: Answer("Counts of one UTC day.", answers.Usage)},
        errors=STORE,
    ),
]

DOCUMENTS = [
    Operation(
        tag="Documents",
        method="get",
        path="/openapi.json",
        handler=documents.DocumentHandler,
        summary="This document",
        answers={200: Answer("OpenAPI 3.1.", media_types=("application/json",))},
    ),
]
