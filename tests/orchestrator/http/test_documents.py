"""The service's own description, over HTTP."""

from tests.support.client import Address


async def test_the_document_is_json_that_may_be_kept_and_asked_for_again(instance: Address) -> None:
    answer = await instance.get("/openapi.json")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.json["openapi"] == "3.1.0"
    again = await instance.get("/openapi.json", If_None_Match=answer.headers["Etag"])
    assert (again.status, again.body) == (304, b"")
