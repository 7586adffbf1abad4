"""What an instance counts, for `/metrics` and `/ws/stats`. Changed on the loop only."""

from collections import Counter
from dataclasses import dataclass, field

from common.queues.instances import ClusterCounts


@dataclass(slots=True)
class Counters:
    """One instance's counts since its start, and its present connections."""

    connections: int = 0
    sessions: int = 0
    peak_connections: int = 0
    total_connections: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    bytes_sent: int = 0
    slow_consumers_closed: int = 0
    connections_by_tenant: Counter[str] = field(default_factory=Counter)
    messages_accepted: int = 0
    messages_replayed: int = 0
    messages_refused: Counter[str] = field(default_factory=Counter)
    tasks_in_line: int = 0  # of all instances
    callbacks: Counter[str] = field(default_factory=Counter)
    dead_callbacks: Counter[str] = field(default_factory=Counter)
    bad_frames: int = 0
    closes: Counter[int] = field(default_factory=Counter)
    refused_upgrades: Counter[str] = field(default_factory=Counter)
    redis_away: bool = False
    cluster: ClusterCounts = field(
        default_factory=lambda: ClusterCounts(instances=1, connections=0, sessions=0)
    )

    def connected(self, tenant_id: str) -> None:
        self.connections += 1
        self.total_connections += 1
        self.peak_connections = max(self.peak_connections, self.connections)
        self.connections_by_tenant[tenant_id] += 1

    def disconnected(self, tenant_id: str) -> None:
        self.connections -= 1
        self.connections_by_tenant[tenant_id] -= 1
        if not self.connections_by_tenant[tenant_id]:
            del self.connections_by_tenant[tenant_id]
