"""What a client of a WebSocket might send: frames of every type, right, wrong, and hardly frames.

Each maker returns the bytes for the socket. Those of `SPOKEN` follow RFC 6455, so that the service
has to answer them; those of `BROKEN` need not, and may cost the connection.
"""

from collections.abc import Callable, Mapping

from benchmarks.rig.mutations import NASTY_JSON, Json, Mutator
from tests.support.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame

TYPES = ("chat.send_message", "chat.get_status", "chat.cancel_task", "ping", "auth.refresh")
FRAGMENT_CONTROL = 0.3  # how often a ping comes between two fragments

Maker = Callable[[], bytes]


class FrameInputs:
    """Makes frames; `largest` is the service's `websocket.max_message_bytes`."""

    def __init__(self, mutator: Mutator, schemas: Mapping[str, Json], largest: int) -> None:
        self._mutator = mutator
        self._dice = mutator.dice
        self._schemas = schemas
        self._largest = largest
        self.spoken: dict[str, Maker] = {
            "a frame that is allowed": lambda: self._text(self._allowed()),
            "a frame with wrong fields": lambda: self._text(self._wrong()),
            "a frame of any JSON": lambda: self._text(mutator.json()),
            "a frame of garbled text": self._garbled_text,
            "a binary frame": lambda: frame(BINARY, self._dice.randbytes(self._size())),
            "fragments": self._fragments,
            "a ping or pong": lambda: frame(
                self._dice.choice((PING, PONG)), self._dice.randbytes(self._dice.randrange(126))
            ),
        }
        self.broken: dict[str, Maker] = {
            "a frame that breaks rules": self._illegal,
            "a close of any kind": self._close,
            "a frame that is too large": self._oversized,
            "garbled bytes of frames": self._garbled_bytes,
            "text that is not UTF-8": lambda: frame(TEXT, b'{"type":"ping"}\xff'),
        }

    def _allowed(self) -> Json:
        kind = self._dice.choice(TYPES)
        made: dict[str, object] = {"type": kind}
        if self._mutator.chance(0.7):
            made["id"] = self._mutator.text(40)
        schema = self._schemas.get(kind)
        if schema is not None:
            made["data"] = self._mutator.of(schema)
        return made

    def _wrong(self) -> Json:
        made = dict(self._allowed())
        if self._mutator.chance(0.5) and isinstance(made.get("data"), dict):
            return {**made, "data": self._mutator.broken(made["data"])}
        return self._mutator.broken(made)

    def _text(self, value: object) -> bytes:
        return frame(TEXT, self._utf8(self._mutator.encoded(value)))

    def _utf8(self, text: bytes) -> bytes:
        """The text as a text frame may have it."""
        return text[: self._largest // 3].decode(errors="replace").encode()

    def _garbled_text(self) -> bytes:
        text = self._mutator.garbled(self._mutator.encoded(self._allowed()))
        return frame(TEXT, self._utf8(text))

    def _size(self) -> int:
        return self._dice.choice((0, 1, 125, 126, 127, 1000))

    def _fragments(self) -> bytes:
        text = self._utf8(self._mutator.encoded(self._allowed()))
        cuts = sorted(self._dice.randrange(len(text) + 1) for _ in range(self._dice.randint(1, 4)))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        made = b""
        for number, part in enumerate(parts):
            opcode = CONTINUATION if number else TEXT
            made += frame(opcode, part, is_final=number == len(parts) - 1)
            if self._mutator.chance(FRAGMENT_CONTROL):
                made += frame(PING, b"between")
        return made

    def _illegal(self) -> bytes:
        payload = self._mutator.encoded(self._allowed())[:100]
        return frame(
            self._dice.randrange(16),
            payload,
            is_final=self._mutator.chance(0.7),
            reserved=self._dice.choice((0, 0x10, 0x20, 0x40, 0x70)),
            is_masked=self._mutator.chance(0.7),
        )

    def _close(self) -> bytes:
        code = self._dice.choice(
            (0, 999, 1000, 1001, 1004, 1005, 1006, 1015, 2999, 3000, 4999, 5000)
        )
        payload = self._dice.choice(
            (b"", b"\x03", close_payload(code), close_payload(code, b"\xff"))
        )
        return frame(CLOSE, payload)

    def _oversized(self) -> bytes:
        if self._mutator.chance(0.5):
            return b"\x81\xff" + self._dice.choice((2**62, 2**63, self._largest + 1)).to_bytes(8)
        return frame(TEXT, b" " * (self._largest + 1))

    def _garbled_bytes(self) -> bytes:
        whole = self._text(self._allowed()) + frame(TEXT, self._dice.choice(NASTY_JSON)[:100])
        return self._mutator.garbled(whole)
