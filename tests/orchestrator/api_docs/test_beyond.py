"""Beyond section 3: a WebSocket's upgrade, and the page's files."""

from orchestrator.api_docs import beyond
from orchestrator.socket import QUERY


def test_an_upgrade_takes_the_query_that_its_handler_reads() -> None:
    described = {each["name"] for each in beyond.CONNECT.parameters if each["in"] == "query"}
    assert described == QUERY


def test_files_are_read_and_looked_at() -> None:
    assert {each.method for each in beyond.FILES} == {"get", "head"}
