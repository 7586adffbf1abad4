"""The Lua scripts, by name: each is one atomic step, and says in `lua/` what it does."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "lua"

Value = str | bytes | int | float
Command = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and its SHA-1, by which Redis knows it."""

    body: bytes
    sha: str

    def call(self, keys: Sequence[str], *args: Value) -> Command:
        """The command that runs it, to be sent alone or within a batch."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


@cache
def script(name: str, *preludes: str) -> Script:
    """Loads `lua/NAME.lua`, with the files that it builds on put in front."""
    body = b"\n".join((FOLDER / f"{part}.lua").read_bytes() for part in (*preludes, name))
    # Redis addresses scripts by SHA-1; nothing here rests on its strength.
    return Script(body, hashlib.sha1(body, usedforsecurity=False).hexdigest())


@cache
def scripts_by_sha() -> dict[str, Script]:
    """All scripts that Redis may be found not to know, for loading them anew."""
    return {each.sha: each for each in ALL}


SESSION = ("_common", "_session")
TASK = (*SESSION, "_task")
DUE = ("_common", "_due")
TURNS = ("_groups", "_tenants", "_turns")

SUBMIT_TASK = script("submit_task", *DUE, "_session", *TURNS, "_limits")
APPLY_CALLBACKS = script("apply_callbacks", *TASK)
CANCEL_TASK = script("cancel_task", *TASK)
CHECK_TASK = script("check_task", *TASK)
FAIL_TASK = script("fail_task", *TASK)
PUSH_EVENT = script("push_event", *SESSION)
JOIN_SESSION = script("join_session", *SESSION)
READ_LOG = script("read_log")
TAKE_TURNS = script("take_turns", *DUE, *TURNS)
SCHEDULE = script("schedule", *DUE)
TAKE_DUE = script("take_due", "_common")
SETTLE_DUE = script("settle_due")
ADD_LETTER = script("add_letter")
DROP_HANDLED = script("drop_handled", "_groups")
TAKEN_ENTRIES = script("taken_entries")
RETIRE_CONSUMER = script("retire_consumer")
BEAT = script("beat", "_common")
BROADCAST = script("broadcast")
ENTER_CONNECTION = script("enter_connection", "_common")
RENEW_CONNECTIONS = script("renew_connections", "_common")
COUNT_BAD_HANDSHAKES = script("count_bad_handshakes")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Script))
