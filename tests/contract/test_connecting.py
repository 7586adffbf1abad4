"""Section 4: who is let in to a WebSocket, and how one is refused (sentences 4.1 to 4.4)."""

import orjson
import pytest
from websockets.exceptions import InvalidStatus

from tests.contract.talk import replayed, talk
from tests.support.client import close_code, frames_until, next_frame, say
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


async def test_4_1_the_query_names_the_user_where_to_resume_and_how(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        (ack,) = await replayed(service)
        query = {"user_id": "u-1", "epoch": ack["data"]["epoch"], "offset": 0, "compact": 1}
        async with service.connect(**query, token="none.is.asked", close_codes=1) as socket:
            assert (await next_frame(socket))["data"]["recovered"] is True
            await say(socket, "chat.send_message", agent_id="echo", message="hi")
            told = (await frames_until(socket, "user_message"))[-1]
            assert told["data"]["user_id"] == "u-1"


@pytest.mark.parametrize(
    ("path", "origin", "expected"),
    [
        ("acme/s?offset=1", None, (400, "bad_request", 4400)),
        ("acme/s?epoch=e", None, (400, "bad_request", 4400)),
        ("acme/s%20", None, (400, "bad_request", 4400)),
        ("acme/s", "http://elsewhere.example", (403, "origin_not_allowed", 4403)),
        ("acme/full", None, (503, "overloaded", 1013)),
    ],
)
async def test_4_3_and_4_4_a_refusal_is_an_http_answer_or_on_request_a_close_code(
    redis_server: RedisServer,
    prefix: str,
    path: str,
    origin: str | None,
    expected: tuple[int, str, int],
) -> None:
    limit = 1 if path.endswith("full") else 100
    headers = {"Origin": origin} if origin else {}
    async with (
        running_service(redis_server.url, prefix, websocket={"max_connections": limit}) as service,
        service.connect("acme/first"),
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with service.connect(path, {"additional_headers": headers}):
                pass
        response = caught.value.response
        problem = orjson.loads(response.body)
        assert response.headers["Content-Type"] == "application/problem+json"
        assert (response.status_code, problem["code"]) == expected[:2]
        assert problem["status"] == expected[0]
        if expected[0] == 503:
            assert int(response.headers["Retry-After"]) >= 1
        told = f"{path}{'&' if '?' in path else '?'}close_codes=1"
        async with service.connect(told, {"additional_headers": headers}) as socket:
            assert await close_code(socket) == expected[2]


async def test_4_3_a_path_that_is_none_of_ours_is_not_found(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        with pytest.raises(InvalidStatus) as caught:
            async with service.connect("acme/s/more"):
                pass
        assert caught.value.response.status_code == 404
        assert orjson.loads(caught.value.response.body)["code"] == "not_found"


async def test_4_4_a_connection_closed_with_a_code_holds_no_place(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, websocket={"max_connections": 1}) as each:
        for _ in range(3):
            async with each.service.connect("acme/s?offset=1&close_codes=1") as socket:
                assert await close_code(socket) == 4400
        async with each.service.connect("acme/s") as socket:
            assert (await next_frame(socket))["type"] == "connection_ack"
