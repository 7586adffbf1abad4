"""Bodies that are taken, and answers as they come: shown in the document, tried by its tests."""

from typing import Any

UUID = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
EPOCH = "0a1b2c3d-0000-4000-8000-000000000000"
AT = "2026-01-31T10:00:00.123Z"
DONE = "2026-01-31T10:00:02.456Z"

Example = dict[str, Any]

SEND: dict[str, Example] = {
    "short": {
        "tenant_id": "acme",
        "session_id": "s-1",
        "agent_id": "echo",
        "message": "What is the weather like?",
    },
    "full": {
        "tenant_id": "acme",
        "session_id": "s-1",
        "agent_id": "echo",
        "message": "And tomorrow?",
        "message_type": "text",
        "user_id": "u-1",
        "user_info": {"locale": "en-GB"},
        "context": {"page": "/forecast"},
        "metadata": {"source": "console"},
        "timeout": 60,
        "priority": "normal",
        "if_busy": "enqueue",
    },
}
TASK: dict[str, Example] = {"task": {"tenant_id": "acme", "task_id": UUID}}
CANCEL: dict[str, Example] = {
    "with a reason": {"tenant_id": "acme", "task_id": UUID, "reason": "the user pressed stop"}
}
PUSH: dict[str, Example] = {
    "a push": {
        "tenant_id": "acme",
        "session_id": "s-1",
        "message_type": "ticket.updated",
        "message_data": {"ticket": 42, "status": "solved"},
        "action_id": UUID,
    }
}
BROADCAST: dict[str, Example] = {
    "to all": {"tenant_id": "acme", "message_data": {"text": "Maintenance at noon."}},
    "to some": {
        "tenant_id": "acme",
        "target_sessions": ["s-1", "s-2"],
        "message_type": "notice",
        "message_data": {"text": "Your report is ready."},
    },
}

ACCEPTED: Example = {
    "task_id": UUID,
    "status": "queued",
    "tenant_id": "acme",
    "session_id": "s-1",
    "created_at": AT,
}
STATUS: Example = {
    "task_id": UUID,
    "tenant_id": "acme",
    "session_id": "s-1",
    "agent_id": "echo",
    "status": "completed",
    "progress": None,
    "attempt": 1,
    "created_at": AT,
    "updated_at": DONE,
    "started_at": AT,
    "finished_at": DONE,
    "result": {"response": "It will be sunny.", "tokens_used": 12},
    "error": None,
    "usage": {"input_tokens": 7, "output_tokens": 5, "cost": 0.0001},
}
EVENTS: Example = {
    "epoch": EPOCH,
    "events": [
        {
            "type": "user_message",
            "data": {
                "message": "What is the weather like?",
                "message_type": "text",
                "user_id": "u-1",
                "agent_id": "echo",
            },
            "timestamp": AT,
            "task_id": UUID,
            "metadata": {},
            "tenant_id": "acme",
            "session_id": "s-1",
            "offset": 1,
        }
    ],
    "next_offset": 1,
    "last_offset": 1,
    "oldest_offset": 1,
}
