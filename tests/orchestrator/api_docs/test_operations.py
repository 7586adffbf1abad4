"""The addresses of section 3 are there, in its order and by its words."""

from itertools import chain

from orchestrator.api_docs import operations

PATHS = [
    *("/api/chat/send", "/api/chat/status", "/api/chat/cancel"),
    *("/api/sessions/{tenant_id}/{session_id}/events", "/api/ws/send", "/api/ws/broadcast"),
    *("/health", "/health/ready", "/health/detailed", "/ws/stats", "/metrics"),
    *("/actors", "/actors/supervision", "/dead-letters/{queue}", "/dead-letters/{queue}/{id}"),
    *("/dead-letters/{queue}/{id}/requeue", "/usage/{tenant_id}", "/openapi.json"),
]


def test_all_of_section_3_is_there_in_its_order() -> None:
    groups = (
        *(operations.CHAT, operations.PUSHES, operations.OPERATIONS, operations.LETTERS),
        *(operations.USAGE, operations.DOCUMENTS),
    )
    assert [each.path for each in chain(*groups)] == PATHS


def test_a_body_comes_with_examples_of_it() -> None:
    for operation in (*operations.CHAT, *operations.PUSHES):
        assert (
            bool(operation.examples) is (operation.body is not None) is (operation.method == "post")
        )
