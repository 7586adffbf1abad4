"""Every key and channel name in Redis, in one place (contract, section 5).

The contract's own names carry no braces. Ours carry a hash tag wherever one script touches several
keys, so that these share a slot of a Redis Cluster:

    {tenant:session}            the session: meta, log, open tasks, tasks, idempotency records
    {tenant}                    the tenant: its terms, lines, what runs, its requests, its usage
    {P+dead:callbacks}          the callback stream beside its dead letters
    {P+dead:execute}            the dead letters of the work streams
    {connections}               who is connected, and who knocked wrongly

The scripts that take messages in and give turns (`lua/_tenants.lua`) cross slots: they see tenants,
sessions, rings and work streams at once, and so want one Redis server.

Ids hold neither colons nor braces (`common.domain.ids`), so names built from them are injective.
"""

from common.domain.actions import Priority
from common.domain.ids import SessionKey, TaskId, TenantId

WORK_GROUP = "agent-execution"
GIVEN_BACK = "given-back"  # the consumer of the work streams who holds what nobody runs
CALLBACK_GROUP = "orchestrator"
ACTIONS_GROUP = "orchestrator"

DUE_SHARDS = 4


class Keys:
    """Names under one prefix (`redis.key_prefix`, written `P` in the contract)."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.control = f"{prefix}control"
        self.actions = f"{prefix}actions"
        self.dead_execute = f"{prefix}dead:execute"
        self.dead_callbacks = f"{prefix}dead:callbacks"
        self.callbacks = f"{prefix}callbacks:{{{self.dead_callbacks}}}"
        self.broadcasts = f"{prefix}broadcasts"
        self.scan_lease = f"{prefix}scan-lease"
        self.instances = f"{prefix}instances:{{instances}}"
        self.instance_facts = f"{prefix}instance-facts:{{instances}}"
        self.turns_state = f"{prefix}turns:state"
        self.work_streams = tuple(self.work_stream(priority) for priority in Priority)

    # What the Agent Execution Service sees.

    def work_stream(self, priority: Priority) -> str:
        """The stream of one priority; `work_streams` lists them high before normal before low."""
        return f"{self.prefix}execute:{priority}"

    def attempt(self, task_id: TaskId) -> str:
        """The counter of a task's attempts; a worker that takes the task increments it."""
        return f"{self.prefix}attempt:{task_id}"

    def cancel(self, task_id: TaskId) -> str:
        """Set while a task is to be stopped; its value is the reason."""
        return f"{self.prefix}cancel:{task_id}"

    # One session, one slot.

    def session_meta(self, session: SessionKey) -> str:
        return f"{self.prefix}session:{{{session}}}:meta"

    def session_log(self, session: SessionKey) -> str:
        return f"{self.prefix}session:{{{session}}}:log"

    def session_open(self, session: SessionKey) -> str:
        """The ids of the session's tasks that have not ended, in the order of their messages."""
        return f"{self.prefix}session:{{{session}}}:open"

    def session_line(self, session: SessionKey) -> str:
        """Those of them that wait until all before them have ended."""
        return f"{self.prefix}session:{{{session}}}:line"

    def session_channel(self, session: SessionKey) -> str:
        return f"{self.prefix}session:{{{session}}}:events"

    def task(self, session: SessionKey, task_id: TaskId) -> str:
        return f"{self.prefix}task:{{{session}}}:{task_id}"

    def task_text(self, session: SessionKey, task_id: TaskId) -> str:
        """What the newest attempt has streamed so far."""
        return f"{self.prefix}task:{{{session}}}:{task_id}:text"

    def task_parked(self, session: SessionKey, task_id: TaskId) -> str:
        """Callbacks that arrived before their turn, by seq."""
        return f"{self.prefix}task:{{{session}}}:{task_id}:parked"

    def task_waiting(self, session: SessionKey, task_id: TaskId) -> str:
        """Since when each of them has waited."""
        return f"{self.prefix}task:{{{session}}}:{task_id}:waiting"

    def idempotency(self, session: SessionKey, key: str) -> str:
        return f"{self.prefix}idempotency:{{{session}}}:{key}"

    def pushed(self, session: SessionKey, action_id: str) -> str:
        """Marks a push as done, for a day."""
        return f"{self.prefix}pushed:{{{session}}}:{action_id}"

    # Finding things.

    def task_session(self, task_id: TaskId) -> str:
        """Leads from a task's id to its session."""
        return f"{self.prefix}task-session:{task_id}"

    def due(self, task_id: TaskId) -> str:
        """The shard of due times that holds this task."""
        return self.due_shard(task_id.encode()[-1] % DUE_SHARDS)

    def due_shard(self, shard: int) -> str:
        return f"{self.prefix}due:{shard}"

    # Tenants; their lines and counts are named in `lua/_tenants.lua`.

    def usage(self, tenant_id: TenantId, day: int) -> str:
        """What a tenant used on a UTC day, counted from 1970."""
        return f"{self.prefix}usage:{{{tenant_id}}}:{day}"

    # Turns of all tenants.

    def ring(self, priority: Priority) -> str:
        """The tenants with a task of that priority that may go."""
        return f"{self.prefix}turns:ring:{priority}"

    def again(self, priority: Priority) -> str:
        """Tasks that are to be tried again."""
        return f"{self.prefix}turns:again:{priority}"

    # Who is connected.

    def connections_of_tenant(self, tenant_id: TenantId) -> str:
        return f"{self.prefix}connections:{{connections}}:tenant:{tenant_id}"

    def connections_of_address(self, address: str) -> str:
        """`address` is an IPv4 address, or a /64 of IPv6; being last, it may hold colons."""
        return f"{self.prefix}connections:{{connections}}:address:{address}"

    def bad_handshakes(self, address: str) -> str:
        return f"{self.prefix}bad-handshakes:{{connections}}:{address}"

    # What one script does beside a stream.

    def buried(self, letters: str, entry: str) -> str:
        """Marks that an entry is among these dead letters."""
        return f"{self.prefix}buried:{{{letters}}}:{entry}"

    def broadcast_done(self, tenant_id: TenantId, action_id: str) -> str:
        """Marks a broadcast as told, for a day; what another tenant calls its own is another."""
        return f"{self.prefix}broadcast-done:{tenant_id}:{action_id}"

    def canary(self, instance_id: str) -> str:
        """The channel on which an instance hears itself, or learns that it has gone deaf."""
        return f"{self.prefix}canary:{instance_id}"
