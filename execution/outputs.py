"""What an agent may yield, and how each becomes a callback (contract, section 5).

str, Delta   → delta      text for the user, in pieces; very long ones in several
Event        → event      a tool call, reasoning, a citation, state
Progress     → progress   how far it has come
Typing       → typing     a sign of life
Result       → completed  the end; without one, the end of the agent is. Its response, unless the
                          agent gives one, is all the text; a long one is joined by the
                          orchestrator, so that an answer may be longer than one callback
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from common.domain.callbacks import MAX_DEPTH, depth_of

MAX_ERROR_MESSAGE = 2000  # characters
PIECE = 4096  # characters of text in one delta: however escaped, below any usual limit of bytes


class Failed(Exception):
    """Raised by an agent to end its task as `failed`, with a type that clients can act upon."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, type: str | None = None) -> None:  # noqa: A002
        super().__init__(message)
        self.type = type or self.__class__.__name__.lower()


class Retryable(Failed):
    """Raised by an agent when the same task may succeed if it is tried again."""

    retryable = True


class InvalidOutput(Failed):
    """The agent yielded something that is no output, or cannot be written as JSON."""

    def __init__(self, message: str) -> None:
        super().__init__(message, type="invalid_output")


class Delta:
    """A piece of the answer, with whatever else clients are to see beside `text`."""

    type: ClassVar[str] = "delta"

    def __init__(self, text: str, /, **extra: Any) -> None:
        self.text = text
        self.data = {**extra, "text": text}


class Event:
    """Something the agent did or found: `Event("tool_call", tool="search", query="…")`."""

    type: ClassVar[str] = "event"

    def __init__(self, name: str, /, **data: Any) -> None:
        self.data = {**data, "name": name}


class Progress:
    """How far the agent has come, in percent, and with what it is busy.

    Raises ValueError unless `percent` is between 0 and 100.
    """

    type: ClassVar[str] = "progress"

    def __init__(self, percent: float, message: str = "") -> None:
        if not 0 <= percent <= 100:
            raise ValueError(f"progress is between 0 and 100, not {percent}")
        self.data = {"progress": percent, "message": message}


class Typing:
    """Shows the user that an answer is under way."""

    type: ClassVar[str] = "typing"
    data: ClassVar[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Usage:
    """What the task consumed. `cost` in the currency that the deployment reckons in."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None

    def as_data(self) -> dict[str, Any]:
        counted = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        return counted if self.cost is None else {**counted, "cost": self.cost}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The agent's last word. `response`: all that was streamed, unless it says otherwise."""

    response: str | None = None
    sources: Sequence[Any] = ()
    usage: Usage | None = None
    agent_info: Mapping[str, Any] | None = None

    def completed(self, seconds: float, agent_id: str, streamed: str | None = None) -> bytes:
        """The data of the `completed` callback. Raises InvalidOutput if it is no JSON.

        `streamed`: all text, where it has to be repeated for want of a response of its own.
        """
        usage = self.usage
        if not isinstance(self.response, str | None):
            raise InvalidOutput(f"the response is {type(self.response).__name__}, not str")
        response = streamed if self.response is None else self.response
        return encode(
            {
                **({} if response is None else {"response": response}),
                "sources": list(self.sources),
                "execution_time": round(seconds, 3),
                "tokens_used": usage and usage.input_tokens + usage.output_tokens,
                "usage": usage.as_data() if usage else {},
                "agent_info": {"agent_id": agent_id, **(self.agent_info or {})},
            }
        )


Output = str | Delta | Event | Progress | Typing | Result


def pieces_of(output: Output) -> Iterator[Output]:
    """Plain text too long for one callback in several; anything else as it is."""
    text = output.text if isinstance(output, Delta) and len(output.data) == 1 else output
    if not isinstance(text, str) or len(text) <= PIECE:
        yield output
        return
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def callback_of(output: object) -> tuple[str, bytes]:
    """The callback's type and data. Raises InvalidOutput for what is no output, or no JSON."""
    if isinstance(output, str):
        return Delta.type, encode({"text": output})
    if isinstance(output, Delta) and not isinstance(output.text, str):
        raise InvalidOutput(f"the text of a delta is {type(output.text).__name__}, not str")
    if isinstance(output, Event) and not isinstance(output.data["name"], str):
        raise InvalidOutput("the name of an event must be a str")
    if isinstance(output, Delta | Event | Progress | Typing):
        return output.type, encode(output.data)
    raise InvalidOutput(f"an agent cannot yield {type(output).__name__}")


def encode(data: Mapping[str, Any]) -> bytes:
    """JSON. Raises InvalidOutput where there is none for it: lone surrogates, unknown types."""
    try:
        encoded = orjson.dumps(data)
    except TypeError as error:
        raise InvalidOutput(f"the agent's output cannot be written as JSON: {error}") from error
    # Brackets bound the depth from above: only what has many is looked at.
    if encoded.count(b"{") + encoded.count(b"[") > MAX_DEPTH:
        depth = depth_of(orjson.loads(encoded))
        if depth > MAX_DEPTH:
            raise InvalidOutput(f"the agent's output is {depth} levels deep; {MAX_DEPTH} is most")
    return encoded


def failed(error: BaseException) -> bytes:
    """The data of the `failed` callback that tells of this exception; always valid JSON."""
    kind = error.type if isinstance(error, Failed) else type(error).__name__
    message = str(error)[:MAX_ERROR_MESSAGE] or type(error).__name__
    told = {"type": _printable(kind), "message": _printable(message)}
    if isinstance(error, Failed) and error.retryable:
        return orjson.dumps({"error": told, "retryable": True})
    return orjson.dumps({"error": told})


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode()
