"""What the instance counts, as Prometheus reads it."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from actors.loop_actor import dead_letters
from orchestrator.app import App, Phase
from orchestrator.loop_watch import BUCKETS

PREFIX = "orchestrator_"


def metrics_text(app: App) -> tuple[bytes, str]:
    """The exposition and its content type."""
    registry = CollectorRegistry()
    registry.register(_Counts(app))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Counts(Collector):
    def __init__(self, app: App) -> None:
        self._app = app

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counters()
        yield from self._labelled()
        yield self._loop_lag()

    def _gauges(self) -> Iterator[Metric]:
        counters, app = self._app.counters, self._app
        totals = app.supervisor.totals()
        for name, help_, value in (
            ("connections", "Open connections.", counters.connections),
            ("sessions", "Sessions with a connection here.", counters.sessions),
            ("uptime_seconds", "Seconds since the start.", app.uptime_seconds),
            ("ready", "1 while this instance serves.", int(app.phase is Phase.SERVING)),
            ("actors_alive", "Living actors.", totals.alive),
            ("loop_lag_max_seconds", "The longest the loop was late.", app.loop_watch.longest),
            (
                "loop_busy_max_seconds",
                "The longest it was late by own work.",
                app.loop_watch.busiest,
            ),
            ("tasks_in_line", "Tasks of all that wait for a turn.", counters.tasks_in_line),
            ("redis_away", "1 while Redis is out of reach.", int(counters.redis_away)),
        ):
            yield GaugeMetricFamily(PREFIX + name, help_, value=value)

    def _counters(self) -> Iterator[Metric]:
        counters = self._app.counters
        totals = self._app.supervisor.totals()
        for name, help_, value in (
            ("connections_opened", "Connections ever opened.", counters.total_connections),
            ("frames_sent", "Frames written to clients.", counters.messages_sent),
            ("frames_received", "Frames read from clients.", counters.messages_received),
            ("bytes_sent", "Bytes of frames written to clients.", counters.bytes_sent),
            ("bad_frames", "Frames of clients that could not be used.", counters.bad_frames),
            ("slow_consumers_closed", "Closed with 4008.", counters.slow_consumers_closed),
            ("messages_accepted", "Messages answered with 202.", counters.messages_accepted),
            ("messages_replayed", "Answers given again.", counters.messages_replayed),
            ("actor_restarts", "Restarts of actors.", totals.restarts),
            ("actor_dead_letters", "Messages to dead actors.", dead_letters.total),
        ):
            yield CounterMetricFamily(PREFIX + name, help_, value=value)

    def _labelled(self) -> Iterator[Metric]:
        counters = self._app.counters
        for name, help_, label, values in (
            ("messages_refused", "Messages not taken.", "code", counters.messages_refused),
            ("callbacks", "Callbacks handled.", "outcome", counters.callbacks),
            ("dead_letters", "Callbacks set aside.", "reason", counters.dead_callbacks),
            ("closes", "Connections closed by us.", "code", counters.closes),
            ("refused_upgrades", "WebSockets not opened.", "code", counters.refused_upgrades),
        ):
            family = CounterMetricFamily(PREFIX + name, help_, labels=[label])
            for value, count in values.items():
                family.add_metric([str(value)], count)
            yield family

    def _loop_lag(self) -> Metric:
        watch = self._app.loop_watch
        bounds = [*map(str, BUCKETS), "+Inf"]
        buckets = list(zip(bounds, accumulate(watch.counts), strict=True))
        help_ = "How late the loop was, looked at every 20 ms."
        return HistogramMetricFamily(
            PREFIX + "loop_lag_seconds", help_, buckets=buckets, sum_value=watch.total
        )
