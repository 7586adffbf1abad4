"""What a `Content-Type` says, however oddly: JSON in UTF-8, or it is a 415, and never a 500."""

import orjson
import pytest

from tests.support.raw import raw_socket
from tests.support.service import RunningProcess


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("application/json;", 202),
        ("application/json;;a", 202),
        ("application/json ; charset = utf-8 ", 202),
        ("application/json; charset=UTF-8; charset=utf-8", 202),
        ("application/json;a*;a*0*=x", 202),
        ("application/json;a*0=x;a*=x", 202),
        ("application/json; charsets=x; xcharset=x", 202),
        ("application/problem+json", 202),
        ("application/json; charset", 415),
        ("application/json; charset=", 415),
        ("application/json; charset=\xff", 415),
        ("application/json; charset=us-ascii; charset=utf-8", 415),
        ("application/json; charset=utf-8; charset=us-ascii", 415),
        ("application/json; charset*=utf-8''%ff", 415),
        ("application/json; charset*0=utf-; charset*1=16", 415),
        ("application/json; CHARSET*0*=x", 415),
        ("application/json, application/json", 415),
        ("application/ json", 415),
        ("application/json/json", 415),
        ("application/+json", 415),
        ("application/jsonx", 415),
        ("text/json", 415),
        ("json;application/json", 415),
        ("\xff\xfe", 415),
        (";", 415),
        ("", 415),
    ],
)
async def test_a_content_type_is_json_in_utf_8_or_refused(
    instance: RunningProcess, tenant: str, given: str, status: int
) -> None:
    body = {"tenant_id": tenant, "session_id": "s", "agent_id": "a", "message": "m"}
    text = orjson.dumps(body)
    headers = [f"Content-Type: {given}", f"Content-Length: {len(text)}"]
    async with raw_socket(instance.port) as raw:
        answer = await raw.request("POST", "/api/chat/send", headers, text)
    assert answer.status == status, answer.body
