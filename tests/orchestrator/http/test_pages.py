"""The first page and its client: plain files, and nothing else of the disk."""

import pytest

from tests.support.client import Address
from tests.support.raw import raw_socket
from tests.support.service import RunningProcess


@pytest.mark.parametrize(
    ("path", "content_type"), [("/", "text/html; charset=utf-8"), ("/page/page.js", "text/java")]
)
async def test_a_file_is_served_under_a_strict_policy(
    instance: Address, path: str, content_type: str
) -> None:
    answer = await instance.get(path)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith(content_type)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    again = await instance.request("GET", path, headers={"If-None-Match": answer.headers["Etag"]})
    assert again.status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/page/../../run.py",
        "/page/..%2f..%2frun.py",
        "/page/%2e%2e",
        "/page/",
        "/page/nothing.js",
        "/page/%00.js",
        "/page/" + "x" * 300 + ".js",
        "/client/package.json",
        "/client/..%2f..%2fconfig%2fdev.yaml",
        "/client/.js",
    ],
)
async def test_nothing_else_is_served(instance: RunningProcess, path: str) -> None:
    logged = len(instance.log)
    async with raw_socket(instance.port) as raw:
        answer = await raw.request("GET", path)
        assert answer.status == 404
        assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in instance.log[logged:]


async def test_head_tells_what_get_would_bring(instance: Address) -> None:
    for path in ("/", "/client/orchestrator-client.js"):
        wanted = await instance.get(path)
        told = await instance.request("HEAD", path)
        assert (told.status, told.body) == (wanted.status, b"")
        assert told.headers["Content-Length"] == wanted.headers["Content-Length"]


@pytest.mark.parametrize("asked", ["bytes=0-9", "bytes=999999-", "bytes=-0", "lines=1-2", "x"])
async def test_a_file_is_sent_whole_whatever_range_is_asked_for(
    instance: Address, asked: str
) -> None:
    whole = await instance.get("/page/page.js")
    answer = await instance.get("/page/page.js", Range=asked)
    assert (answer.status, answer.body) == (200, whole.body)
    assert answer.headers["Accept-Ranges"] == "none"
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/", "/page/page.js"])
async def test_a_body_too_large_is_refused_here_as_anywhere(
    instance: RunningProcess, method: str, path: str
) -> None:
    async with raw_socket(instance.port) as raw:
        answer = await raw.request(method, path, ["Content-Length: 500000"], b"x" * 500_000)
        assert answer.status == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"]
        assert (await raw.request("GET", "/health")).status == 200
        small = await raw.request(method, path, ["Content-Length: 3"], b"abc")
        assert small.status == (200 if method == "GET" else 405)
