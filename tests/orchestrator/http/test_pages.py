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
