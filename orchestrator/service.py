"""The composition root: builds each part once, starts them in order, stops them in reverse."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from tornado.httpserver import HTTPServer

from actors.callback_worker import CallbackWorkerActor
from actors.chat_router import ChatRouterActor
from actors.connection_manager import CloseAll, ConnectionManagerActor, SendAllElsewhere
from actors.counters import Counters
from actors.doorkeeper import DoorkeeperActor
from actors.housekeeper import HousekeeperActor
from actors.loop_actor import LoopRef
from actors.push_worker import PushWorkerActor
from actors.session_messages import CaughtUp, ConnectionPolicy
from actors.supervision_log import SupervisionLog
from actors.supervisor import ChildSpec, SupervisorActor
from common.domain.errors import OrchestratorError
from common.domain.ids import new_id
from common.queues.bridge import Bridge, Message
from common.queues.connections import Connections
from common.queues.embedded import EmbeddedRedis
from common.queues.handshakes import BadHandshakes
from common.queues.keys import Keys
from common.queues.redis import Redis
from common.queues.refusals import refusal
from common.queues.stores import Stores, StoreSettings
from config.settings import Settings
from orchestrator import __version__
from orchestrator.addresses import Addresses
from orchestrator.app import App, Phase, ask
from orchestrator.auth.authenticator import Authenticator
from orchestrator.embedded_worker import EmbeddedWorker
from orchestrator.listening import bind_sockets
from orchestrator.routes import application
from orchestrator.schemas import Schemas

log = structlog.get_logger(__name__)

MAX_HEADERS = 16 * 1024  # bytes
IDLE_CONNECTION = 60.0  # seconds that a connection may take to begin a request, or its headers
BODY_WITHIN = 30.0  # seconds
EAR_FULL = 10_000  # messages for the ConnectionManager before the bridge reads no further
REDIS_RETRY = 0.5  # seconds
LAST_REQUESTS = 4.0  # seconds that requests under way get; an answer takes three
GOODBYE = 3.0  # seconds that clients get to answer a close
PROJECT = Path(__file__).resolve().parents[1]


class Service:
    """One instance of the orchestrator.

    `failed` is set, with the reason, when supervision has given up: the process has to end.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.instance_id = new_id()
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stack = contextlib.AsyncExitStack()
        self._watchers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts everything; the instance is ready once Redis answers.

        Raises:
            OSError: the address cannot be listened on.
            EmbeddedRedisError: the embedded Redis does not come up.
                In either case what had been started is stopped again.
        """
        try:
            url = await self._start_redis()
            self._build(url)
            self._listen()
            await self._start_worker(url)
        except BaseException:
            await self._stack.aclose()
            raise
        self._watchers.append(asyncio.create_task(self._await_redis(), name="service.ready"))

    async def drain(self) -> None:
        """Stops so that another instance goes on: clients are told when to come back (1012)."""
        reason = "this instance stops; come back"
        per_second = self._settings.server.reconnects_per_second
        await self._stop(SendAllElsewhere(per_second, reason), reason)

    async def stop(self) -> None:
        """Stops for good (1001)."""
        reason = "the service stops"
        await self._stop(CloseAll(1001, reason), reason)

    async def _stop(self, goodbye: CloseAll | SendAllElsewhere, reason: str) -> None:
        """Takes no more work, finishes what is under way, says goodbye, ends actors, then Redis.

        Takes `server.drain_seconds` at the most. What is not done by then loses nothing: all of it
        is in Redis, and others go on with it.
        """
        self.app.phase = Phase.DRAINING
        log.info("service.stopping", reason=reason, connections=self.app.counters.connections)
        for watcher in self._watchers:
            watcher.cancel()
        try:
            async with asyncio.timeout(self._settings.server.drain_seconds):
                await self._finish_requests()
                await self._say(goodbye)
                await self._stack.aclose()
        except TimeoutError:
            log.error("service.stop_cut_short", seconds=self._settings.server.drain_seconds)
        log.info("service.stopped")

    async def _start_redis(self) -> str:
        if self._settings.redis.url != "embedded":
            return self._settings.redis.url
        embedded = EmbeddedRedis()
        url = await embedded.start()
        self._stack.push_async_callback(embedded.stop)
        return url

    def _build(self, url: str) -> None:
        """All parts, each given what it needs: stores first, then the actors, then the edge."""
        settings = self._settings
        redis = Redis(url, socket_timeout=settings.redis.socket_timeout)
        self._stack.push_async_callback(redis.close)
        stores = Stores(redis, settings.redis.key_prefix, self.instance_id, self._store_settings())
        schemas = Schemas(settings.execution, settings.agents)
        authenticator = Authenticator(settings.auth)
        self._stack.push_async_callback(authenticator.close)
        counters, supervision_log = Counters(), SupervisionLog()

        supervisor = SupervisorActor.start(self._escalate, log=supervision_log)
        self._stack.push_async_callback(supervisor.stop)
        router = supervisor.spawn(
            ChildSpec(
                "chat_router",
                ChatRouterActor,
                (
                    stores.submissions,
                    stores.tasks,
                    stores.log,
                    stores.pushes,
                    settings.agents,
                    counters,
                ),
            )
        )
        handshakes = BadHandshakes(
            redis, stores.keys, settings.websocket.max_bad_handshakes_per_minute
        )
        connections = Connections(redis, stores.keys, handshakes)
        doorkeeper = supervisor.spawn(
            ChildSpec("doorkeeper", DoorkeeperActor, (connections, handshakes))
        )
        bridge = Bridge(redis, stores.keys, self.instance_id, self._hear)
        self._manager: LoopRef = supervisor.spawn(
            ChildSpec(
                "connection_manager",
                ConnectionManagerActor,
                (bridge, self._policy(), stores.log, router, supervisor, counters),
            )
        )
        readers = [
            supervisor.spawn(
                ChildSpec(
                    "push_worker",
                    PushWorkerActor,
                    (stores.pushes, stores.log, schemas.queued_push, counters, settings.callbacks),
                )
            ),
            supervisor.spawn(
                ChildSpec(
                    "callback_worker",
                    CallbackWorkerActor,
                    (stores.callbacks, counters, settings.callbacks),
                )
            ),
            supervisor.spawn(
                ChildSpec("housekeeper", HousekeeperActor, (self.instance_id, stores, counters))
            ),
        ]
        # Each of these waits for something; they end together instead of one after the other.
        self._stack.push_async_callback(_stop_all, readers)
        bridge.start()
        self._stack.push_async_callback(bridge.stop)
        self.app = App(
            settings=settings,
            version=__version__,
            instance_id=self.instance_id,
            schemas=schemas,
            authenticator=authenticator,
            redis=redis,
            session_log=stores.log,
            work=stores.work,
            callback_stream=stores.callbacks.stream,
            dead_letters=stores.letters,
            usage=stores.usage,
            addresses=Addresses(settings.server.trusted_proxies),
            connections=connections,
            handshakes=handshakes,
            doorkeeper=doorkeeper,
            router=router,
            manager=self._manager,
            supervisor=supervisor,
            supervision_log=supervision_log,
            counters=counters,
        )

    def _store_settings(self) -> StoreSettings:
        settings = self._settings
        return StoreSettings(
            max_events=settings.sessions.max_events,
            ttl=settings.sessions.ttl,
            max_attempts=settings.execution.max_attempts,
            visibility_timeout=settings.execution.visibility_timeout,
            retry_backoff=settings.execution.retry_backoff,
            cancel_grace=settings.execution.cancel_grace,
            max_wait=settings.execution.max_wait,
            gap_timeout=settings.callbacks.gap_timeout,
            max_callback_bytes=settings.callbacks.max_bytes,
            prefetch=settings.execution.prefetch,
            tier_of=settings.tier_of,
        )

    def _policy(self) -> ConnectionPolicy:
        websocket = self._settings.websocket
        return ConnectionPolicy(
            instance_id=self.instance_id,
            ping_interval=websocket.ping_interval,
            max_message_bytes=websocket.max_message_bytes,
            max_bad_frames=websocket.max_bad_frames,
            send_buffer_bytes=websocket.send_buffer_bytes,
        )

    async def _hear(self, message: Message) -> None:
        """What the bridge hears goes to the ConnectionManager, never faster than it listens."""
        if self._manager.mailbox > EAR_FULL:
            await self._manager.ask(CaughtUp(), timeout=None)
        if self._manager.is_alive():
            self._manager.tell(message)

    def _listen(self) -> None:
        settings = self._settings.server
        server = HTTPServer(
            application(self.app),
            max_header_size=MAX_HEADERS,
            max_body_size=settings.max_body_bytes,  # where a handler does not count for itself
            idle_connection_timeout=IDLE_CONNECTION,
            body_timeout=BODY_WITHIN,
        )
        sockets = bind_sockets(settings.port, settings.host)
        server.add_sockets(sockets)
        self.address = f"http://{settings.host}:{sockets[0].getsockname()[1]}/"

        async def stop_listening() -> None:
            server.stop()
            await server.close_all_connections()

        self._stack.push_async_callback(stop_listening)

    async def _start_worker(self, url: str) -> None:
        if self._settings.execution.embedded_worker:
            worker = EmbeddedWorker(self._settings, url, self.address)
            await worker.start()
            self._stack.push_async_callback(worker.stop)

    async def _await_redis(self) -> None:
        is_told = False
        while True:
            try:
                refused = await refusal(self.app.redis, Keys(self._settings.redis.key_prefix))
            except OrchestratorError as error:
                if not is_told:
                    log.warning("redis.awaited", error=error.code, reason=str(error.__cause__))
                is_told = True
                await asyncio.sleep(REDIS_RETRY)
            else:
                break
        if refused:
            self._escalate(refused)
            return
        self.app.phase = Phase.SERVING
        self.app.loop_watch.start()  # building all this took its time, and nobody waited yet
        self._stack.callback(self.app.loop_watch.stop)
        log.info("service.ready", open=self.address, version=__version__)

    async def _finish_requests(self) -> None:
        """Requests that are being handled get their answers; new ones are refused."""
        await _until(lambda: not self.app.requests, within=LAST_REQUESTS)

    async def _say(self, goodbye: CloseAll | SendAllElsewhere) -> None:
        with contextlib.suppress(OrchestratorError):
            await ask(self._manager, goodbye)
        await _until(lambda: not self.app.counters.connections, within=GOODBYE)

    def _escalate(self, reason: str) -> None:
        """Restarting has not helped: out of readiness at once, and out of the process."""
        self.app.phase = Phase.FAILED
        if not self.failed.done():
            self.failed.set_result(reason)


async def _stop_all(refs: Sequence[LoopRef]) -> None:
    await asyncio.gather(*(ref.stop() for ref in refs))


async def _until(condition: Callable[[], bool], within: float) -> None:
    """Clients finish in their own time; there is no one event to wait for."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
