"""What the service answers, as schemas: they only describe (contract, section 3).

Answers are put together where they are known and sent as bytes, so nothing is dumped through these
classes; a test holds what a running service answers against them.
"""

from marshmallow import Schema, fields, validate

from common.domain.tasks import TaskStatus
from orchestrator.bodies import Id, JsonSchema, Object

TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
HEALTH = ("healthy", "degraded", "unhealthy")


class Time(fields.String):
    """RFC 3339, UTC, with milliseconds."""

    def json_schema(self) -> JsonSchema:
        return {"format": "date-time", "pattern": TIME}


class Counts(fields.Dict):
    """Name → how many."""

    def json_schema(self) -> JsonSchema:
        return {"additionalProperties": {"type": "integer", "minimum": 0}}


def words(*choices: str) -> fields.String:
    return fields.String(required=True, validate=validate.OneOf(choices))


def count(*, allow_none: bool = False, least: int = 0) -> fields.Integer:
    return fields.Integer(
        required=True, allow_none=allow_none, validate=validate.Range(min=least), strict=True
    )


def text(*, allow_none: bool = False) -> fields.String:
    return fields.String(required=True, allow_none=allow_none)


def part(schema: type[Schema]) -> fields.Nested:
    return fields.Nested(schema, required=True)


class Accepted(Schema):
    """A message was taken; the task is safely in Redis."""

    task_id = text()
    status = words("queued")
    tenant_id = Id(required=True)
    session_id = Id(required=True)
    created_at = Time(required=True)


class TaskState(Schema):
    """What is known of a task; null where not yet known."""

    task_id = text()
    tenant_id = Id(required=True)
    session_id = Id(required=True)
    agent_id = Id(required=True)
    status = words(*TaskStatus)
    progress = fields.Float(required=True, allow_none=True, validate=validate.Range(min=0, max=100))
    attempt = count(allow_none=True)
    created_at = Time(required=True)
    updated_at = Time(required=True)
    started_at = Time(required=True, allow_none=True)
    finished_at = Time(required=True, allow_none=True)
    result = Object(required=True, allow_none=True)
    error = Object(required=True, allow_none=True)
    usage = Object(required=True, allow_none=True)


class Cancelled(Schema):
    """What a cancellation came to."""

    task_id = text()
    status = words(TaskStatus.CANCELLED, TaskStatus.CANCELLING)


class Frame(Schema):
    """One thing that happened in a session (contract, section 4)."""

    type = text()
    data = Object(required=True)
    timestamp = Time(required=True)
    tenant_id = Id(required=True)
    session_id = Id(required=True)
    task_id = fields.String()
    offset = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))
    from_offset = fields.Integer(strict=True, validate=validate.Range(min=1))
    metadata = Object()


class Events(Schema):
    """A page of a session's log."""

    epoch = text(allow_none=True)
    events = fields.List(fields.Nested(Frame), required=True)
    next_offset = count()
    last_offset = count()
    oldest_offset = count(allow_none=True)


class Pushed(Schema):
    action_id = fields.UUID(required=True)


class Health(Schema):
    status = words("healthy")
    service = words("agent-orchestrator")
    version = text()


class Ready(Schema):
    status = words("ready")


class RedisHealth(Schema):
    status = words(*HEALTH)
    latency_ms = fields.Float(required=True, allow_none=True)


class ActorsHealth(Schema):
    status = words(*HEALTH)
    alive = count()
    restarts = count()


class CallbacksHealth(Schema):
    status = words(*HEALTH)
    pending = count(allow_none=True)
    lag = count(allow_none=True)


class Depth(Schema):
    high = count()
    normal = count()
    low = count()


class QueueHealth(Schema):
    status = words(*HEALTH)
    depth = fields.Nested(Depth, required=True, allow_none=True)
    consumers = count(allow_none=True)


class WebSocketHealth(Schema):
    status = words(*HEALTH)
    connections = count()
    limit = count()


class Components(Schema):
    redis = part(RedisHealth)
    actors = part(ActorsHealth)
    callback_worker = part(CallbacksHealth)
    execution_queue = part(QueueHealth)
    websocket = part(WebSocketHealth)


class DetailedHealth(Schema):
    """Each part by itself; `degraded` still serves."""

    status = words(*HEALTH)
    version = text()
    instance_id = text()
    uptime_seconds = fields.Float(required=True)
    components = part(Components)


class InstanceStats(Schema):
    instance_id = text()
    connections = count()
    sessions = count()
    peak_connections = count()
    total_connections = count()
    messages_sent = count()
    messages_received = count()
    bytes_sent = count()
    slow_consumers_closed = count()
    by_tenant = Counts(required=True)


class ClusterStats(Schema):
    instances = count()
    connections = count()
    sessions = count()


class Stats(Schema):
    """Connections of this instance, and of all together."""

    instance = part(InstanceStats)
    cluster = part(ClusterStats)


class _Actor(Schema):
    """An actor and those it looks after; above 100 of a class they are summed up in one line."""

    name = text()
    state = text()
    restarts = count()
    mailbox = count()
    children = fields.List(fields.Nested("Actor"), required=True)


# `class` is a word of the language, so this one field cannot be written in a class body.
Actor: type[Schema] = type("Actor", (_Actor,), {"class": text(), "__doc__": _Actor.__doc__})


class SupervisionEvent(Schema):
    """What happened to an actor; the facts beside these differ by event."""

    class Meta:
        unknown = "include"

    event = text()
    at = Time(required=True)
    level = text()
    actor = text()


class SupervisionEvents(Schema):
    events = fields.List(fields.Nested(SupervisionEvent), required=True)


class Letter(Schema):
    """What could not be used, and why."""

    id = text()
    reason = text()
    fields_ = fields.Dict(
        keys=fields.String(), values=fields.String(), required=True, data_key="fields"
    )


class Letters(Schema):
    items = fields.List(fields.Nested(Letter), required=True)


class Requeued(Schema):
    """The entry that a callback has become again."""

    id = text()


class Usage(Schema):
    """What a tenant has used on one UTC day."""

    tenant_id = Id(required=True)
    date = fields.Date(required=True)
    requests = count()
    completed = count()
    failed = count()
    cancelled = count()
    timeout = count()
    input_tokens = count()
    output_tokens = count()
    cost = fields.Float(required=True)


class Problem(Schema):
    """An error (RFC 9457). `errors`: field → messages, where fields are not as they must be."""

    type = text()
    title = text()
    status = fields.Integer(required=True, strict=True)
    detail = text()
    code = text()
    request_id = text()
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))
