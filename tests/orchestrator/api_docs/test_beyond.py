"""Beyond section 3: a WebSocket's upgrade, and the page's files."""

from orchestrator.api_docs import beyond


def test_an_upgrade_takes_the_query_of_section_4() -> None:
    described = {each["name"] for each in beyond.CONNECT.parameters if each["in"] == "query"}
    assert described == {"user_id", "epoch", "offset", "compact", "token", "close_codes"}


def test_files_are_read() -> None:
    assert {each.method for each in beyond.FILES} == {"get"}
