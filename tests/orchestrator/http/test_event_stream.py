"""Server-sent events: first what is kept, then live, and resumed by the last id."""

import orjson

from tests.support.raw import RawSocket, raw_socket
from tests.support.service import RunningProcess

Told = dict[str, str]


async def begin(raw: RawSocket, session: str, *headers: str, query: str = "") -> Told:
    """Asks for the stream; answers the acknowledgement."""
    lines = ("Host: x", "Accept: text/event-stream", *headers)
    head = f"GET /api/sessions/{session}/events{query} HTTP/1.1\r\n"
    await raw.write((head + "\r\n".join(lines) + "\r\n\r\n").encode())
    first = (await raw.reader.readuntil(b"\r\n\r\n")).decode()
    assert first.startswith("HTTP/1.1 200"), first
    assert "text/event-stream" in first
    return await told(raw)


async def told(raw: RawSocket) -> Told:
    """The next event, by its fields; the lengths of chunks are read away."""
    text = (await raw.reader.readuntil(b"\n\n")).decode()
    lines = [line for line in text.replace("\r", "").split("\n") if ": " in line]
    return dict(line.split(": ", 1) for line in lines)


async def push(instance: RunningProcess, tenant: str, number: int) -> None:
    body = {"tenant_id": tenant, "session_id": "s", "message_data": {"n": number}}
    assert (await instance.post("/api/ws/send", body)).status == 202


async def test_a_stream_tells_what_is_kept_then_live_and_resumes(
    instance: RunningProcess, tenant: str
) -> None:
    for number in (1, 2):
        await push(instance, tenant, number)
    epoch = (await instance.events(f"{tenant}/s"))["epoch"]
    async with raw_socket(instance.port) as raw:
        ack = await begin(raw, f"{tenant}/s")
        assert ack["event"] == "connection_ack"
        assert "id" not in ack
        for number in (1, 2, 3):
            if number == 3:
                await push(instance, tenant, 3)
            event = await told(raw)
            assert event["id"] == f"{epoch}:{number}"
            assert event["event"] == "agent_response"
            assert orjson.loads(event["data"])["data"] == {"n": number}
    async with raw_socket(instance.port) as raw:
        ack = await begin(raw, f"{tenant}/s", f"Last-Event-ID: {epoch}:2", query="?offset=0")
        assert orjson.loads(ack["data"])["data"]["recovered"] is True
        assert (await told(raw))["id"] == f"{epoch}:3"
    async with raw_socket(instance.port) as raw:
        ack = await begin(raw, f"{tenant}/s", "Last-Event-ID: other:2")
        assert orjson.loads(ack["data"])["data"]["recovered"] is False


async def test_an_empty_last_event_id_is_none(instance: RunningProcess, tenant: str) -> None:
    await push(instance, tenant, 1)
    epoch = (await instance.events(f"{tenant}/s"))["epoch"]
    async with raw_socket(instance.port) as raw:
        ack = await begin(raw, f"{tenant}/s", "Last-Event-ID:", query="?offset=0")
        assert orjson.loads(ack["data"])["data"]["recovered"] is True
        assert (await told(raw))["id"] == f"{epoch}:1"


async def test_a_media_type_may_be_asked_for_in_any_case_of_letters(
    instance: RunningProcess, tenant: str
) -> None:
    async with raw_socket(instance.port) as raw:
        path = f"/api/sessions/{tenant}/s/events"
        told = await raw.request("HEAD", path, ["Accept: Text/Event-Stream"])
        assert told.headers["content-type"] == "text/event-stream"
