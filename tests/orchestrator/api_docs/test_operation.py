"""An operation has a name that a generated client can use."""

import pytest

from orchestrator.api_docs.operation import Operation, in_header, in_path, in_query
from orchestrator.http.base import NotFoundHandler


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("post", "/api/chat/send", "post_api_chat_send"),
        ("get", "/dead-letters/{queue}/{id}", "get_dead_letters"),
        ("post", "/dead-letters/{queue}/{id}/requeue", "post_dead_letters_requeue"),
        ("get", "/openapi.json", "get_openapi_json"),
        ("head", "/", "head_root"),
    ],
)
def test_it_is_named_by_its_method_and_address(method: str, path: str, name: str) -> None:
    made = Operation(
        tag="T", method=method, path=path, handler=NotFoundHandler, summary="s", answers={}
    )
    assert made.id == name


def test_only_what_is_in_the_path_must_be_given() -> None:
    made = [make("a", {}, "text", "x") for make in (in_path, in_query, in_header)]
    assert [each["in"] for each in made] == ["path", "query", "header"]
    assert [each["required"] for each in made] == [True, False, False]
