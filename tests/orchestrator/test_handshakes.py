"""What a handshake of RFC 6455 has to be, and what of its address makes no difference."""

from typing import Any

import orjson
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.client import close_code, next_frame
from tests.support.raw import KEY, UPGRADE, raw_socket
from tests.support.service import RunningProcess

NO_SESSION = ["", "acme", "acme/", "acme/s/", "/s", "acme/s/more", "%ff", "acme/%ff/more"]


@pytest.mark.parametrize(
    "keys",
    [
        ["abc"],
        [""],
        [KEY, KEY],
        [f"{KEY}, {KEY}"],
        [KEY.rstrip("=")],
        ["dGhlIHNhbXBsZSBub25jZSE="],  # 17 bytes
        ["dGhlIHNhbXBsZSBub25j"],  # 15
        ["dGhlIHNhbXBsZSBub25jZ-=="],
    ],
    ids=str,
)
async def test_a_key_is_16_bytes_in_base64_and_given_once(
    instance: RunningProcess, tenant: str, keys: list[str]
) -> None:
    lines = [*UPGRADE[:3], *(f"Sec-WebSocket-Key: {key}" for key in keys)]
    async with raw_socket(instance.port) as raw:
        answer = await raw.request("GET", f"/ws/{tenant}/s?close_codes=1", lines)
        assert answer.status == 400
        assert orjson.loads(answer.body)["code"] == "bad_request"


async def test_any_16_bytes_are_a_key(instance: RunningProcess, tenant: str) -> None:
    for key in ("AAAAAAAAAAAAAAAAAAAAAA==", "//////////////////////==", KEY):
        async with raw_socket(instance.port) as raw:
            lines = [*UPGRADE[:3], f"Sec-WebSocket-Key: {key}"]
            assert (await raw.request("GET", f"/ws/{tenant}/s", lines)).status == 101


async def test_an_upgrade_begins_with_http_1_1(instance: RunningProcess, tenant: str) -> None:
    async with raw_socket(instance.port) as raw:
        lines = (f"GET /ws/{tenant}/s HTTP/1.0", "Host: x", *UPGRADE, "", "")
        await raw.write("\r\n".join(lines).encode())
        answer = await raw.answer()
        assert answer.status == 400
        assert orjson.loads(answer.body)["code"] == "bad_request"


@pytest.mark.parametrize("path", NO_SESSION)
async def test_a_path_that_names_no_session_is_not_found_by_http_or_by_close_code(
    instance: RunningProcess, path: str
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with instance.connect(path):
            pass
    assert caught.value.response.status_code == 404
    assert orjson.loads(caught.value.response.body)["code"] == "not_found"
    async with instance.connect(path, close_codes=1) as socket:
        assert await close_code(socket) == 4400
    plain = await instance.get(f"/ws/{path}")  # no upgrade, so the code cannot be told
    assert (plain.status, plain.code) == (404, "not_found")


@pytest.mark.parametrize("query", [{"utm_source": "x"}, {"_": 1700000000}, {"": ""}], ids=str)
async def test_parameters_of_others_make_no_difference(
    instance: RunningProcess, tenant: str, query: dict[str, Any]
) -> None:
    async with instance.connect(f"{tenant}/s", **query) as socket:
        assert (await next_frame(socket))["type"] == "connection_ack"
