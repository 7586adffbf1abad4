"""HEAD tells what GET would bring (RFC 9110, 9.3.2), at every address that answers GET."""

import orjson
import pytest

from tests.support.raw import raw_socket
from tests.support.service import RunningProcess

PATHS = [
    *("/health", "/openapi.json", "/", "/page/page.js", "/usage/acme"),
    *("/dead-letters/execute", "/actors/supervision", "/api/sessions/acme/nobody/events"),
]


@pytest.mark.parametrize("path", PATHS)
async def test_a_head_is_the_get_without_its_body(instance: RunningProcess, path: str) -> None:
    async with raw_socket(instance.port) as raw:
        told = await raw.request("HEAD", path)
        wanted = await raw.request("GET", path)  # so nothing followed the head
    assert (told.status, wanted.status) == (200, 200)
    assert wanted.body
    for each in (told, wanted):
        each.headers.pop("x-request-id")
        each.headers.pop("date")
        if path == "/actors/supervision":  # which may have grown
            assert each.headers.pop("etag")
            assert int(each.headers.pop("content-length")) > 0
    assert told.headers == wanted.headers


@pytest.mark.parametrize("path", ["/metrics", "/ws/stats", "/actors", "/health/detailed"])
async def test_what_changes_all_the_time_has_a_head_too(
    instance: RunningProcess, path: str
) -> None:
    async with raw_socket(instance.port) as raw:
        told = await raw.request("HEAD", path)
        assert told.status == 200
        assert int(told.headers["content-length"]) > 0
        assert (await raw.request("GET", "/health")).status == 200


async def test_a_refused_head_says_by_its_status_why(instance: RunningProcess) -> None:
    async with raw_socket(instance.port) as raw:
        for path, status in (("/nothing", 404), ("/page/no.js", 404), ("/usage/a?date=x", 422)):
            told = await raw.request("HEAD", path)
            assert told.status == status
            assert told.headers["content-type"] == "application/problem+json"


async def test_the_head_of_a_stream_is_told_and_the_stream_is_not_begun(
    instance: RunningProcess, tenant: str
) -> None:
    accept = ["Accept: text/event-stream"]
    path = f"/api/sessions/{tenant}/s/events"
    async with raw_socket(instance.port) as raw:
        told = await raw.request("HEAD", path, accept)
        assert told.status == 200
        assert told.headers["content-type"] == "text/event-stream"
        assert "content-length" not in told.headers
        assert (await raw.request("HEAD", f"{path}?offset=x", accept)).status == 422
        stats = await raw.request("GET", "/ws/stats")
        assert tenant not in orjson.loads(stats.body)["instance"]["by_tenant"]
