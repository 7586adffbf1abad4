"""For operators: is it well, what is it doing, who lives and who failed (section 3, Operations)."""

import time
from typing import Any

import orjson

from actors.supervisor import GetTree
from common.domain.errors import Draining, OrchestratorError, Overloaded, RedisUnavailable
from common.domain.ids import TenantId
from orchestrator.app import App, Phase, ask
from orchestrator.auth.caller import Access
from orchestrator.http.base import ApiHandler
from orchestrator.metrics import metrics_text

CONSUMER_LAG = 1000  # callbacks that wait before this counts as degraded


class HealthHandler(ApiHandler):
    """`GET /health`: the process lives."""

    access = Access.OPEN

    def get(self) -> None:
        self.answer(
            200,
            orjson.dumps(
                {
                    "status": "healthy",
                    "service": "agent-orchestrator",
                    "version": self.app.version,
                }
            ),
        )


class ReadyHandler(ApiHandler):
    """`GET /health/ready`: send traffic here, or do not."""

    access = Access.OPEN

    async def get(self) -> None:
        if self.app.phase is not Phase.SERVING:
            raise Draining(f"This instance is {self.app.phase}.")
        if self.app.loop_watch.is_shaken:
            raise Overloaded("This instance stood still for more than a second, a moment ago.")
        await self.app.redis.call("PING")
        self.answer(200, orjson.dumps({"status": "ready"}))


class DetailedHealthHandler(ApiHandler):
    """`GET /health/detailed`: each part by itself; 503 where the whole cannot serve."""

    access = Access.ADMIN

    async def get(self) -> None:
        report = await _report(self.app)
        self.answer(503 if report["status"] == "unhealthy" else 200, orjson.dumps(report))


class StatsHandler(ApiHandler):
    """`GET /ws/stats`: connections here, and of all instances together.

    A tenant's operator sees the sums, and of `by_tenant` the own line.
    """

    access = Access.ADMIN

    def get(self) -> None:
        counters = self.app.counters
        instance = {
            "instance_id": self.app.instance_id,
            "connections": counters.connections,
            "sessions": counters.sessions,
            "peak_connections": counters.peak_connections,
            "total_connections": counters.total_connections,
            "messages_sent": counters.messages_sent,
            "messages_received": counters.messages_received,
            "bytes_sent": counters.bytes_sent,
            "slow_consumers_closed": counters.slow_consumers_closed,
            "by_tenant": {
                tenant_id: connections
                for tenant_id, connections in counters.connections_by_tenant.items()
                if self.caller.sees(TenantId(tenant_id))
            },
        }
        cluster = counters.cluster
        self.answer(
            200,
            orjson.dumps(
                {
                    "instance": instance,
                    "cluster": {
                        "instances": cluster.instances,
                        "connections": cluster.connections,
                        "sessions": cluster.sessions,
                    },
                }
            ),
        )


class MetricsHandler(ApiHandler):
    """`GET /metrics`: Prometheus text."""

    access = Access.ADMIN

    def get(self) -> None:
        text, content_type = metrics_text(self.app)
        self.set_header("Content-Type", content_type)
        self.finish(text)


class ActorsHandler(ApiHandler):
    """`GET /actors`: the supervision tree."""

    access = Access.ADMIN

    async def get(self) -> None:
        self.answer(200, orjson.dumps(await ask(self.app.supervisor, GetTree())))


class SupervisionHandler(ApiHandler):
    """`GET /actors/supervision`: the newest supervision events, the newest first."""

    access = Access.ADMIN

    def get(self) -> None:
        limit = self.query_number("limit", 100, 1, 1000)
        events = self.app.supervision_log.newest(limit)
        self.answer(200, orjson.dumps({"events": events}))


async def _report(app: App) -> dict[str, Any]:
    redis = await _redis(app)
    components = {
        "redis": redis,
        "actors": _actors(app),
        "callback_worker": await _callback_worker(app),
        "execution_queue": await _execution_queue(app),
        "websocket": {
            "status": "healthy",
            "connections": app.counters.connections,
            "limit": app.settings.websocket.max_connections,
        },
    }
    statuses = {component["status"] for component in components.values()}
    unhealthy = "unhealthy" in statuses or app.phase is Phase.FAILED
    degraded = "degraded" in statuses or app.phase is not Phase.SERVING
    return {
        "status": "unhealthy" if unhealthy else "degraded" if degraded else "healthy",
        "version": app.version,
        "instance_id": app.instance_id,
        "uptime_seconds": app.uptime_seconds,
        "components": components,
    }


async def _redis(app: App) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        await app.redis.call("PING")
    except RedisUnavailable:
        return {"status": "unhealthy", "latency_ms": None}
    return {"status": "healthy", "latency_ms": round((time.perf_counter() - began) * 1000, 3)}


def _actors(app: App) -> dict[str, Any]:
    totals = app.supervisor.totals()
    status = "unhealthy" if totals.failed else "degraded" if totals.restarting else "healthy"
    return {"status": status, "alive": totals.alive, "restarts": totals.restarts}


async def _callback_worker(app: App) -> dict[str, Any]:
    try:
        pending, lag = await app.callback_stream.waiting()
    except OrchestratorError:
        return {"status": "unhealthy", "pending": None, "lag": None}
    status = "degraded" if lag > CONSUMER_LAG else "healthy"
    return {"status": status, "pending": pending, "lag": lag}


async def _execution_queue(app: App) -> dict[str, Any]:
    try:
        depth = await app.work.depth()
    except OrchestratorError:
        return {"status": "unhealthy", "depth": None, "consumers": None}
    waiting = sum(depth.untaken.values())
    status = "degraded" if waiting and not depth.consumers else "healthy"
    return {"status": status, "depth": depth.untaken, "consumers": depth.consumers}
